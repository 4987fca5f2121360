//! Requests that are streams of a connection, HTTP/2's and HTTP/3's: each dispatched by itself alone.
//!
//! What lives here is the same for both. How a request is read and how an answer is sent is each version's: [`Answer`].

mod forward;
mod own;
mod tunnel;

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::ext::Protocol as Extended;
use http::{HeaderMap, Method, Request, Response, header};
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::flow::{Broken, CapsuleFlow, Carrier, Flow};
use sluicegate_relay_protocol::{CONNECT_TCP, Handshake, PROOF_PATH};

use super::{
    Context, Current, body::ResponseBody, client_body::ClientBody, connect_tcp, headers, names,
    standing::Standing, token,
};
use crate::{
    listen::Carrying,
    message::Asks,
    relay::grpc::Call,
    sniff::MAX_FIELDS,
    telemetry::{Front, Kind, Protocol},
};

/// The means to answer one request.
pub(super) trait Answer: Sized + Send + 'static {
    /// What is spoken.
    const PROTOCOL: Protocol;
    /// The request's body, or what comes of a tunnel.
    type Body: Into<ClientBody> + Send + 'static;
    /// A tunnel on the stream.
    type Tunnel: Flow + 'static;
    /// What carries capsules on it.
    type Carrier: Carrier + 'static;

    /// Completes when the client gives up.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;

    /// 100 (Continue). A client that is gone is noticed later.
    fn carry_on(&mut self) -> impl Future<Output = ()> + Send;

    /// Send a whole answer. A client that is gone has no use for it.
    fn whole(self, answer: Response<Bytes>) -> impl Future<Output = ()> + Send;

    /// Send an answer as its body comes. What ends before its end is reset.
    fn stream(self, answer: Response<ResponseBody>) -> impl Future<Output = ()> + Send;

    /// Send the answer that makes the stream a tunnel.
    ///
    /// # Errors
    /// The client is gone.
    fn tunnel(
        self,
        answer: Response<()>,
        body: Self::Body,
    ) -> impl Future<Output = Result<Self::Tunnel, Broken>> + Send;

    /// Send the answer that makes the stream one of capsules.
    ///
    /// # Errors
    /// The client is gone.
    fn capsules(
        self,
        answer: Response<()>,
        body: Self::Body,
    ) -> impl Future<Output = Result<CapsuleFlow<Self::Carrier>, Broken>> + Send;
}

/// One request with the means to answer it.
pub(super) struct Exchange<A: Answer> {
    pub(super) request: Request<A::Body>,
    pub(super) respond: A,
    pub(super) downstream: SocketAddr,
    pub(super) channel: Option<Channel>,
    pub(super) secure: bool,
    pub(super) refusing: bool,
    /// Its connection's.
    pub(super) standing: Arc<Standing>,
}

impl<A: Answer> Exchange<A> {
    /// The answer to a credential: one that was good is somebody's.
    fn known(&self, answer: &Response<Bytes>) {
        if answer.status().is_success() {
            self.standing.trust();
        }
    }
}

/// The request alone says what it is. What may live long is left to be awaited.
pub(super) async fn dispatch<A: Answer>(
    exchange: Exchange<A>,
    current: Arc<Current>,
) -> Option<Carrying> {
    // Each stream by the one of its moment, whatever its connection has carried before.
    let context = current.now();
    let head = &exchange.request;
    // Cookies may come in crumbs (RFC 9113 §8.2.3), and are one field where fields are counted.
    let crumbs = head.headers().get_all(header::COOKIE).iter().count();
    if head.headers().len() - crumbs.saturating_sub(1) > MAX_FIELDS {
        refuse(exchange, &Denial::HeaderTooLarge.into(), &context).await;
        return None;
    }
    let classic = head.method() == Method::CONNECT && head.extensions().get::<Extended>().is_none();
    let refused: Refusal = if classic {
        return tunnel::classic(exchange, context, current).await;
    } else if exchange.refusing {
        Denial::Draining.into()
    } else if let Some(denial) = misnamed(head) {
        denial.into()
    } else if head.method() == Method::CONNECT {
        match extended(head) {
            Ok(handshake) => {
                return tunnel::connect_tcp(exchange, &handshake, context, current).await;
            }
            Err(denial) => denial.into(),
        }
    } else if is_call(head, exchange.secure) {
        // A version that carries it never comes here with it.
        Denial::UnsupportedProtocol.into()
    } else if head.method() == Method::GET && head.uri().path() == PROOF_PATH {
        let (relay, limits) = (&context.h2.relay, &context.h2.limits);
        match relay.prove_by(
            head.headers(),
            exchange.channel.as_ref(),
            exchange.downstream,
            |identity| {
                exchange.standing.here(&identity.session)?;
                let (budget, right) = (identity.session.budget(), identity.right());
                exchange.standing.carry(budget, right, limits)
            },
        ) {
            Ok(()) => {
                exchange.standing.trust();
                let answer = own::proved(relay.opens.instance());
                exchange.respond.whole(answer).await;
                return None;
            }
            Err(refusal) => refusal,
        }
    } else if forward::is_foreign(head, exchange.secure) {
        return Some(Box::pin(forward::serve(exchange, context)));
    } else if let Some(name) = names::asked(head.method(), head.uri()) {
        let from = (exchange.downstream, Some(&*exchange.standing));
        let channel = exchange.channel.as_ref();
        let response = names::answer(&context, name, head.headers(), channel, from);
        exchange.known(&response);
        exchange.respond.whole(response).await;
        return None;
    } else if token::is_refresh(head.method(), head.uri().path()) {
        let response = token::answer(
            &context.authenticator,
            head.headers(),
            exchange.channel.as_ref(),
            (exchange.downstream, Some(exchange.standing.as_ref())),
            context.detail,
            &context.telemetry,
        );
        exchange.known(&response);
        exchange.respond.whole(response).await;
        return None;
    } else {
        match own::resource(head, &context.h2) {
            Some(response) => {
                exchange.respond.whole(response).await;
                return None;
            }
            None => Denial::NotFound.into(),
        }
    };
    refuse(exchange, &refused, &context).await;
    None
}

/// Answer with a refusal of something that is, or would have been, a resource of ours.
async fn refuse<A: Answer>(exchange: Exchange<A>, refused: &Refusal, context: &Context) {
    let head = &exchange.request;
    let mut recorder = context
        .telemetry
        .begin(Kind::request, Front::origin, exchange.downstream);
    recorder.protocol(A::PROTOCOL);
    recorder.http(head.method().as_str(), head.uri().path());
    let html = headers::wants_html(head.headers());
    let answer = context.reject(Asks::Origin, refused, None, &mut recorder, html);
    exchange.respond.whole(answer).await;
}

/// A call of ours: gRPC, and not for another host.
pub(super) fn is_call<B>(request: &Request<B>, secure: bool) -> bool {
    Call::is_one(request) && !forward::is_foreign(request, secure)
}

/// RFC 9113 §8.3.1, RFC 9114 §4.3.1: a Host field must not differ from `:authority`, which every client of ours sends. A Host alone
/// names nothing here.
fn misnamed<B>(request: &Request<B>) -> Option<Denial> {
    let Some(authority) = request.uri().authority() else {
        return Some(Denial::MalformedTarget);
    };
    let headers: &HeaderMap = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    hosts
        .any(|host| host.as_bytes() != authority.as_str().as_bytes())
        .then_some(Denial::HostMismatch)
}

/// What an extended CONNECT (RFC 8441 §4, RFC 9220) asks for.
fn extended<B>(request: &Request<B>) -> Result<Handshake, Denial> {
    match request.extensions().get::<Extended>() {
        Some(protocol) if protocol.as_str() == CONNECT_TCP => {}
        _ => return Err(Denial::UnsupportedProtocol),
    }
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    connect_tcp::asked(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::Request;
    use sluicegate_policy::Denial;

    use super::misnamed;

    #[test]
    fn a_request_names_one_host_and_by_its_authority() {
        let asked = |uri: &str, hosts: &[&str]| {
            let request = Request::get(uri);
            let request = hosts
                .iter()
                .fold(request, |r, host| r.header("host", *host));
            misnamed(&request.body(()).unwrap())
        };
        let table: [(&str, &[&str], Option<Denial>); 6] = [
            ("http://a.test/", &[], None),
            ("http://a.test/", &["a.test"], None),
            ("http://a.test/", &["b.test"], Some(Denial::HostMismatch)),
            (
                "http://a.test/",
                &["a.test", "b.test"],
                Some(Denial::HostMismatch),
            ),
            ("/", &[], Some(Denial::MalformedTarget)),
            // It agrees with nothing, and differs from nothing.
            ("/", &["a.test"], Some(Denial::MalformedTarget)),
        ];
        for (uri, hosts, expected) in table {
            assert_eq!(asked(uri, hosts), expected, "{uri} {hosts:?}");
        }
    }
}
