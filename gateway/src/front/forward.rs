//! Requests in absolute-form (RFC 9112 §3.2.2), and plain HTTP found inside a CONNECT tunnel: one connection of them.
//!
//! Each request is judged by itself: its credential, its target, its Host. What goes up is written anew from the target.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task,
    time::SystemTime,
};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Refusal, Target};
use sluicegate_relay_protocol::{Handshake, PROOF_PATH};

use super::{
    body::ResponseBody,
    client_body::ClientBody,
    connect::{self, Accepted, Ask, Wanted},
    connect_tcp,
    context::{Context, Current, is_somebodys},
    exchange::{self, Answered, Upgraded},
    guard::SharedGuard,
    headers, names,
    pool::Adopted,
    token, upgrade,
};
use crate::{
    auth::Identity,
    drain::Stage,
    egress::{Guarded, Lost, Tunnel, linger_close},
    listen::{Downstream, Hangup},
    message::{Asks, Judged, Lent, Verdict, misspelt},
    session::Requests,
    telemetry::{Front, Kind, Protocol, Recorder},
};

pub(super) use super::send::adopt;

/// The connection as hyper sees it.
type Io = TokioIo<Judged>;

/// Where a connection's requests go.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// Wherever each request says, in absolute-form.
    Proxy,
    /// To the target of the CONNECT this connection came out of, in origin form. The tunnel's place is the connection's.
    Inside {
        /// The CONNECT's target.
        target: Target,
        /// Who opened it.
        identity: Identity,
        /// What was dialled for it.
        adopted: Adopted,
        /// Those there were in it.
        requests: Arc<Requests>,
    },
    /// To the Host of each, on the port the connection was meant for: its client knows of no proxy.
    Captured {
        /// Whose connection it is, or what every request is answered with.
        login: Result<Identity, Refusal>,
        /// The port.
        port: u16,
        /// The address it was meant for, where one is known.
        literal: Option<IpAddr>,
        /// For records.
        front: Front,
    },
}

impl Scope {
    /// Whose its requests are, where that is known before they are read.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Proxy => None,
            Self::Inside { identity, .. } => Some(identity),
            Self::Captured { login, .. } => login.as_ref().ok(),
        }
    }

    /// Where all its requests go, where that is known before they are read.
    fn target(&self) -> Option<&Target> {
        match self {
            Self::Inside { target, .. } => Some(target),
            Self::Proxy | Self::Captured { .. } => None,
        }
    }

    /// A refusal before its session is asked for: where it is known, it counts.
    pub(super) fn refused(&self, refusal: Refusal) -> Refusal {
        match self.identity() {
            Some(identity) => identity.session.refused(refusal, SystemTime::now()),
            None => refusal,
        }
    }

    /// How its requests come in, for records.
    pub(super) fn front(&self) -> Front {
        match self {
            Self::Proxy | Self::Inside { .. } => Front::forward,
            Self::Captured { front, .. } => *front,
        }
    }
}

/// An extension of OPTIONS: its target has no path, and means the server as a whole (RFC 9110 §9.3.7).
#[derive(Clone, Copy, Debug)]
pub(super) struct WholeServer;

/// What a connection becomes after its last answer.
enum After {
    Upgraded(OnUpgrade, Box<Upgraded>),
    Connected(OnUpgrade, connect::Opened),
    /// Capsules follow.
    Capsules(OnUpgrade, connect_tcp::Opened),
    /// Nothing, though it was offered: the library lets go of the connection as if it had become what was asked for.
    Declined(OnUpgrade),
}

struct Connection {
    current: Arc<Current>,
    peer: SocketAddr,
    channel: Option<Channel>,
    scope: Scope,
    verdict: Arc<Verdict>,
    after: Mutex<Option<After>>,
    /// An answer may have been ended by the connection's end alone: its client speaks HTTP/1.0.
    unframed: AtomicBool,
    /// Tells that a client which waits for its answer has gone.
    hangup: Mutex<Option<Hangup>>,
    /// Over the answer that is on its way.
    watching: Mutex<Option<SharedGuard>>,
}

/// A connection that begins like this may wait long for its answer.
const LONG_WAIT: &[u8] = b"GET /relay/v1/listeners/";

/// Serve requests until the connection ends. `buffer` was read already; nothing of it was consumed.
pub(super) fn serve(
    downstream: Guarded<Downstream>,
    buffer: BytesMut,
    peer: SocketAddr,
    current: Arc<Current>,
    scope: Scope,
) -> impl Future<Output = ()> + Send {
    let serving = serve_while(downstream, buffer, peer, current, scope, None);
    async move {
        serving.await;
    }
}

/// The same until the right to `tunnel`, which the connection came out of, is withdrawn. What is under way then is ended by
/// whoever watches it, and the reason is answered.
pub(super) async fn serve_while(
    downstream: Guarded<Downstream>,
    buffer: BytesMut,
    peer: SocketAddr,
    current: Arc<Current>,
    scope: Scope,
    mut tunnel: Option<&mut Tunnel>,
) -> Option<Lost> {
    let mut reason = None;
    let (timeouts, mut drain) = {
        let context = current.now();
        (context.egress.timeouts, context.drain.clone())
    };
    let verdict = Arc::new(Verdict::default());
    if matches!(scope, Scope::Inside { .. }) {
        verdict.trust();
    }
    let hangup = if buffer.starts_with(LONG_WAIT) {
        downstream.get().and_then(Downstream::hangup)
    } else {
        None
    };
    let channel = downstream.get().and_then(Downstream::channel);
    let io: Io = TokioIo::new(Judged::new(downstream, buffer, verdict.clone(), timeouts));
    let state = Arc::new(Connection {
        current,
        peer,
        channel,
        scope,
        verdict,
        after: Mutex::new(None),
        unframed: AtomicBool::new(false),
        hangup: Mutex::new(hangup),
        watching: Mutex::default(),
    });
    let service = {
        let state = state.clone();
        service_fn(move |request| {
            let state = state.clone();
            async move {
                let answer = state.answer(request).await;
                state.verdict.answered();
                Ok::<_, io::Error>(answer)
            }
        })
    };
    // Gone before anybody asks what it left: an upgrade it never came to would be waited for as long as it lived.
    let ended = {
        let serving = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            // A client may end its side and still wait for its answer.
            .half_close(true)
            .max_buf_size(128 * 1024)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(serving);
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                ended = serving.as_mut() => break Some(ended),
                () = std::future::poll_fn(|cx| state.poll_cut(cx)) => break None,
                () = drain.reached(Stage::Draining), if !told => told = true,
                lost = withdrawn(&mut tunnel, &state.scope), if reason.is_none() => reason = Some(lost),
            }
            serving.as_mut().graceful_shutdown();
        }
    };
    match ended {
        // Dropped by now, with the record of why.
        None => state.verdict.arm(),
        Some(Ok(())) => state.verdict.release(),
        // Framed, the answer's end is missed anyway; a reset could only take what arrived of it.
        Some(Err(error)) if !state.unframed.load(Ordering::Acquire) => {
            state.verdict.release();
            tracing::debug!(%error, "connection ended early");
        }
        // The guard inside resets the connection: a cut answer must not look whole.
        Some(Err(error)) => {
            state.verdict.arm();
            tracing::debug!(%error, "connection ended early");
        }
    }
    // It holds the socket too: what ends from here on must end at once.
    drop(state.take_hangup());
    let after = state
        .after
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match after {
        None => {}
        Some(After::Upgraded(client, upgraded)) => {
            if let Some((downstream, first)) = reclaim(client).await {
                upgraded.carry(downstream, first).await;
            }
        }
        Some(After::Connected(client, opened)) => {
            if let Some((downstream, first)) = reclaim(client).await {
                Box::pin(connect::carry(
                    downstream,
                    first,
                    opened,
                    peer,
                    state.current.clone(),
                ))
                .await;
            }
        }
        Some(After::Capsules(client, opened)) => match reclaim(client).await {
            Some((downstream, first)) => {
                let early = state.verdict.take();
                let current = state.current.clone();
                Box::pin(upgrade::carry(
                    downstream, first, early, opened, peer, current,
                ))
                .await;
            }
            None => opened.abandon(None),
        },
        Some(After::Declined(client)) => {
            if let Some((mut downstream, _)) = reclaim(client).await {
                linger_close(&mut downstream).await;
                downstream.release();
            }
        }
    }
    // What was under way may have been ended by the same change a moment earlier.
    reason.or_else(|| tunnel?.still_serves().err())
}

/// Completes when no request may be made any more in what the tunnel has become. What was dialled for it and has carried nothing was
/// judged before each change, and is closed by it.
async fn withdrawn(tunnel: &mut Option<&mut Tunnel>, scope: &Scope) -> Lost {
    let Some(tunnel) = tunnel else {
        return std::future::pending().await;
    };
    loop {
        let changed = tunnel.changed().await;
        if let Scope::Inside { adopted, .. } = scope {
            adopted.close();
        }
        if let Err(lost) = changed {
            return lost;
        }
    }
}

/// The connection behind an upgrade, and what was read of it.
async fn reclaim(client: OnUpgrade) -> Option<(Guarded<Downstream>, Vec<u8>)> {
    let parts = client.await.ok()?.downcast::<Io>().ok()?;
    let (downstream, unread) = parts.io.into_inner().into_parts()?;
    let mut first = parts.read_buf.to_vec();
    first.extend_from_slice(&unread);
    Some((downstream, first))
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(client) = request.extensions().get::<OnUpgrade>() {
            self.become_after(After::Declined(client.clone()));
        }
        if request.version() < Version::HTTP_11 {
            self.unframed.store(true, Ordering::Release);
        }
        // Each request by the one of its moment, whatever the connection has carried before.
        let context = self.current.now();
        if let Some(denial) = self.verdict.take() {
            let mut recorder = self.recorder(&context);
            let named = self.verdict.leads_to();
            let named = named.filter(|_| matches!(self.scope, Scope::Proxy));
            // Elsewhere a path alone is a target.
            let in_path = match self.scope {
                Scope::Proxy => named.is_some(),
                Scope::Inside { .. } | Scope::Captured { .. } => self.verdict.in_path(),
            };
            if let Some(target) = &named {
                recorder.target(target);
            }
            let refusal = self.scope.refused(misspelt::refusal(denial, in_path));
            let (target, html) = (named.as_ref().or(self.scope.target()), self.verdict.html());
            let answer = self.refuse(&context, &refusal, target, &mut recorder, html);
            return closing(answer, denial);
        }
        if *request.method() == Method::CONNECT {
            return self.connect(&context, request).await;
        }
        if matches!(self.scope, Scope::Proxy)
            && let Some(asked) = upgrade::asked(&request)
        {
            // The client MUST NOT send before the 101: where it did, it may mean another request or not.
            let asked = if self.verdict.behind() {
                Err(Denial::MalformedRequest)
            } else {
                asked
            };
            return self.connect_tcp(&context, request, asked).await;
        }
        match self.own_endpoint(&context, &request) {
            Some(answer) => answer,
            None => self.forward(&context, request).await,
        }
    }

    fn take_hangup(&self) -> Option<Hangup> {
        self.hangup
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// An upgrade to `connect-tcp`. A refusal of what was understood leaves the connection as it is, for the next request.
    async fn connect_tcp(
        &self,
        context: &Context,
        mut request: Request<Incoming>,
        asked: Result<Handshake, Denial>,
    ) -> Response<ResponseBody> {
        let client = hyper::upgrade::on(&mut request);
        let opened = match asked {
            Ok(handshake) => {
                let gone = self.take_hangup();
                let from = (self.peer, self.channel.as_ref());
                upgrade::open(context, &handshake, &request, from, gone).await
            }
            Err(denial) => {
                let telemetry = &context.telemetry;
                let mut recorder = telemetry.begin(Kind::request, Front::origin, self.peer);
                recorder.protocol(Protocol::Http1);
                recorder.http(request.method().as_str(), request.uri().path());
                let refusal = Refusal::from(denial);
                let html = headers::wants_html(request.headers());
                let answer = context.reject(Asks::Origin, &refusal, None, &mut recorder, html);
                return closing(answer, denial);
            }
        };
        match opened {
            Ok((answer, opened)) => {
                self.become_after(After::Capsules(client, opened));
                answer
            }
            Err(answer) if answer.status() == StatusCode::BAD_REQUEST => {
                closing(answer, Denial::MalformedTarget)
            }
            Err(answer) => answer.map(ResponseBody::whole),
        }
    }

    /// What the gateway itself serves, in origin form.
    fn own_endpoint(
        &self,
        context: &Context,
        request: &Request<Incoming>,
    ) -> Option<Response<ResponseBody>> {
        if request.uri().scheme().is_some() || !matches!(self.scope, Scope::Proxy) {
            return None;
        }
        if token::is_refresh(request.method(), request.uri().path()) {
            let answer = token::answer(
                &context.authenticator,
                request.headers(),
                self.channel.as_ref(),
                (self.peer, None),
                context.detail,
                &context.telemetry,
            );
            return Some(self.known(answer));
        }
        if let Some(name) = names::asked(request.method(), request.uri()) {
            let answer = names::answer(
                context,
                name,
                request.headers(),
                self.channel.as_ref(),
                (self.peer, None),
            );
            return Some(self.known(answer));
        }
        if request.method() == Method::GET && request.uri().path() == PROOF_PATH {
            return Some(self.proof(context, request));
        }
        let (kind, body) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                ("text/plain; charset=utf-8", "ok\n".to_owned())
            }
            (&Method::GET | &Method::HEAD, "/.well-known/jwks.json") => {
                ("application/jwk-set+json", context.authenticator.jwks())
            }
            _ => return None,
        };
        let mut answer = Response::new(ResponseBody::whole(body.into()));
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Some(answer)
    }

    /// The answer to a credential: one that was good is somebody's.
    fn known(&self, answer: Response<bytes::Bytes>) -> Response<ResponseBody> {
        if answer.status().is_success() {
            self.verdict.trust();
        }
        answer.map(ResponseBody::whole)
    }

    /// The verdict on a relay credential.
    fn proof(&self, context: &Context, request: &Request<Incoming>) -> Response<ResponseBody> {
        let proved = if context.drain.refusing() {
            Err(Denial::Draining.into())
        } else {
            let channel = self.channel.as_ref();
            context
                .h2
                .relay
                // Each of its streams is a connection of its own, without windows.
                .prove_by(request.headers(), channel, self.peer, |_| Ok(()))
        };
        match proved {
            Ok(()) => {
                let mut answer = Response::new(bytes::Bytes::new());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                self.known(answer)
            }
            Err(refusal) => {
                let telemetry = &context.telemetry;
                let mut recorder = telemetry.begin(Kind::request, Front::origin, self.peer);
                recorder.http(request.method().as_str(), request.uri().path());
                let html = headers::wants_html(request.headers());
                let answer = context.reject(Asks::Origin, &refusal, None, &mut recorder, html);
                answer.map(ResponseBody::whole)
            }
        }
    }

    /// A record of this connection's, and whose it is where that is known.
    fn recorder(&self, context: &Context) -> Recorder {
        let (front, telemetry) = (self.scope.front(), &context.telemetry);
        let mut recorder = telemetry.begin(Kind::request, front, self.peer);
        recorder.protocol(Protocol::Http1);
        if let Some(identity) = self.scope.identity()
            && let Ok(number) = identity.session.stands(None)
        {
            recorder.session(identity.session.label(), number);
        }
        if let Some(target) = self.scope.target() {
            recorder.target(target);
        }
        recorder
    }

    /// A refusal, as this connection's client can understand it.
    fn refuse(
        &self,
        context: &Context,
        refusal: &Refusal,
        target: Option<&Target>,
        recorder: &mut Recorder,
        html: bool,
    ) -> Response<bytes::Bytes> {
        let asks = match self.scope {
            Scope::Captured { .. } => Asks::Nobody,
            Scope::Proxy | Scope::Inside { .. } => Asks::Proxy,
        };
        context.reject(asks, refusal, target, recorder, html)
    }

    /// CONNECT where there is no proxy to ask: inside a tunnel, and on a connection that was captured.
    fn connect_nowhere(
        &self,
        context: &Context,
        request: &Request<Incoming>,
    ) -> Response<ResponseBody> {
        let mut recorder = self.recorder(context);
        let asked = request.uri().authority().map_or("", |to| to.as_str());
        recorder.http(request.method().as_str(), asked);
        let refusal = self.scope.refused(Denial::MalformedTarget.into());
        let html = headers::wants_html(request.headers());
        let answer = self.refuse(context, &refusal, self.scope.target(), &mut recorder, html);
        closing(answer, Denial::MalformedTarget)
    }

    /// A CONNECT that came after other requests on its connection.
    async fn connect(
        &self,
        context: &Context,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        if !matches!(self.scope, Scope::Proxy) {
            return self.connect_nowhere(context, &request);
        }
        let client = hyper::upgrade::on(&mut request);
        // Authority-form and nothing else: a URI with a scheme or a path names its authority too.
        let uri = request.uri();
        let bare = uri.scheme().is_none() && uri.path_and_query().is_none();
        let authority = uri.authority().filter(|_| bare);
        let authority = authority.map(ToString::to_string).unwrap_or_default();
        let ask = Ask {
            front: Front::connect,
            wanted: Wanted::Authority {
                authority: authority.as_bytes(),
                host: request
                    .headers()
                    .get(header::HOST)
                    .map(HeaderValue::as_bytes),
            },
            credentials: request
                .headers()
                .get_all(header::PROXY_AUTHORIZATION)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect(),
            channel: None,
            html: headers::wants_html(request.headers()),
            protocol: Some(Protocol::Http1),
            carrier: None,
        };
        let gone = std::future::pending::<()>();
        match connect::accept(context, self.peer, ask, gone).await {
            Accepted::Opened(opened) => {
                self.become_after(After::Connected(client, opened));
                Response::new(ResponseBody::empty())
            }
            Accepted::Refused(answer) => closing(answer, Denial::MalformedRequest),
            Accepted::Gone => Response::new(ResponseBody::empty()),
        }
    }

    async fn forward(
        &self,
        context: &Context,
        mut request: Request<Incoming>,
    ) -> Response<ResponseBody> {
        // RFC 9112 §3.2.4: what asks about the server as a whole goes on so.
        if *request.method() == Method::OPTIONS && self.verdict.pathless() {
            request.extensions_mut().insert(WholeServer);
        }
        let html = headers::wants_html(request.headers());
        let (request, rest) = Lent::of(request);
        let telemetry = &context.telemetry;
        let mut recorder = telemetry.begin(Kind::request, self.scope.front(), self.peer);
        recorder.protocol(Protocol::Http1);
        let mut target = None;
        let answered = exchange::run(
            context,
            &self.scope,
            (self.peer, None),
            request.map(ClientBody::Http1),
            &mut target,
            &mut recorder,
        )
        .await;
        if answered.is_ok() {
            self.verdict.trust();
        }
        match answered {
            Ok(Answered::Streaming(pending)) => {
                let (answer, guard) = pending.into_watched(recorder);
                *self.watching() = Some(guard);
                answer
            }
            Ok(Answered::Upgraded(pending)) => {
                let (answer, client, upgraded) = pending.into_parts(recorder);
                self.become_after(After::Upgraded(client, Box::new(upgraded)));
                answer
            }
            Ok(Answered::Own(answer)) => answer,
            Err(refusal) => {
                let answer = self.refuse(context, &refusal, target.as_ref(), &mut recorder, html);
                if is_somebodys(&answer) {
                    self.verdict.trust();
                }
                drop(recorder);
                let mut answer = closing(answer, refusal.denial);
                rest.settle(answer.headers_mut()).await;
                answer
            }
        }
    }

    fn watching(&self) -> MutexGuard<'_, Option<SharedGuard>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the last exchange must be ended: its client may take nothing, and then nobody asks for its body.
    fn poll_cut(&self, cx: &mut task::Context<'_>) -> task::Poll<()> {
        let mut watching = self.watching();
        let Some(shared) = watching.as_ref() else {
            return task::Poll::Pending;
        };
        if Arc::strong_count(shared) == 1 {
            // It has ended.
            *watching = None;
            return task::Poll::Pending;
        }
        let mut guard = shared.lock().unwrap_or_else(PoisonError::into_inner);
        guard.poll(cx).map(drop)
    }

    fn become_after(&self, after: After) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }
}

/// A refusal's answer. After one that leaves unclear what its sender means next, the connection ends; a policy's refusal
/// leaves it open, and the next request is judged by itself, where no body stands between them.
fn closing(answer: Response<bytes::Bytes>, denial: Denial) -> Response<ResponseBody> {
    let mut answer = answer.map(ResponseBody::whole);
    if matches!(
        denial,
        Denial::MalformedRequest
            | Denial::MalformedTarget
            | Denial::HostMismatch
            | Denial::HeaderTooLarge
            | Denial::HeadTimeout
            | Denial::Draining
    ) {
        answer
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}
