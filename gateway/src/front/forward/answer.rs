//! The requests of one connection, each judged by itself, and their answers.

use std::sync::atomic::Ordering;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use sluicegate_policy::{Denial, Refusal, Target};
use sluicegate_relay_protocol::Handshake;

use super::{After, Connection, Scope};
use crate::{
    front::{
        body::ResponseBody,
        client_body::ClientBody,
        connect::{self, Accepted, Ask, Wanted},
        context::{Context, is_somebodys},
        exchange::{self, Answered},
        headers, upgrade,
    },
    message::{Asks, Lent, misspelt},
    telemetry::{Front, Kind, Protocol, Recorder},
};

/// An extension of OPTIONS: its target has no path, and means the server as a whole (RFC 9110 §9.3.7).
#[derive(Clone, Copy, Debug)]
pub(in crate::front) struct WholeServer;

impl Connection {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
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
            // Once in a connection: no request needs room for it.
            return Box::pin(self.connect(&context, request)).await;
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
            return Box::pin(self.connect_tcp(&context, request, asked)).await;
        }
        match self.own_endpoint(&context, &request) {
            Some(answer) => answer,
            None => self.forward(&context, request).await,
        }
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
