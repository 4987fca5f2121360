//! One request to an HTTP-aware service, and its answer.

use std::{sync::PoisonError, time::SystemTime};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use sluicegate_policy::{Denial, Refusal, ServiceHttp, ServicePermit};
use sluicegate_relay::flow::{Flow, FlowIo, Prefixed};

use super::{
    HttpContext, Stream,
    body::{RequestBody, ResponseBody, Streaming},
    reclaim_upstream,
};
use crate::{
    message::{Asks, Lent, Manner, headers, overrides, reject},
    telemetry::{Front, Kind, Recorder},
};

/// The service's end of an upgraded request, and its record.
pub(super) struct Upgraded {
    pub(super) upstream: Option<Prefixed<Prefixed<Box<dyn Flow>>>>,
    pub(super) recorder: Recorder,
}

/// HTTP on a connection to the service. `None`: it is gone.
pub(super) async fn handshake(
    context: &HttpContext,
    upstream: Box<dyn Flow>,
) -> Option<http1::SendRequest<RequestBody>> {
    let io = TokioIo::new(FlowIo::new(upstream));
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(256 * 1024)
        .handshake(io)
        .await
        .ok()?;
    // It ends with its sender, which the stream owns.
    context.drain.spawn_service(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a service ended early");
        }
    });
    Some(sender)
}

impl Stream<'_> {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let context = &self.endpoint.http;
        let mut recorder = match self.speaker.source {
            Some(source) => context
                .telemetry
                .begin(Kind::request, Front::connect_tcp, source),
            None => return Response::new(ResponseBody::Whole(None)),
        };
        recorder.session(
            self.ticket.identity.session.label(),
            self.ticket.policy_number(),
        );
        recorder.service(self.ticket.permit.name());
        let refused = self.verdict.take();
        let html = match refused {
            Some(_) => self.verdict.html(),
            None => headers::wants_html(request.headers()),
        };
        let (request, rest) = Lent::of(request);
        let passed = match refused {
            Some(denial) => Err(self.counted(denial.into())),
            None => self.pass(request, &mut recorder).await,
        };
        match passed {
            Ok(Passed::Answer(answer)) => {
                let (head, body) = answer.into_parts();
                let body = ResponseBody::Service(Box::new(Streaming::new(body, recorder)));
                Response::from_parts(head, body)
            }
            Ok(Passed::Upgrade(answer, client)) => {
                self.upgrade(answer, client, recorder, html).await
            }
            Err(refusal) => {
                let mut answer = self.refuse(&refusal, &mut recorder, html);
                drop(recorder);
                rest.settle(answer.headers_mut()).await;
                answer
            }
        }
    }

    /// What is refused has the rate of refused opens.
    fn counted(&self, refusal: Refusal) -> Refusal {
        let session = &self.ticket.identity.session;
        session.refused(refusal, SystemTime::now())
    }

    /// Judge by what the session allows now, count as an open where the stream's was another's, and send.
    async fn pass(
        &self,
        mut request: Request<Lent>,
        recorder: &mut Recorder,
    ) -> Result<Passed, Refusal> {
        if *request.method() == Method::CONNECT {
            let client = hyper::upgrade::on(&mut request);
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
        }
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str()).to_owned();
        recorder.http(request.method().as_str(), &path);
        let permit = self.ticket.anew(recorder)?;
        judge(&permit, &request, &path).map_err(|refusal| self.counted(refusal))?;
        let budget = self.ticket.identity.session.budget();
        let counted = self.requests.count(budget, SystemTime::now());
        counted.map_err(|denial| budget.refusal(denial))?;
        let wants = headers::upgrade(request.headers()).filter(is_websocket);
        let client = wants.is_some().then(|| hyper::upgrade::on(&mut request));
        let set = permit.service().http.as_ref();
        rewrite(&mut request, &path, wants.as_ref(), set);
        let counters = recorder.counters().clone();
        let set = set.map(|http| http.set_headers.keys().cloned().collect());
        let set: Vec<String> = set.unwrap_or_default();
        let request = request.map(|inner| RequestBody {
            inner,
            counters,
            set,
        });
        let mut answer = self.send(request, &permit, recorder).await?;
        if !headers::framed_one_way(answer.headers()) {
            return Err(Denial::UpstreamProtocol.into());
        }
        recorder.status(answer.status().as_u16());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A 101 nobody asked for opens nothing.
            let client = client.ok_or(Denial::UpstreamProtocol)?;
            return Ok(Passed::Upgrade(answer, client));
        }
        headers::strip_answer(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_11;
        Ok(Passed::Answer(answer))
    }

    /// On the connection there is, or on a new one where the service has closed it.
    async fn send(
        &self,
        request: Request<RequestBody>,
        permit: &ServicePermit,
        recorder: &mut Recorder,
    ) -> Result<Response<Incoming>, Refusal> {
        let mut kept = self.upstream.lock().await;
        let mut usable = false;
        if let Some(sender) = kept.as_mut() {
            usable = sender.ready().await.is_ok();
        }
        if !usable {
            let dial = self.endpoint.dial(self.ticket)?;
            let services = &self.endpoint.services;
            let opened = services.open(permit, Some(&self.speaker));
            let (upstream, _) = opened.await.map_err(|failure| {
                recorder.detail(&failure.detail);
                failure.denial
            })?;
            drop(dial);
            *kept = handshake(&self.endpoint.http, upstream).await;
        }
        let sender = kept.as_mut().ok_or(Denial::ServiceUnavailable)?;
        recorder.opened();
        sender.send_request(request).await.map_err(|error| {
            recorder.detail(&error);
            let malformed = error.is_parse() || error.is_parse_too_large();
            if malformed {
                Denial::UpstreamProtocol.into()
            } else {
                Denial::UpstreamReset.into()
            }
        })
    }

    async fn upgrade(
        &self,
        mut answer: Response<Incoming>,
        client: OnUpgrade,
        mut recorder: Recorder,
        html: bool,
    ) -> Response<ResponseBody> {
        let Ok(upstream) = hyper::upgrade::on(&mut answer).await else {
            return self.refuse(&Denial::UpstreamProtocol.into(), &mut recorder, html);
        };
        let upgraded = Upgraded {
            upstream: reclaim_upstream(upstream).await,
            recorder,
        };
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some((client, upgraded));
        let protocol = answer.headers().get(header::UPGRADE).cloned();
        let (mut head, _) = answer.into_parts();
        headers::strip_answer(&mut head.headers);
        head.version = Version::HTTP_11;
        let upgrade = HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, upgrade);
        if let Some(protocol) = protocol {
            head.headers.insert(header::UPGRADE, protocol);
        }
        Response::from_parts(head, ResponseBody::Whole(None))
    }

    /// The same answer as everywhere; one that leaves unclear what comes next ends the stream.
    fn refuse(
        &self,
        refusal: &Refusal,
        recorder: &mut Recorder,
        html: bool,
    ) -> Response<ResponseBody> {
        let manner = Manner {
            detail: self.endpoint.http.detail,
            asks: Asks::Origin,
            html,
        };
        let mut answer = reject(refusal, None, recorder, manner);
        if refusal.denial.status() == 400 || !is_policy(refusal.denial) {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        answer.map(|body| ResponseBody::Whole(Some(body)))
    }
}

/// May it be made so: in origin form, for this host and origin, by this method, for this path?
fn judge(permit: &ServicePermit, request: &Request<Lent>, path: &str) -> Result<(), Refusal> {
    let uri = request.uri();
    // Origin form, or asterisk form: there is no proxy here to ask.
    let own = uri.scheme().is_none() && uri.authority().is_none();
    if *request.method() == Method::CONNECT || !own {
        return Err(Denial::MalformedTarget.into());
    }
    let fields = request.headers();
    let host = fields.get(header::HOST).map(HeaderValue::to_str);
    let host = host.transpose().map_err(|_| Denial::MalformedRequest)?;
    let origins = || {
        let origins = fields.get_all(header::ORIGIN);
        origins.into_iter().map(HeaderValue::as_bytes)
    };
    let readings = overrides::readings(request.method().as_str(), path, fields);
    let readings = readings.ok_or(Denial::MalformedRequest)?;
    readings
        .into_iter()
        .try_for_each(|(method, path)| permit.judge_http(&method, &path, host, origins()))
}

/// What came back.
enum Passed {
    Answer(Response<Incoming>),
    Upgrade(Response<Incoming>, OnUpgrade),
}

/// A request that was understood and may not be: the next one is judged by itself.
fn is_policy(denial: Denial) -> bool {
    matches!(
        denial,
        Denial::ServiceHostNotAllowed
            | Denial::ServiceOriginNotAllowed
            | Denial::MethodNotAllowed
            | Denial::PathNotAllowed
            | Denial::SessionPaused
            | Denial::TooManyOpens
            | Denial::TooManyPending
    )
}

/// RFC 6455 §4.1; no other protocol's rules are known here.
fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// The request as it goes up: nothing that is between neighbours, nothing the client could steer by, and the fields the
/// operator sets, never the client's of those names.
fn rewrite(
    request: &mut Request<Lent>,
    path: &str,
    upgrade: Option<&HeaderValue>,
    http: Option<&ServiceHttp>,
) {
    let asterisk = *request.method() == Method::OPTIONS && request.uri().path() == "*";
    let path = if asterisk { "*" } else { path };
    *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    *request.version_mut() = Version::HTTP_11;
    let fields = request.headers_mut();
    headers::strip_request(fields);
    if let Some(protocol) = upgrade {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, protocol.clone());
    }
    let set = http.map(|http| &http.set_headers);
    for (name, _) in set.into_iter().flatten() {
        headers::remove_spellings(fields, name);
    }
    for (name, value) in set.into_iter().flatten() {
        // Both were judged when the configuration was read.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            fields.insert(name, value);
        }
    }
}
