//! The same questions on streams of HTTP/2 and HTTP/3.

use std::sync::Arc;

use bytes::Bytes;
use e2e::h3_streams::{Exchange, Http3Streams};
use e2e::pipe::{Far, reset};
use e2e::raw::End;
use e2e::tasks::until_told;
use e2e::wire::{Head, Reply};
use e2e::{Pipe, Tasks, Wire, capsules, within};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Uri};

use crate::forms::{Form, TEMPLATES};

/// A connection on which requests are streams.
pub(crate) enum Connection {
    Http2(SendRequest<Bytes>, Tasks),
    Http3(Arc<Http3Streams>),
}

/// A request that has its answer's head, and what follows it.
pub(crate) struct Answered {
    pub(crate) head: Head,
    rest: Wire<Pipe>,
}

type Fields = [(String, String)];

/// The request, where a client of HTTP/2 could send it: its `:authority` is one that the library takes.
pub(crate) fn request(fields: &Fields) -> Option<Request<()>> {
    let pseudo = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    };
    let authority = pseudo(":authority")?;
    let text = match (pseudo(":scheme"), pseudo(":path")) {
        (Some(scheme), Some(path)) => format!("{scheme}://{authority}{path}"),
        _ => authority.to_owned(),
    };
    let uri = Uri::try_from(text).ok()?;
    let whole = uri.authority()?.as_str() == authority;
    let method = Method::try_from(pseudo(":method")?).ok()?;
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        request = request.header(name, value);
    }
    let mut request = request.body(()).ok()?;
    if let Some(protocol) = pseudo(":protocol") {
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    whole.then_some(request)
}

impl Connection {
    /// HTTP/2 on a plaintext connection, by prior knowledge (RFC 9113 §3.3), once its settings are in.
    pub(crate) async fn http2(wire: Wire) -> Self {
        let (requests, driver) = h2::client::handshake(wire.stream).await.unwrap();
        let tasks = Tasks::default();
        tasks.spawn(async move { drop(driver.await) });
        let settled = async || {
            requests
                .is_extended_connect_protocol_enabled()
                .then_some(())
        };
        until_told("SETTINGS", settled).await;
        Self::Http2(requests, tasks)
    }

    /// Ask; `early` comes behind the request at once. `None` where the stream is reset instead of answered.
    pub(crate) async fn ask(self, form: Form, fields: &Fields, early: &[u8]) -> Option<Answered> {
        let early = if early.is_empty() || !TEMPLATES.contains(&form) {
            early.to_vec()
        } else {
            let parts = early.chunks(10_000);
            let parts = parts.map(|part| capsules::capsule(capsules::DATA, part));
            parts.collect::<Vec<_>>().concat()
        };
        let mut answered = match self {
            Self::Http2(requests, tasks) => http2(requests, tasks, form, fields, early).await?,
            Self::Http3(streams) => {
                let exchange = streams.ask(fields, !form.tunnels()).await;
                http3(exchange, &early).await?
            }
        };
        if TEMPLATES.contains(&form) && answered.head.status == 200 {
            answered.rest = capsules::inside(answered.rest);
        }
        Some(answered)
    }
}

async fn http2(
    requests: SendRequest<Bytes>,
    tasks: Tasks,
    form: Form,
    fields: &Fields,
    early: Vec<u8>,
) -> Option<Answered> {
    let mut ready = within("a place", requests.ready()).await.unwrap();
    let request = request(fields).expect("something a library can say");
    let (response, mut send) = ready.send_request(request, !form.tunnels()).unwrap();
    if !early.is_empty() {
        send.send_data(early.into(), false).unwrap();
    }
    let (head, receive) = within("an answer", response).await.ok()?.into_parts();
    let headers = head.headers.iter().map(|(name, value)| {
        let value = value.to_str().unwrap();
        (name.as_str().to_owned(), value.to_owned())
    });
    let head = Head {
        status: head.status.as_u16(),
        headers: headers.collect(),
    };
    let rest = Pipe::carried(|far| async move {
        let _connection = (ready, tasks);
        carry(send, receive, far).await;
    });
    Some(Answered {
        head,
        rest: Wire::over(rest),
    })
}

async fn carry(mut send: SendStream<Bytes>, mut receive: RecvStream, far: Far) {
    let Far { down, mut up } = far;
    let arriving = async move {
        while let Some(data) = receive.data().await {
            let Ok(data) = data else {
                let _ = down.send(Err(reset()));
                return;
            };
            let _ = receive.flow_control().release_capacity(data.len());
            let _ = down.send(Ok(data));
        }
    };
    let sending = async move {
        while let Some(part) = up.recv().await {
            let end = part.is_none();
            let _ = send.send_data(part.unwrap_or_default(), end);
        }
    };
    tokio::join!(arriving, sending);
}

async fn http3(mut exchange: Exchange, early: &[u8]) -> Option<Answered> {
    if !early.is_empty() {
        exchange.send(early, false);
    }
    let head = exchange.head().await?;
    let (status, end) = (head.status, head.end);
    let head = Head {
        status,
        headers: head.fields,
    };
    let rest = if end {
        Wire::over(Pipe::carried(|far| async move { drop(far) }))
    } else {
        exchange.tunnel()
    };
    Some(Answered { head, rest })
}

/// A tunnel that is gone before anybody says so.
pub(crate) fn gone() -> Wire<Pipe> {
    Wire::over(Pipe::carried(|far| async move {
        let _ = far.down.send(Err(reset()));
    }))
}

impl Answered {
    /// The head, and the body as it comes.
    pub(crate) fn begun(self) -> (Head, Wire<Pipe>) {
        (self.head, self.rest)
    }

    /// Read to the end, which is FIN.
    pub(crate) async fn reply(mut self) -> Reply {
        let (body, end) = self.rest.rest().await;
        assert_eq!(end, End::Fin, "{:?}", self.head);
        Reply {
            head: self.head,
            body,
        }
    }

    /// The tunnel it is about.
    pub(crate) fn tunnel(self, what: &str) -> Wire<Pipe> {
        assert_eq!(self.head.status, 200, "{what}: {:?}", self.head);
        self.rest
    }
}
