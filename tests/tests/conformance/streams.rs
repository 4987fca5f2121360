//! The same questions as a CONNECT on a stream of HTTP/2, each on a connection of its own.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use e2e::wire::{Head, Reply};
use e2e::{Tasks, Wire, within};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Method, Request, Uri};

/// An answered CONNECT.
pub(crate) struct Answered {
    pub(crate) head: Head,
    send: SendStream<Bytes>,
    receive: RecvStream,
    _requests: SendRequest<Bytes>,
    _tasks: Tasks,
}

/// The request, where a client of HTTP/2 could send it: its `:authority` is one that the library takes.
pub(crate) fn request(authority: &[u8], credential: &str) -> Option<Request<()>> {
    let (name, value) = credential.trim_end().split_once(": ")?;
    let uri = Uri::try_from(authority).ok()?;
    let whole = uri.authority()?.as_str().as_bytes() == authority && uri.scheme().is_none();
    let request = Request::builder().method(Method::CONNECT).uri(uri);
    let request = request
        .header(name.to_ascii_lowercase(), value)
        .body(())
        .ok()?;
    whole.then_some(request)
}

/// Ask it of a plaintext listener, by prior knowledge (RFC 9113 §3.3).
pub(crate) async fn ask(proxy: SocketAddr, request: Request<()>) -> Answered {
    let wire = Wire::dial(proxy).await;
    let (requests, driver) = h2::client::handshake(wire.stream).await.unwrap();
    let tasks = Tasks::default();
    tasks.spawn(async move { drop(driver.await) });
    let mut ready = within("a place", requests.ready()).await.unwrap();
    let (response, send): (ResponseFuture, _) = ready.send_request(request, false).unwrap();
    let (head, receive) = within("an answer", response).await.unwrap().into_parts();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap();
        (name.as_str().to_owned(), value.to_owned())
    });
    Answered {
        head: Head {
            status: head.status.as_u16(),
            headers: headers.collect(),
        },
        send,
        receive,
        _requests: ready,
        _tasks: tasks,
    }
}

impl Answered {
    /// Read to the end.
    pub(crate) async fn reply(mut self) -> Reply {
        let mut body = Vec::new();
        while let Some(data) = within("DATA", self.receive.data()).await {
            body.extend_from_slice(&data.unwrap());
        }
        Reply {
            head: self.head,
            body,
        }
    }

    /// Send through the tunnel, and read until the head of an answer is whole: its first line.
    pub(crate) async fn exchange(&mut self, request: String) -> String {
        self.send.send_data(request.into(), false).unwrap();
        let mut seen = BytesMut::new();
        while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
            let data = within("DATA", self.receive.data()).await.unwrap().unwrap();
            seen.extend_from_slice(&data);
        }
        let text = String::from_utf8_lossy(&seen);
        text.lines().next().unwrap_or_default().to_owned()
    }
}
