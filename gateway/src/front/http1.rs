//! One downstream connection: which protocol, which front.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::Response;
use sluicegate_policy::{Denial, Refusal};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout_at},
};

use super::{
    connect::{self, Accepted as Answered, Ask, Wanted},
    context::{Context, Current},
    forward::{self, Scope},
    h2, headers,
};
use crate::{
    auth::Values,
    egress::{Guarded, Rewind, linger_close},
    listen::{Accepted, Carrying, Downstream, Preface},
    message::{Asks, denial_of, misspelt},
    sniff::{Event, Head, Judged, RequestStream},
    telemetry::{Front, Kind, Protocol},
};

/// RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once while a head arrives.
const CHUNK: usize = 4096;

thread_local! {
    /// Heads are read into this: a connection keeps what it has sent, and no room for what it has not.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// What a connection's first bytes are.
enum First {
    Http2,
    Connect(Judged),
    Other,
    Refused(Denial),
    /// Nothing came, or not enough before the client left.
    Gone,
}

/// Serve one connection until it is known what it carries; `secure` where its listener speaks TLS.
pub(super) async fn serve(
    accepted: Accepted,
    secure: bool,
    current: Arc<Current>,
) -> Option<Carrying> {
    let Accepted {
        stream,
        peer,
        preface,
        ..
    } = accepted;
    if preface == Preface::Malformed {
        malformed(stream, peer, secure, &current.now()).await;
        return None;
    }
    let since = Instant::now();
    let of_h2 = |channel| h2::Peer {
        address: peer,
        channel,
        secure,
        since,
    };
    if stream.alpn() == Some(b"h2") {
        let peer = of_h2(stream.channel());
        return Some(Box::pin(h2::serve(stream, peer, current)));
    }
    let mut stream = Guarded::new(stream);
    let mut buffer = BytesMut::new();
    let timeouts = current.now().egress.timeouts;
    let first = match timeout_at(
        since + timeouts.head,
        read_first(&mut stream, &mut buffer, timeouts.max_head),
    )
    .await
    {
        Ok(first) => first,
        Err(_) if buffer.is_empty() => First::Gone,
        Err(_) => First::Refused(Denial::HeadTimeout),
    };
    match first {
        First::Gone => {
            stream.release();
            None
        }
        First::Http2 => {
            stream.release();
            let peer = of_h2(stream.get().and_then(Downstream::channel));
            let stream = Rewind::new(buffer.freeze(), stream);
            Some(Box::pin(h2::serve(stream, peer, current)))
        }
        First::Other => {
            let serving = forward::serve(stream, buffer, peer, current, Scope::Proxy);
            Some(Box::pin(serving))
        }
        First::Connect(judged) => connect(stream, buffer, judged, peer, current).await,
        First::Refused(denial) => {
            let context = current.now();
            let mut recorder = context.telemetry.begin(Kind::request, Front::origin, peer);
            recorder.protocol(Protocol::Http1);
            let html = headers::raw_prefers_html(&buffer, denial);
            let target = misspelt::leads_to(denial, &buffer);
            if let Some(target) = &target {
                recorder.target(target);
            }
            let refusal = misspelt::refusal(denial, target.is_some());
            let target = target.as_ref();
            let answer = context.reject(Asks::Proxy, &refusal, target, &mut recorder, html);
            refuse(stream, &answer).await;
            None
        }
    }
}

/// A trusted peer has not said for whom it speaks. Where TLS is to come there is no answer to give.
async fn malformed(stream: Downstream, peer: SocketAddr, secure: bool, context: &Context) {
    let mut recorder = context.telemetry.begin(Kind::request, Front::origin, peer);
    let refusal = Refusal::from(Denial::MalformedRequest);
    let answer = context.reject(Asks::Proxy, &refusal, None, &mut recorder, false);
    let stream = Guarded::new(stream);
    if !secure {
        refuse(stream, &answer).await;
    }
}

/// Read until the first head is whole, or is HTTP/2's.
async fn read_first(
    stream: &mut Guarded<Downstream>,
    buffer: &mut BytesMut,
    max_head: usize,
) -> First {
    let mut judge = RequestStream::with_max_head(max_head);
    loop {
        match read_more(stream, buffer).await {
            Ok(n) if n > 0 => {}
            _ => return First::Gone,
        }
        if buffer.starts_with(H2_PREFACE) {
            return First::Http2;
        }
        if H2_PREFACE.starts_with(buffer) {
            continue;
        }
        match judge.step(buffer) {
            Event::NeedMore => {}
            Event::Head(head) if head.is_connect() => return First::Connect(head.judged()),
            Event::Malformed(error) => return First::Refused(denial_of(error)),
            Event::Head(_) | Event::Body(_) | Event::End | Event::Opaque => return First::Other,
        }
    }
}

/// Read what has come, behind what is in `buffer`. Dropped before it is done, it has read nothing.
async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<usize> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            buffer.extend_from_slice(read.filled());
            Poll::Ready(Ok::<_, io::Error>(read.filled().len()))
        })
    })
    .await
}

/// A CONNECT at the start of a connection: the common case, without an HTTP library between.
async fn connect(
    mut stream: Guarded<Downstream>,
    buffer: BytesMut,
    judged: Judged,
    peer: SocketAddr,
    current: Arc<Current>,
) -> Option<Carrying> {
    let head = judged.head(&buffer)?;
    let consumed = head.len();
    let gone = std::future::pending::<()>();
    let context = current.now();
    let accepted = connect::accept(&context, peer, ask(&head), gone).await;
    drop(context);
    match accepted {
        Answered::Opened(opened) => {
            // Mostly nothing, which takes no allocation.
            let first = buffer.get(consumed..).unwrap_or_default().to_vec();
            drop(buffer);
            let sent = stream
                .write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")
                .await;
            if sent.is_err() || stream.flush().await.is_err() {
                return None;
            }
            let carrying = connect::carry(stream, first, opened, peer, current);
            Some(Box::pin(carrying))
        }
        // What a client sends behind a CONNECT is the tunnel's: refused, it is never read as another request.
        Answered::Refused(answer) => {
            refuse(stream, &answer).await;
            None
        }
        Answered::Gone => None,
    }
}

fn ask<'b>(head: &Head<'b>) -> Ask<'b> {
    let (mut host, mut accept, mut credentials) = (None, Vec::new(), Values::default());
    for field in head.fields() {
        if field.is("proxy-authorization") {
            credentials.push(field.value);
        } else if field.is("host") {
            host = host.or(Some(field.value));
        } else if field.is("accept") {
            accept.push(field.value);
        }
    }
    Ask {
        front: Front::connect,
        wanted: Wanted::Authority {
            authority: head.target(),
            host,
        },
        credentials,
        channel: None,
        html: headers::prefers_html(accept.into_iter()),
        protocol: Some(Protocol::Http1),
        carrier: None,
    }
}

/// Write a last answer and close so that it arrives.
async fn refuse(mut stream: Guarded<Downstream>, answer: &Response<Bytes>) {
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\n",
        answer.status().as_u16(),
        answer.status().canonical_reason().unwrap_or("Refused")
    )
    .into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(
        format!(
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            answer.body().len()
        )
        .as_bytes(),
    );
    bytes.extend_from_slice(answer.body());
    if stream.write_all(&bytes).await.is_ok() {
        linger_close(&mut stream).await;
        stream.release();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncWriteExt, duplex};

    use super::{BytesMut, CHUNK, read_more};

    #[tokio::test]
    async fn what_was_read_is_kept_in_order_and_no_more_room_than_that() {
        let (mut client, mut stream) = duplex(4 * CHUNK);
        let mut buffer = BytesMut::new();
        client.write_all(b"CONNECT a.example:443").await.unwrap();
        assert_eq!(read_more(&mut stream, &mut buffer).await.unwrap(), 21);
        assert!(buffer.capacity() < CHUNK / 8, "{}", buffer.capacity());
        let sent: Vec<u8> = (0..=255).cycle().take(2 * CHUNK + 1).collect();
        client.write_all(&sent).await.unwrap();
        drop(client);
        while read_more(&mut stream, &mut buffer).await.unwrap() > 0 {}
        assert_eq!(
            buffer,
            [b"CONNECT a.example:443".as_slice(), &sent].concat()
        );
    }
}
