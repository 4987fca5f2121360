//! An HTTP origin that remembers everything that reached it.
//!
//! `/echo` answers with the request as seen · `/upload` with its digest · `/download?bytes=N` · `/chunked` with
//! a trailer · `/sse` with events the test sends · `/upgrade` echoes raw bytes · `/refuse` answers 417 without
//! reading · `/hang` never answers · `/reset` cuts · `/files/…` a directory · `/git/…` git's own CGI.

mod body;
mod git;
mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;

pub use body::{pattern_digest, write_pattern};

use crate::ca::Ca;
use crate::tasks::Tasks;

/// One request as the origin's parser saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which accepted connection carried it, from 0.
    pub connection: usize,
    /// The method.
    pub method: String,
    /// The request target as it came: path and query, or absolute.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// Every value of field `name`.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.headers.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }
}

/// One event for the `/sse` stream; `None` ends it.
pub type Event = Option<String>;

pub(crate) struct State {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    events: broadcast::Sender<Event>,
    root: PathBuf,
}

/// A running origin. It stops when dropped.
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    _tasks: Arc<Tasks>,
}

impl Origin {
    /// Plain HTTP/1.1 (and h2 with prior knowledge), serving files from `root`.
    pub async fn http(root: PathBuf) -> Self {
        Self::start(root, None).await
    }

    /// HTTPS with a certificate of `ca` for `names`; h2 and HTTP/1.1 by ALPN.
    pub async fn https(root: PathBuf, ca: &Ca, names: &[&str]) -> Self {
        let tls = ca.server(names, &[b"h2", b"http/1.1"]);
        Self::start(root, Some(TlsAcceptor::from(tls))).await
    }

    async fn start(root: PathBuf, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            events: broadcast::channel(64).0,
            root,
        });
        let tasks = Arc::new(Tasks::default());
        // Weak: the accept loop must not keep alive the set that owns it.
        let (weak, shared) = (Arc::downgrade(&tasks), Arc::clone(&state));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(tasks) = weak.upgrade() else { return };
                let connection = shared.connections.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(accept(Arc::clone(&shared), connection, stream, tls.clone()));
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The one request whose target is `target`.
    pub fn saw(&self, target: &str) -> Seen {
        let all = self.seen();
        let mut hits = all.iter().filter(|seen| seen.target == target);
        let hit = hits
            .next()
            .unwrap_or_else(|| panic!("{target} not in {all:?}"));
        assert!(hits.next().is_none(), "{target} came more than once");
        hit.clone()
    }

    /// How many TCP connections were accepted.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Sends an event to every open `/sse` stream, answering how many there are.
    pub fn event(&self, event: Event) -> usize {
        self.state.events.send(event).unwrap_or(0)
    }

    /// How many `/sse` streams are open.
    pub fn listeners(&self) -> usize {
        self.state.events.receiver_count()
    }
}

async fn accept(state: Arc<State>, number: usize, stream: TcpStream, tls: Option<TlsAcceptor>) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(state, number, stream).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(state, number, stream).await;
            }
        }
    }
}

async fn serve<S>(state: Arc<State>, connection: usize, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrades = Arc::new(Tasks::default());
    let service = service_fn(|request| {
        let (state, upgrades) = (Arc::clone(&state), Arc::clone(&upgrades));
        async move {
            state.remember(connection, &request);
            let answer = routes::answer(&state, &upgrades, request).await;
            answer.map_err(|failure| std::io::Error::other(failure.0))
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    // An upgraded stream outlives its HTTP connection: its task ends by itself or with the origin.
    upgrades.finish().await;
}

impl State {
    fn remember<B>(&self, connection: usize, request: &http::Request<B>) {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let fields = request.headers().iter();
        self.seen.lock().unwrap().push(Seen {
            connection,
            method: request.method().to_string(),
            target: request.uri().to_string(),
            version: format!("{:?}", request.version()),
            headers: fields
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
        });
    }
}
