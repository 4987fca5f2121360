//! Connections that know nothing of a proxy. The address they were made to stands for a name, or is one that somebody
//! wrote down; either way the gateway judges it, and only the gateway dials.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::process::{Resource, getrlimit};
use sluicegate_relay_protocol::Handshake;
use socket2::SockRef;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::names::Names;
use crate::{
    flow::{Flow, How, SocketFlow, Timers, pump},
    proxy::{self, Notice, Why},
    session::{Credential, Session, SessionError},
    tasks::Tasks,
};

/// After an accept that failed (out of descriptors): long enough for others to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection waits this long for one to the gateway.
const PATIENCE: Duration = Duration::from_secs(10);
/// A refused one is read from for this long, to be refused in words its client understands.
const FIRST_WORDS: Duration = Duration::from_secs(1);
/// And then for this long, so that a close does not overtake what was said.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A fatal `access_denied` alert (RFC 8446 §6.2) in a plaintext record.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What one connection takes of the descriptors there may be: its own, and the way out where the gateway is this process. The
/// rest is for all else.
const SHARE: u64 = 3;
/// Where there is no bound on descriptors.
const MOST: u64 = 1 << 20;

/// Places for connections that are carried at a time. Beyond them one is refused at once: it would wait for a descriptor only to
/// be told that there is none.
pub(super) fn places() -> Arc<Semaphore> {
    let limit = getrlimit(Resource::Nofile).current;
    Arc::new(Semaphore::new(places_of(limit)))
}

fn places_of(limit: Option<u64>) -> usize {
    let places = limit.unwrap_or(MOST).min(MOST) / SHARE;
    usize::try_from(places).unwrap_or(usize::MAX).max(1)
}

/// What capture needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Capture {
    pub(super) session: Session,
    pub(super) token: Credential,
    pub(super) names: Names,
    pub(super) places: Arc<Semaphore>,
    pub(super) notice: Notice,
    pub(super) tasks: Tasks,
    pub(super) stop: CancellationToken,
}

impl Capture {
    /// Accept until told to stop.
    pub(super) async fn serve(self, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, from)) => match self.places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let carried = self.clone().carry(stream);
                        self.tasks.spawn(async move {
                            carried.await;
                            drop(place);
                        });
                    }
                    Err(_) => self.turn_away(&stream, from),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept captured connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// No place: reset at once.
    fn turn_away(&self, stream: &TcpStream, from: SocketAddr) {
        if let Some(meant) = original(stream) {
            let (host, port) = (self.host(meant.ip()), meant.port());
            let notice = self.notice.of(Some(from));
            notice.refused(&format!("{host}:{port}"), Why::NoRoom);
        }
        let _ = stream.set_zero_linger();
    }

    /// The name an address stands for, or itself.
    fn host(&self, meant: IpAddr) -> String {
        match self.names.name(meant) {
            Some(name) => name.to_string(),
            None => meant.to_canonical().to_string(),
        }
    }

    async fn carry(self, stream: TcpStream) {
        let Some(meant) = original(&stream) else {
            // Made to this port itself: there is nothing behind it.
            let _ = stream.set_zero_linger();
            return;
        };
        let host = self.host(meant.ip());
        let target = Handshake::Egress {
            host,
            port: meant.port(),
        };
        let opened = tokio::select! {
            opened = self.session.open_as(&target, &self.token, PATIENCE) => opened,
            // The program has given up: so do we.
            _ = stream.ready(tokio::io::Interest::ERROR) => return,
        };
        match opened {
            Ok(flow) => tunnel(stream, flow, &target).await,
            Err(error) => {
                tracing::debug!(?target, reason = %error, "a captured connection was refused");
                if let (SessionError::Full(..), Handshake::Egress { host, port }) =
                    (&error, &target)
                {
                    // No gateway hears of it.
                    let notice = self.notice.of(stream.peer_addr().ok());
                    notice.refused(&format!("{host}:{port}"), Why::NoRoom);
                }
                refuse(stream, &error).await;
            }
        }
    }
}

async fn tunnel(stream: TcpStream, mut flow: Box<dyn Flow>, target: &Handshake) {
    let mut program = SocketFlow::new(stream);
    let ending = pump(&mut program, &mut flow, Timers::default(), &()).await;
    match ending.how {
        How::Completed => tracing::debug!(?target, "closed"),
        how => tracing::debug!(?target, ?how, "reset"),
    }
}

/// The address a redirected connection was made to.
fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let meant = match stream.local_addr().ok()?.ip() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    meant.ok()?.as_socket()
}

/// Say no as the client would understand it: an HTTP answer to a request, an alert to a ClientHello, else a reset.
async fn refuse(mut stream: TcpStream, error: &SessionError) {
    let mut first = [0; 8];
    let said = timeout(FIRST_WORDS, stream.peek(&mut first)).await;
    let words = match said {
        Ok(Ok(length)) => words(first.get(..length).unwrap_or_default(), error),
        _ => None,
    };
    let Some(words) = words else {
        let _ = stream.set_zero_linger();
        return;
    };
    let said = async {
        stream.write_all(&words).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // A client that goes on is cut off.
    let _ = timeout(LAST_WORDS, said).await;
}

fn words(first: &[u8], error: &SessionError) -> Option<Bytes> {
    let [initial, ..] = first else { return None };
    if *initial == 22 {
        return Some(Bytes::from_static(&ACCESS_DENIED));
    }
    let method = first
        .iter()
        .position(|byte| *byte == b' ')
        .map_or(first, |end| first.get(..end).unwrap_or_default());
    let http = method.len() >= 3 && method.iter().all(u8::is_ascii_uppercase);
    http.then(|| proxy::refusal(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::Duration;

    use super::{ACCESS_DENIED, places_of, words};
    use crate::session::SessionError;

    #[test]
    fn places_leave_room_for_the_ways_out() {
        for limit in [64, 256, 1024, 1 << 20] {
            let places = places_of(Some(limit)) as u64;
            assert!(
                places * 2 + limit / 4 <= limit && places > limit / 4,
                "{limit}"
            );
        }
        assert_eq!(places_of(Some(0)), 1);
        assert!(places_of(None) > 100_000);
    }

    #[test]
    fn each_client_is_refused_in_its_own_words() {
        let error = SessionError::NotConnected(Duration::ZERO);
        let said = |first: &[u8]| words(first, &error);
        assert_eq!(said(b"\x16\x03\x01").unwrap()[..], ACCESS_DENIED);
        for request in [&b"GET / HT"[..], b"OPTIONS ", b"PROPFIND", b"PUT /x H"] {
            assert!(said(request).unwrap().starts_with(b"HTTP/1.1 502 "));
        }
        for other in [
            &b""[..],
            b"SSH-2.0-",
            b"\x00\x00\x00\x08",
            b"ab",
            b"*1\r\n$4\r\n",
        ] {
            assert_eq!(said(other), None);
        }
    }
}
