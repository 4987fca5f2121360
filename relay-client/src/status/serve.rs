//! Answers.

use std::{convert::Infallible, fmt::Write, io, time::Duration, time::SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::{
    body::Incoming, client::conn::http1 as client, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{guard, stats::TRANSPORTS};
use crate::{
    flow::Shared,
    listen::{Address, Came, Door, Listener, Visitor},
    session::{Session, Status},
    transport::Reason,
};

/// After an accept that failed (out of descriptors): long enough for others to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A request is whole by then.
const HEAD: Duration = Duration::from_secs(5);
/// So many ask at a time; the others wait.
const ASKERS: usize = 32;
/// A client's own answer is small.
const ANSWER_MAX: usize = 256 * 1024;

/// What is told about.
#[derive(Clone, Debug)]
pub struct Board {
    /// The session.
    pub session: Session,
    /// What else was configured: `listen`, `expose`, `proxy`.
    pub configured: Value,
}

/// Accept on `listener` until `stop`. Only our own user is told, unless `any_uid`.
pub async fn serve(
    listener: Listener,
    board: Board,
    any_uid: bool,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    // No page in a browser reaches a unix socket.
    let guarded = matches!(listener, Listener::Tcp(_));
    let mut door = Door::new(listener, any_uid, ASKERS);
    while let Some(accepted) = stop.run_until_cancelled(door.visitor()).await {
        match accepted {
            Ok(visitor) => {
                let (board, stop) = (board.clone(), stop.clone());
                let one = one(visitor, board, guarded);
                tasks.spawn(async move { stop.run_until_cancelled(one).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept whoever asks for the status");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn one(visitor: Visitor, board: Board, guarded: bool) {
    let (socket, _place) = match visitor.known().await {
        Came::Ours(socket, place) => (socket, place),
        Came::Stranger(socket) => return socket.close_resets(),
    };
    let service = service_fn(move |request| {
        let refused = guard::refusal(&request).filter(|_| guarded);
        let answer = match refused {
            Some(status) => plain(
                status,
                "this is answered under a loopback name only\n".to_owned(),
            ),
            None => board.answer(&request),
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(socket), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "whoever asked for the status has gone");
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    answer(status, "text/plain", body)
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

impl Board {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let good = matches!(*self.session.status().borrow(), Status::Connected { .. });
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/status") => answer(
                StatusCode::OK,
                "application/json",
                format!("{}\n", self.json()),
            ),
            (&Method::GET, "/metrics") => {
                answer(StatusCode::OK, "text/plain; version=0.0.4", self.metrics())
            }
            (&Method::GET, "/healthz") if good => plain(StatusCode::OK, "ok\n".to_owned()),
            (&Method::GET, "/healthz") => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "not connected\n".to_owned(),
            ),
            _ => plain(
                StatusCode::NOT_FOUND,
                "GET /status, /metrics or /healthz\n".to_owned(),
            ),
        }
    }

    /// As `/status` has it.
    pub fn json(&self) -> Value {
        let (stats, now) = (self.session.stats(), self.session.status().borrow().clone());
        let (state, transport, why, reason) = match &now {
            Status::Connecting => ("connecting", None, None, None),
            Status::Connected { transport, why } => {
                ("connected", Some(transport.label()), Some(why), None)
            }
            Status::Unauthorized { reason } => ("unauthorized", None, None, Some(reason)),
            Status::Waiting { reason, .. } => ("waiting", None, None, Some(reason)),
        };
        let [open, opened, refused, failed] = stats.streams();
        let left = self
            .session
            .token_ends()
            .map(|ends| ends.left(SystemTime::now()).as_secs());
        let mut told = json!({
            "gateway": self.session.gateway(),
            "state": state,
            "since": humantime::format_rfc3339_seconds(stats.since()).to_string(),
            "transport": transport,
            "why": why,
            "reason": reason,
            "connects": stats.connects().iter().sum::<u64>(),
            "connections": self.session.connections(),
            "noMoreConnections": self.session.no_more(),
            "streamWindow": self.session.stream_window(),
            "streams": {"open": open, "opened": opened, "refused": refused, "failed": failed},
            "tokenEndsInSeconds": left,
            "tokenRefreshes": stats.refreshes(),
        });
        if let (Value::Object(told), Value::Object(more)) = (&mut told, self.configured.clone()) {
            told.extend(more);
        }
        told
    }

    fn metrics(&self) -> String {
        let stats = self.session.stats();
        let carrying = match &*self.session.status().borrow() {
            Status::Connected { transport, .. } => Some(*transport),
            _ => None,
        };
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP sluicegate_relay_{name} {help}\n# TYPE sluicegate_relay_{name} {kind}"
            );
            for (labels, value) in samples {
                let _ = writeln!(text, "sluicegate_relay_{name}{labels} {value}");
            }
        };
        let by = |values: [u64; 3]| {
            let label = |(one, value): (crate::transport::Transport, u64)| {
                (format!("{{transport=\"{one}\"}}"), value)
            };
            TRANSPORTS
                .into_iter()
                .zip(values)
                .map(label)
                .collect::<Vec<_>>()
        };
        let is = TRANSPORTS.map(|one| u64::from(carrying == Some(one)));
        family(
            "connected",
            "gauge",
            "1 for the transport that carries the streams.",
            &by(is),
        );
        family(
            "connects_total",
            "counter",
            "Connections that were made.",
            &by(stats.connects()),
        );
        let both = |transport, reason: Reason| {
            format!(
                "{{transport=\"{transport}\",reason=\"{}\"}}",
                reason.label()
            )
        };
        let chosen: Vec<_> = (TRANSPORTS.into_iter().zip(stats.reasons()))
            .flat_map(|(transport, counts)| {
                let counted = Reason::ALL.into_iter().zip(counts);
                let some = counted.filter(|(_, count)| *count > 0);
                some.map(move |(reason, count)| (both(transport, reason), count))
            })
            .collect();
        family(
            "chosen_total",
            "counter",
            "Connections that were made, by why this transport and not another.",
            &chosen,
        );
        let now = carrying.zip(stats.reason());
        let now: Vec<_> = now
            .into_iter()
            .map(|(transport, reason)| (both(transport, reason), 1))
            .collect();
        family(
            "transport_info",
            "gauge",
            "1 for the transport that carries the streams, and why it.",
            &now,
        );
        family(
            "connections",
            "gauge",
            "Connections to the gateway that there are.",
            &[(String::new(), self.session.connections() as u64)],
        );
        let window = self.session.stream_window();
        let window = window.map(|bytes| (String::new(), u64::from(bytes)));
        family(
            "stream_window_bytes",
            "gauge",
            "Bytes that one stream may have in flight to the sandbox and unread.",
            window.as_slice(),
        );
        let [open, opened, refused, failed] = stats.streams();
        family(
            "streams_open",
            "gauge",
            "Streams that are open.",
            &[(String::new(), open)],
        );
        let results = [("opened", opened), ("refused", refused), ("failed", failed)];
        let results = results.map(|(result, value)| (format!("{{result=\"{result}\"}}"), value));
        family(
            "opens_total",
            "counter",
            "Streams that were asked for.",
            &results,
        );
        family(
            "token_refreshes_total",
            "counter",
            "Fresh tokens taken.",
            &[(String::new(), stats.refreshes())],
        );
        text
    }
}

/// Ask a client that tells at this address: its `/status`.
///
/// # Errors
/// Nobody is there, or it does not answer in time.
pub async fn ask(address: &Address) -> io::Result<Bytes> {
    let asked = async {
        let socket: Shared = match address {
            Address::Unix(path) => UnixStream::connect(path).await?.into(),
            Address::Tcp(address) => TcpStream::connect(address).await?.into(),
        };
        let (mut requests, connection) = client::handshake(TokioIo::new(socket))
            .await
            .map_err(io::Error::other)?;
        let request = Request::get("/status")
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let answer = async {
            let answer = requests
                .send_request(request)
                .await
                .map_err(io::Error::other)?;
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok(body.map_err(io::Error::other)?.to_bytes())
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => Err(ended.err().map_or(io::ErrorKind::UnexpectedEof.into(), io::Error::other)),
        }
    };
    tokio::time::timeout(HEAD, asked).await?
}
