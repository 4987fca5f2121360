//! Bounds of one connection.

use std::time::Duration;

use h2::Reason;
use sluicegate_relay::transport::windows;

use super::calm::FIRST;

/// Requests that wait, unseen, and were reset already. As many as may be reset before anything useful was done: it is that count
/// ([`Calm`](super::Calm)) which tells a flood from a client whose bytes came late and all at once. The library's own default
/// of 20 takes a pause of the network for a flood. Each keeps its head until it is seen.
const RESET_UNSEEN: usize = FIRST as usize;

/// Bounds of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Streams open at once.
    pub streams: u32,
    /// Connections at once that carry relay streams of one session, QUIC and HTTP/3 included.
    pub of_session: u32,
    /// Bytes of a request's head, as HTTP/2 counts them (RFC 9113 §6.5.2).
    pub head_bytes: u32,
    /// Until the first request is in, the connection preface before it; on QUIC also until there is room for an answer's head.
    pub head_timeout: Duration,
    /// A connection without a stream for this long is asked to end; zero = never.
    pub idle: Duration,
    /// Between two PINGs. A peer of which neither the answer nor anything else comes for as long is gone.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            of_session: 16,
            head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            keep_alive: Duration::from_secs(10),
        }
    }
}

/// A server within these bounds, with the windows of connections that carry relay streams.
pub fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(windows::STREAM)
        .initial_connection_window_size(windows::CONNECTION)
        .max_frame_size(windows::FRAME)
        .max_send_buffer_size(windows::SEND_BUFFER)
        .data_frame_budget(windows::SMALL_FRAMES)
        .max_header_list_size(limits.head_bytes)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_concurrent_reset_streams(windows::RESETS_KNOWN)
        .reset_stream_duration(windows::RESET_KNOWN);
    builder
}

/// Did the library end a connection because its client made too much work? (Else it broke, or broke a rule.)
pub fn is_flood(error: &h2::Error) -> bool {
    error.is_library() && error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, task::Poll};

    use bytes::Bytes;
    use h2::{Reason, server::Connection};
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::{Limits, RESET_UNSEEN, builder, is_flood};

    type Exchange = (
        http::Request<h2::RecvStream>,
        h2::server::SendResponse<Bytes>,
    );

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// :method GET, :scheme http, :path / of the static table (RFC 7541 appendix A), and :authority as a literal.
    const HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x01, 1, b'a'];

    fn frame(kind: u8, flags: u8, stream: usize, payload: &[u8]) -> Vec<u8> {
        let stream = u32::try_from(stream).unwrap().to_be_bytes();
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags][..], &stream, payload].concat()
    }

    /// A client, and the connection that has seen nothing of what it said.
    async fn met(said: Vec<u8>) -> (DuplexStream, Connection<DuplexStream, Bytes>) {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let bytes = [PREFACE, &frame(4, 0, 0, &[]), &said].concat();
        near.write_all(&bytes).await.unwrap();
        let handshake = builder(&Limits::default()).handshake(far);
        (near, handshake.await.unwrap())
    }

    /// What it has to say now: what came is all there is, so that a poll that waits has seen it.
    async fn heard(
        connection: &mut Connection<DuplexStream, Bytes>,
    ) -> (Vec<Exchange>, Option<h2::Error>) {
        let mut seen = Vec::new();
        loop {
            let next = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx)));
            match next.await {
                Poll::Ready(Some(Ok(exchange))) => seen.push(exchange),
                Poll::Ready(Some(Err(error))) => return (seen, Some(error)),
                Poll::Ready(None) | Poll::Pending => return (seen, None),
            }
        }
    }

    /// So many requests, each given up in the frame after it, and one that is not.
    async fn accepted(resets: usize) -> (usize, Option<h2::Error>) {
        let given_up = (0..resets).flat_map(|number| {
            let stream = 2 * number + 1;
            [
                frame(1, 5, stream, &HEAD),
                frame(3, 0, stream, &8_u32.to_be_bytes()),
            ]
        });
        let last = frame(1, 5, 2 * resets + 1, &HEAD);
        let (_near, mut connection) = met(given_up.chain([last]).flatten().collect()).await;
        let (seen, error) = heard(&mut connection).await;
        (seen.len(), error)
    }

    /// As many as a change of policy may cut at once, each with a dozen frames under way.
    #[tokio::test]
    async fn what_was_under_way_to_streams_that_were_reset_here_is_no_fault() {
        const STREAMS: usize = 150;
        let open = (0..STREAMS).flat_map(|number| frame(1, 4, 2 * number + 1, &HEAD));
        let (mut near, mut connection) = met(open.collect()).await;
        let (seen, error) = heard(&mut connection).await;
        assert_eq!((seen.len(), error.is_none()), (STREAMS, true));
        for (_request, mut respond) in seen {
            respond.send_reset(Reason::CANCEL);
        }
        assert!(heard(&mut connection).await.1.is_none());
        let under_way = (0..12 * STREAMS)
            .flat_map(|number| frame(0, 0, 2 * (number % STREAMS) + 1, b"x"))
            .collect::<Vec<u8>>();
        near.write_all(&under_way).await.unwrap();
        let (seen, error) = heard(&mut connection).await;
        assert!(seen.is_empty() && error.is_none(), "{error:?}");
    }

    #[tokio::test]
    async fn requests_that_were_given_up_unseen_end_no_connection() {
        let (seen, error) = accepted(200).await;
        assert_eq!((seen, error.is_none()), (201, true));
        let (seen, error) = accepted(RESET_UNSEEN).await;
        assert_eq!((seen, error.is_none()), (RESET_UNSEEN + 1, true));
    }

    #[tokio::test]
    async fn more_of_them_are_a_flood() {
        let (_, error) = accepted(RESET_UNSEEN + 1).await;
        assert!(error.is_some_and(|error| is_flood(&error)));
    }
}
