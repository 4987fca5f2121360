//! Accepts programs' connections and answers their requests.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use sluicegate_relay_protocol::Handshake;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Body, Own, failed, whole},
    forward::Forwarder,
    named,
    notice::{Notice, Why},
    strict::{Strict, Verdict},
};
use crate::{
    descriptors,
    flow::{Flow, How, Prefixed, Shared, SocketFlow, Timers, pump},
    listen::{Came, Door, Listener, Place, Visitor},
    session::{Credential, Session},
    tasks::Tasks,
};

/// After an accept that failed (out of descriptors): long enough for others to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A request waits this long for a connection to the gateway: an HTTP client wants an answer it can try again on.
const PATIENCE: Duration = Duration::from_secs(10);
/// A request's head is whole by then, and a program that has nothing more to ask has gone.
const HEAD: Duration = Duration::from_secs(60);
/// Another user's process is told so, if it asks within this time …
const FAREWELL: Duration = Duration::from_secs(1);
/// … and if no more than these wait for it; who comes then is reset unheard.
const FAREWELLS: usize = 8;
/// The target of a request that cannot be read.
const UNREADABLE: &str = "(unreadable)";

/// What the proxy needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Opens streams.
    pub session: Session,
    /// The egress credential.
    pub token: Credential,
    /// Serve any user of this network namespace on TCP, not only our own.
    pub any_uid: bool,
    /// Who hears of requests that are none for a proxy.
    pub notice: Notice,
    /// Where its tasks run.
    pub tasks: Tasks,
}

/// Accept on `listener` until `stop`. What fails is one program's connection, never the listener.
pub async fn serve(listener: Listener, proxy: Proxy, stop: CancellationToken) {
    let (token, end) = (proxy.token.clone(), stop.clone());
    proxy
        .tasks
        .spawn(async move { end.run_until_cancelled(token.follow()).await });
    let mut door = Door::new(listener, proxy.any_uid, descriptors::share());
    let farewells = Arc::new(Semaphore::new(FAREWELLS));
    while let Some(accepted) = stop.run_until_cancelled(door.visitor()).await {
        match accepted {
            Ok(visitor) => {
                let one = receive(visitor, proxy.clone(), farewells.clone());
                proxy.tasks.spawn(one);
            }
            Err(error) => {
                tracing::warn!(%error, "the proxy cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serve our own; nobody else is kept.
async fn receive(visitor: Visitor, proxy: Proxy, farewells: Arc<Semaphore>) {
    match visitor.known().await {
        Came::Ours(socket, place) => connection(socket, proxy, Some(place)).await,
        Came::Stranger(socket) => match farewells.try_acquire() {
            Ok(_one) => {
                // What is cut here is reset, as it would be without a word.
                let said = connection(socket, proxy, None);
                let _ = tokio::time::timeout(FAREWELL, said).await;
            }
            Err(_) => socket.close_resets(),
        },
    }
}

/// One program's connection: requests, and after a CONNECT its tunnel. Without a place, every answer is no.
async fn connection(socket: Shared, proxy: Proxy, place: Option<Place>) {
    // An answer that was cut must not look whole to a client that waits for the end of the connection, not even where it is
    // this process that was.
    socket.close_resets();
    let proxy = Proxy {
        notice: proxy.notice.of(socket.peer()),
        ..proxy
    };
    let (judged, verdict) = Strict::new(socket.clone());
    let asked = Arc::new(Asked {
        forwarder: Forwarder::new(proxy.clone()),
        proxy,
        allowed: place.is_some(),
        verdict,
        tunnel: std::sync::Mutex::new(None),
    });
    let service = service_fn({
        let asked = asked.clone();
        move |request| {
            let asked = asked.clone();
            async move { Ok::<_, Infallible>(asked.answer(request).await) }
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        // A program may end its side and still wait for its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(judged), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a program's connection ended early");
        if error.is_timeout() {
            // Between two requests: nothing was cut.
            socket.close_finishes();
        }
        // Answered with 400 by the parser, which does not say what it could not read.
        if error.is_parse() {
            // Whole, and all there is to say.
            socket.close_finishes();
            let why = if error.is_parse_too_large() {
                Why::TooLarge
            } else {
                Why::Malformed
            };
            asked.proxy.notice.refused(UNREADABLE, why);
        }
        return;
    }
    let tunnel = asked
        .tunnel
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    match tunnel {
        Some(tunnel) => {
            drop(socket);
            tunnel.carry().await;
        }
        None => socket.close_finishes(),
    }
}

/// One connection's state.
struct Asked {
    proxy: Proxy,
    forwarder: Forwarder,
    allowed: bool,
    verdict: Arc<Verdict>,
    /// What the connection becomes after its last answer.
    tunnel: std::sync::Mutex<Option<Tunnel>>,
}

/// An accepted CONNECT.
struct Tunnel {
    program: OnUpgrade,
    stream: Box<dyn Flow>,
    target: String,
}

impl Asked {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let mut response = if !self.allowed {
            Own::Peer.response()
        } else if let Some(error) = self.verdict.take() {
            self.refuse(UNREADABLE, error.into())
        } else if request.method() == Method::CONNECT {
            self.connect(request).await
        } else {
            let pathless = self.verdict.is_pathless();
            return self.forwarder.answer(request, pathless).await;
        };
        if !response.status().is_success() {
            // What a client sends behind a CONNECT is the tunnel's: refused, it is never read as another request.
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    }

    /// The answer to what the gateway is not asked for.
    fn refuse(&self, asked: &str, own: Own) -> Response<Body> {
        self.proxy.notice.refused(asked, own.why());
        own.response()
    }

    async fn connect(&self, mut request: Request<Incoming>) -> Response<Body> {
        let target = match named::connect(request.uri(), request.headers()) {
            Ok(target) => target,
            Err(own) => return self.refuse(&request.uri().to_string(), own),
        };
        match self.proxy.open(&target).await {
            Ok(stream) => {
                let tunnel = Tunnel {
                    program: hyper::upgrade::on(&mut request),
                    stream,
                    target: format!("{target:?}"),
                };
                *self
                    .tunnel
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(tunnel);
                whole(StatusCode::OK, Bytes::new())
            }
            Err(response) => response,
        }
    }
}

impl Proxy {
    /// A stream to the gateway's egress, or the answer why there is none.
    pub(super) async fn open(&self, target: &Handshake) -> Result<Box<dyn Flow>, Response<Body>> {
        let opened = self.session.open_as(target, &self.token, PATIENCE).await;
        opened.map_err(|error| {
            tracing::debug!(?target, reason = %error, "the proxy was refused a stream");
            failed(&error)
        })
    }
}

impl Tunnel {
    async fn carry(self) {
        let Ok(upgraded) = self.program.await else {
            return;
        };
        let Ok(parts) = upgraded.downcast::<TokioIo<Strict>>() else {
            return;
        };
        let (socket, rest) = parts.io.into_inner().into_parts();
        let read = Bytes::from([parts.read_buf.as_ref(), rest.as_ref()].concat());
        let mut program = Prefixed::new(read, SocketFlow::new(socket));
        let mut stream = self.stream;
        let ending = pump(&mut program, &mut stream, Timers::default(), &()).await;
        match ending.how {
            How::Completed => tracing::debug!(target = self.target, "tunnel closed"),
            how => tracing::debug!(target = self.target, ?how, "tunnel reset"),
        }
    }
}
