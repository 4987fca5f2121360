//! What the gateway itself serves on such a connection.

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use sluicegate_policy::Denial;
use sluicegate_relay_protocol::PROOF_PATH;

use super::{Connection, Scope};
use crate::{
    front::{body::ResponseBody, context::Context, headers, names, token},
    message::Asks,
    telemetry::{Front, Kind},
};

impl Connection {
    /// What the gateway itself serves, in origin form.
    pub(super) fn own_endpoint(
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
}
