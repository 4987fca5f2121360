//! One forwarded request and its answer: decided, sent, streamed back, recorded.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context as TaskContext, Poll},
    time::SystemTime,
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1::SendRequest, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use sluicegate_policy::{Denial, Refusal, Target};

use super::{
    asked::{Way, decide, request_target, rewrite},
    body::{RequestBody, ResponseBody, Streaming, UploadEnd},
    client_body::ClientBody,
    context::Context,
    exposed,
    forward::{Scope, WholeServer},
    guard::{Guard, SharedGuard},
    headers, max_forwards,
    pool::{Pool, PoolKey},
    send::{Sent, send},
    standing::Standing,
};
use crate::{
    egress::{Asked, Ends, Guarded, Reached, Rewind, Tunnel, Upstream},
    listen::Downstream,
    lost::Lost,
    message::overrides,
    outcome::{Outcome, Party},
    session::{self, Budget, Destination, Slot},
    telemetry::{Counters, Recorder},
};

/// An answer's head has come.
pub(super) enum Answered {
    /// Its body follows.
    Streaming(Box<Pending>),
    /// 101: a tunnel follows.
    Upgraded(Box<PendingUpgrade>),
    /// The gateway was the last to be asked.
    Own(Response<ResponseBody>),
}

/// An answer whose body is to be streamed.
pub(super) struct Pending {
    answer: Response<Incoming>,
    way: Way,
    slot: Option<Slot>,
    sender: SendRequest<RequestBody>,
    reached: Reached,
    guard: Guard,
    upload: UploadEnd,
    /// Where the connection goes afterwards; `None` after an upgrade that was asked for and not taken up, since its
    /// upstream may have been left in doubt.
    pool: Option<Arc<Pool>>,
    pseudonym: String,
}

/// A 101 and both connections behind it.
pub(super) struct PendingUpgrade {
    answer: Response<Incoming>,
    client: OnUpgrade,
    upstream: Rewind<Upstream>,
    tunnel: Tunnel,
    slot: Option<Slot>,
}

/// Both ends of an upgraded request.
pub(super) struct Upgraded {
    upstream: Rewind<Upstream>,
    tunnel: Tunnel,
    slot: Option<Slot>,
    recorder: Recorder,
}

/// Decide one request, send it, and wait for its answer's head. It came from `peer`, where others come beside it on this connection.
///
/// # Errors
/// The refusal; `target` and `recorder` hold what was learnt.
pub(super) async fn run(
    context: &Context,
    scope: &Scope,
    (peer, carrier): (SocketAddr, Option<&Standing>),
    mut request: Request<ClientBody>,
    target: &mut Option<Target>,
    recorder: &mut Recorder,
) -> Result<Answered, Refusal> {
    if let Scope::Inside {
        target: known,
        identity,
        ..
    } = scope
    {
        // Known before anything is judged, so that a refusal says whose and where it was.
        recorder.target(known);
        *target = Some(known.clone());
        if let Ok(number) = identity.session.stands(None) {
            recorder.session(identity.session.label(), number);
        }
    }
    if let Scope::Captured { login, .. } = scope
        && let Ok(identity) = login
        && let Ok(number) = identity.session.stands(None)
    {
        recorder.session(identity.session.label(), number);
    }
    let wanted = request_target(scope, &request).map_err(|refusal| scope.refused(refusal))?;
    let mut path = match request.extensions().get::<WholeServer>() {
        Some(WholeServer) => "*".to_owned(),
        None => origin_form(request.uri()),
    };
    // Before anything is written down.
    if exposed::take_out(&context.authenticator, &mut path, request.headers_mut()) {
        recorder.detail("a credential was taken out of the request");
    }
    recorder.target(&wanted);
    recorder.http(request.method().as_str(), &path);
    let wanted = target.insert(wanted);
    let by = (peer, carrier);
    let way = decide(context, scope, by, &request, wanted, recorder)?;
    let budget = way.identity.session.budget();
    let asked = judge(context, &way, &request, &path, recorder)
        .map_err(|refusal| way.identity.session.refused(refusal, SystemTime::now()))?;
    // Inside a tunnel the place is the tunnel's, as long as its connection lives, and the tunnel's open is the first one's.
    let slot = match scope {
        Scope::Inside { requests, .. } => requests.count(budget, SystemTime::now()).map(|()| None),
        Scope::Proxy | Scope::Captured { .. } => budget
            .open_to(Destination::Target(wanted.clone()), SystemTime::now())
            .map(Some),
    };
    let slot = slot.map_err(|denial| budget.refusal(denial))?;
    if !headers::announces(request.headers(), request.body().is_end_stream()) {
        return Err(Denial::MalformedRequest.into());
    }
    let method = request.method().clone();
    if max_forwards::is_final(&method, request.headers_mut())? {
        recorder.status(200);
        recorder.ended(Outcome::Completed, Party::Gateway);
        return Ok(Answered::Own(max_forwards::answer(&request)));
    }
    let wants = headers::upgrade(request.headers());
    let client = wants.is_some().then(|| hyper::upgrade::on(&mut request));
    let request = rewrite(request, wanted, &path, wants.as_ref(), &context.pseudonym);
    let mut guard = Guard::new(
        way.authority.clone(),
        way.permit.clone(),
        asked.clone(),
        context.ways.clone(),
        context.egress.timeouts.idle,
        recorder.counters().clone(),
    );
    let up = headers::request_bytes(&request);
    pay(budget, recorder, session::Way::Up, up, &mut guard).await?;
    let sent = send(context, &way, request, recorder, guard).await?;
    recorder.status(sent.answer.status().as_u16());
    let Sent {
        answer,
        sender,
        reached,
        mut guard,
        upload,
    } = sent;
    let down = headers::answer_bytes(&answer);
    pay(budget, recorder, session::Way::Down, down, &mut guard).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let pool = wants.is_none().then(|| context.pool.clone());
        let pseudonym = context.pseudonym.clone();
        let pending = Pending {
            answer,
            way,
            slot,
            sender,
            reached,
            guard,
            upload,
            pool,
            pseudonym,
        };
        return Ok(Answered::Streaming(Box::new(pending)));
    }
    // A 101 nobody asked for opens nothing.
    let client = client.ok_or(Denial::UpstreamProtocol)?;
    upgrade(context, way, slot, answer, client, (reached, asked)).await
}

/// May it be made so: in the plain, by this method, for this path?
fn judge(
    context: &Context,
    way: &Way,
    request: &Request<ClientBody>,
    path: &str,
    recorder: &mut Recorder,
) -> Result<Asked, Refusal> {
    let (method, fields) = (request.method().as_str(), request.headers());
    let readings = overrides::readings(method, path, fields).ok_or(Denial::MalformedRequest)?;
    let asked = Asked::new(readings.into_iter());
    recorder.also_read_as(asked.read_as().skip(1));
    if let Some(reported) = asked.judge(&way.permit)? {
        recorder.would_refuse(reported.denial);
    }
    if headers::looped(request.headers(), &context.pseudonym) {
        return Err(Denial::LoopDetected.into());
    }
    Ok(asked)
}

/// Count a head that is about to go on, and wait as its bandwidth asks.
async fn pay(
    budget: &Arc<Budget>,
    recorder: &mut Recorder,
    way: session::Way,
    bytes: usize,
    guard: &mut Guard,
) -> Result<(), Refusal> {
    budget
        .spend(bytes)
        .map_err(|denial| budget.refusal(denial))?;
    match way {
        session::Way::Up => recorder.counters().add_up(bytes),
        session::Way::Down => recorder.counters().add_down(bytes),
    }
    let mut left = bytes;
    while left > 0
        && let Some(turn) = budget.pace(way, left)
    {
        let _waiting = recorder.counters().wait();
        tokio::select! {
            biased;
            lost = poll_fn(|cx| guard.poll(cx)) => return Err(lost.told(recorder).into()),
            may = turn => left = left.saturating_sub(may),
        }
    }
    Ok(())
}

async fn upgrade(
    context: &Context,
    way: Way,
    slot: Option<Slot>,
    mut answer: Response<Incoming>,
    client: OnUpgrade,
    (reached, asked): (Reached, Asked),
) -> Result<Answered, Refusal> {
    let upgraded = hyper::upgrade::on(&mut answer)
        .await
        .map_err(|_| Denial::UpstreamProtocol)?;
    let parts = upgraded
        .downcast::<TokioIo<Upstream>>()
        .map_err(|_| Denial::Internal)?;
    let tunnel = Tunnel {
        session: way.identity.session.clone(),
        authority: way.authority,
        permit: way.permit,
        reached,
        ways: context.ways.clone(),
        idle: context.egress.timeouts.idle,
        first_bytes: context.egress.timeouts.first_bytes,
        upgraded: Some(asked),
    };
    let upstream = Rewind::new(parts.read_buf, parts.io.into_inner());
    Ok(Answered::Upgraded(Box::new(PendingUpgrade {
        answer,
        client,
        upstream,
        tunnel,
        slot,
    })))
}

impl Pending {
    /// The answer on its way down; the record goes with it.
    pub(super) fn into_response(self, recorder: Recorder) -> Response<ResponseBody> {
        self.into_watched(recorder).0
    }

    /// The same, and what watches over it, for whoever must end it though nobody asks for its body.
    pub(super) fn into_watched(self, recorder: Recorder) -> (Response<ResponseBody>, SharedGuard) {
        let guard = Arc::new(Mutex::new(self.guard));
        let watching = guard.clone();
        let (mut head, inner) = self.answer.into_parts();
        headers::strip_answer(&mut head.headers);
        headers::plain_length(&mut head.headers);
        headers::append_via(&mut head.headers, &self.pseudonym);
        head.version = Version::HTTP_11;
        let exchange = Exchange {
            recorder,
            slot: self.slot,
            budget: self.way.identity.session.budget().clone(),
            guard,
            upload: self.upload,
            pool: self.pool,
            key: self.way.key,
            reached: self.reached,
            sender: self.sender,
        };
        let body = ResponseBody::Upstream(Box::new(Streaming::new(inner, exchange)));
        (Response::from_parts(head, body), watching)
    }
}

impl PendingUpgrade {
    /// The 101, the client's end when it is written, and the rest.
    pub(super) fn into_parts(
        self,
        recorder: Recorder,
    ) -> (Response<ResponseBody>, OnUpgrade, Upgraded) {
        let protocol = self.answer.headers().get(header::UPGRADE).cloned();
        let (mut head, _) = self.answer.into_parts();
        headers::strip_answer(&mut head.headers);
        head.version = Version::HTTP_11;
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            head.headers.insert(header::UPGRADE, protocol);
        }
        let upgraded = Upgraded {
            upstream: self.upstream,
            tunnel: self.tunnel,
            slot: self.slot,
            recorder,
        };
        (
            Response::from_parts(head, ResponseBody::empty()),
            self.client,
            upgraded,
        )
    }
}

impl Upgraded {
    /// Carry the upgraded protocol to its end.
    pub(super) async fn carry(mut self, downstream: Guarded<Downstream>, first: Vec<u8>) {
        let mut ends = Ends {
            recorder: self.recorder,
            first,
            upstream: Guarded::new(self.upstream),
            downstream,
        };
        self.tunnel.run(&mut ends).await;
        drop(ends);
        drop(self.slot);
    }
}

/// One exchange whose answer is on its way.
pub(super) struct Exchange {
    recorder: Recorder,
    slot: Option<Slot>,
    budget: Arc<Budget>,
    guard: SharedGuard,
    upload: UploadEnd,
    pool: Option<Arc<Pool>>,
    key: PoolKey,
    reached: Reached,
    sender: SendRequest<RequestBody>,
}

impl Exchange {
    /// Ready when it must be cut.
    pub(super) fn poll_cut(&mut self, cx: &mut TaskContext<'_>) -> Poll<Lost> {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        guard.poll(cx)
    }

    /// What its bytes are spent from, and paced by.
    pub(super) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// What it has moved, and whether it waits.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        self.recorder.counters()
    }

    /// Bytes of the answer go down.
    pub(super) fn sent(&self, bytes: usize) {
        self.recorder.counters().add_down(bytes);
    }

    /// The answer is whole: the connection may serve another request of this session, unless the request was not whole. Then
    /// it ends here.
    pub(super) fn complete(mut self) {
        self.recorder.ended(Outcome::Completed, Party::Upstream);
        if let Some(pool) = self.pool.filter(|_| self.upload.is_whole()) {
            pool.put(self.key, self.sender, self.reached);
        }
        drop(self.slot);
    }

    /// The gateway ends it.
    pub(super) fn cut(mut self, lost: Lost) {
        lost.cut(&mut self.recorder);
    }

    /// The upstream ended it before it was whole.
    pub(super) fn upstream_broke(mut self, error: &hyper::Error) {
        self.recorder.detail(error);
        self.recorder.ended(Outcome::Reset, Party::Upstream);
    }

    /// The client has gone: hyper dropped an answer it could not send on. Or its connection was ended over what cuts this as well.
    pub(super) fn downstream_left(&mut self) {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.verdict() {
            Some(lost) => lost.cut(&mut self.recorder),
            None => self.recorder.ended(Outcome::Reset, Party::Downstream),
        }
    }
}

/// The path with its query as it is judged, recorded and sent: an empty path is "/" (RFC 9112 §3.2.1), also before a query.
fn origin_form(uri: &http::Uri) -> String {
    match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        None | Some("") => "/".to_owned(),
        Some(query) if query.starts_with('?') => format!("/{query}"),
        Some(path) => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{sync::Arc, time::Duration};

    use sluicegate_policy::Limits;
    use tokio::time::Instant;

    use super::{Budget, origin_form, pay, session};
    use crate::{
        front::guard::tests::watching,
        session::testing::Fixture,
        telemetry::{AccessLog, AccessSink, Front, Kind, Telemetry},
    };

    #[tokio::test]
    async fn a_head_that_waits_for_its_bandwidth_is_not_idle() {
        const SECOND: Duration = Duration::from_secs(1);
        let f = Fixture::new();
        let telemetry = Telemetry::new(AccessLog::open(&AccessSink::None).unwrap()).unwrap();
        let peer: std::net::SocketAddr = "127.0.0.1:1".parse().unwrap();
        let mut recorder = telemetry.begin(Kind::request, Front::forward, peer);
        let mut guard = watching(&f, SECOND, recorder.counters()).await;
        let limits = Limits {
            bandwidth: Some(1000),
            ..Limits::default()
        };
        let budget = Arc::new(Budget::new(limits, None));
        tokio::time::pause();
        let begun = Instant::now();
        for way in [session::Way::Up, session::Way::Down] {
            let paid = pay(&budget, &mut recorder, way, 20_000, &mut guard).await;
            assert!(paid.is_ok(), "{way:?}: {paid:?}");
        }
        assert!(begun.elapsed() >= 36 * SECOND, "each way at its own pace");
    }

    #[test]
    fn an_empty_path_is_a_slash_also_before_a_query() {
        for (uri, path) in [
            ("http://a.test", "/"),
            ("http://a.test?x=1", "/?x=1"),
            ("http://a.test/?x=1", "/?x=1"),
            ("http://a.test/b?x=1", "/b?x=1"),
            ("/b", "/b"),
        ] {
            assert_eq!(origin_form(&uri.parse().unwrap()), path, "{uri}");
        }
    }
}
