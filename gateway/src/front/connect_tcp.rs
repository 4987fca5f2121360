//! `connect-tcp` (draft-ietf-httpbis-connect-tcp §3), whatever HTTP version asked, and its like on QUIC: to a host service, out
//! to a target, or an accept stream.
//!
//! How it is asked and accepted is each transport's: `upgrade` for HTTP/1.1, `h2`, `quic`. Credentials come in `Authorization`, and
//! a missing one is 401, never 407 (§3.3.2): to the client this is an origin.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::flow::{Broken, Flow};
use sluicegate_relay_protocol::{
    CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, Handshake, ONCE, Once, PathError, TAKEN,
};

use super::{
    connect::{self, Accepted, Ask, Wanted},
    context::{Context, Current},
    h2, headers,
    standing::Standing,
};
use crate::{
    auth::{Identity, Presented, Values, bearer},
    egress::Guarded,
    listen::{Carrying, Downstream},
    lost::Lost,
    message::Asks,
    outcome::{Outcome, Party},
    relay::{Dialled, Open},
    secret::Secret,
    telemetry::{Front, Kind, Protocol, Recorder},
};

/// A request that may have its 101 or 200: where it leads is open.
pub(super) enum Opened {
    /// A host service.
    Service(Box<Service>),
    /// An egress target.
    Egress(Box<connect::Opened>),
    /// A listener of the sandbox, which its host has dialled. The record is the dial's.
    Listener(Box<Dialled>),
}

/// A stream to a host service.
pub(super) struct Service {
    open: Open,
    recorder: Recorder,
}

/// Who asks, and by what.
pub(super) struct Asker<'a> {
    /// What carries it.
    pub(super) front: Front,
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    /// Which HTTP, where it is one.
    pub(super) protocol: Option<Protocol>,
    /// The values of `Authorization`.
    pub(super) credentials: Values<'a>,
    /// It prefers a page.
    pub(super) html: bool,
    /// What the two ends of its connection share.
    pub(super) channel: Option<&'a Channel>,
    /// Which open it is, where it must not happen twice.
    pub(super) once: Result<Option<Once>, Denial>,
    /// The connection that carries it beside others; `None` where it has one of its own.
    pub(super) carrier: Option<&'a Standing>,
}

impl<'a> Asker<'a> {
    /// Over HTTP.
    pub(super) fn new(
        fields: &'a HeaderMap,
        peer: SocketAddr,
        channel: Option<&'a Channel>,
        protocol: Protocol,
    ) -> Self {
        Self {
            front: Front::connect_tcp,
            peer,
            protocol: Some(protocol),
            credentials: fields
                .get_all(header::AUTHORIZATION)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect(),
            html: headers::wants_html(fields),
            channel,
            once: once(fields),
            carrier: None,
        }
    }

    /// The same as one stream of this connection.
    pub(super) fn carried_by(self, standing: &'a Standing) -> Self {
        let carrier = Some(standing);
        Self { carrier, ..self }
    }

    /// Its connection carries streams of this session, if the session has a place for it.
    fn carried(&self, context: &Context, identity: &Identity) -> Result<(), Refusal> {
        let budget = identity.session.budget();
        match self.carrier {
            Some(standing) => {
                standing.here(&identity.session)?;
                standing.carry(budget, identity.right(), &context.h2.limits)
            }
            None => Ok(()),
        }
    }

    fn told(&self, recorder: &mut Recorder) {
        if let Some(protocol) = self.protocol {
            recorder.protocol(protocol);
        }
    }

    fn presented(&self) -> Result<Secret, Denial> {
        bearer(self.credentials.iter())
    }
}

/// Which open it is, where that is said.
fn once(fields: &HeaderMap) -> Result<Option<Once>, Denial> {
    let mut said = fields.get_all(ONCE).iter();
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => Once::parse(one.as_bytes())
            .map(Some)
            .ok_or(Denial::MalformedRequest),
        (Some(_), Some(_)) => Err(Denial::MalformedRequest),
    }
}

/// Does the client of an accept stream say when it has a dial?
pub(super) fn says_taken(fields: &HeaderMap) -> bool {
    let said = fields.get(TAKEN);
    said.is_some_and(|said| said == CAPSULE_PROTOCOL_TRUE)
}

/// A stream's reset is a word too: it may overtake the one that was said before it, of a client that has the dial and can do nothing with
/// it. Whoever carries the stream finds it once more.
pub(super) async fn or_reset(
    heard: impl Future<Output = Result<(), Broken>>,
) -> Result<(), Broken> {
    match heard.await {
        Err(Broken::Reset | Broken::Refused) => Ok(()),
        heard => heard,
    }
}

/// What a path asks for, as sent.
///
/// # Errors
/// No template matches, or a variable is malformed.
pub(super) fn asked(path: &str) -> Result<Handshake, Denial> {
    Handshake::parse(path).map_err(|error| match error {
        PathError::Unknown => Denial::NotFound,
        PathError::Variable | PathError::Port => Denial::MalformedTarget,
    })
}

/// Decide and open. `gone` completes when the client gives up, which ends the dial.
pub(super) async fn open(
    context: &Context,
    handshake: &Handshake,
    asker: Asker<'_>,
    gone: impl Future,
) -> Accepted<Opened> {
    match handshake {
        Handshake::Service { name } => service(context, name, asker, gone).await,
        Handshake::Listener { name } => listener(context, name, asker, gone).await,
        Handshake::Egress { host, port } => {
            let ask = Ask {
                front: asker.front,
                wanted: Wanted::Template { host, port: *port },
                protocol: asker.protocol,
                credentials: asker.credentials,
                channel: asker.channel,
                html: asker.html,
                carrier: asker.carrier,
            };
            connect::accept(context, asker.peer, ask, gone)
                .await
                .map(|opened| Opened::Egress(Box::new(opened)))
        }
    }
}

/// An accept stream waits until the host dials. It has a record of its own only where it is refused.
async fn listener(
    context: &Context,
    name: &str,
    asker: Asker<'_>,
    gone: impl Future,
) -> Accepted<Opened> {
    let mut drain = context.drain.clone();
    let offered = asker.presented().map_err(Refusal::from).and_then(|shown| {
        let presented = Presented::on(&shown, asker.channel);
        let carried = |identity: &Identity| asker.carried(context, identity);
        let relay = &context.h2.relay;
        relay.offer(presented, name, asker.peer, carried)
    });
    let waited = match offered {
        Err(refusal) => Err((refusal, None)),
        Ok(waiting) => tokio::select! {
            dialled = waiting.dialled(&mut drain) => dialled.map_err(|lost| (Refusal::from(lost.denial), Some(lost))),
            // The client has withdrawn its offer, or is gone: nothing happened.
            _ = gone => return Accepted::Gone,
        },
    };
    match waited {
        Ok(dialled) => Accepted::Opened(Opened::Listener(Box::new(dialled))),
        Err((refusal, lost)) => {
            let mut recorder = context
                .telemetry
                .begin(Kind::stream, asker.front, asker.peer);
            asker.told(&mut recorder);
            recorder.service(name);
            if let Some(lost) = lost {
                lost.told(&mut recorder);
            }
            Accepted::Refused(context.reject(
                Asks::Origin,
                &refusal,
                None,
                &mut recorder,
                asker.html,
            ))
        }
    }
}

async fn service(
    context: &Context,
    name: &str,
    asker: Asker<'_>,
    gone: impl Future,
) -> Accepted<Opened> {
    let mut recorder = context
        .telemetry
        .begin(Kind::stream, asker.front, asker.peer);
    asker.told(&mut recorder);
    recorder.service(name);
    let relay = &context.h2.relay;
    let admitted = if context.drain.refusing() {
        Err(Denial::Draining.into())
    } else {
        asker.presented().map_err(Refusal::from).and_then(|shown| {
            let presented = Presented::on(&shown, asker.channel);
            let ticket = relay.admit(presented, name, asker.peer, &mut recorder)?;
            asker.carried(context, &ticket.identity)?;
            let dial = relay.dial(&ticket)?;
            // Last: what is refused for another reason may be asked for again.
            match &asker.once {
                Ok(None) => {}
                Ok(Some(once)) => relay.opens.take(ticket.identity.session.key(), once)?,
                Err(denial) => return Err((*denial).into()),
            }
            Ok((ticket, dial))
        })
    };
    let (ticket, dial) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            return Accepted::Refused(context.reject(
                Asks::Origin,
                &refusal,
                None,
                &mut recorder,
                asker.html,
            ));
        }
    };
    let opened = tokio::select! {
        opened = relay.open(ticket, &mut recorder) => opened,
        _ = gone => {
            recorder.ended(Outcome::Reset, Party::Downstream);
            return Accepted::Gone;
        }
    };
    drop(dial);
    match opened {
        Ok(mut open) => {
            // A plaintext listener is not where the public URL leads.
            if asker.channel.is_some() {
                relay.came(&mut open, asker.peer);
            }
            Accepted::Opened(Opened::Service(Box::new(Service { open, recorder })))
        }
        Err(refusal) => Accepted::Refused(context.reject(
            Asks::Origin,
            &refusal,
            None,
            &mut recorder,
            asker.html,
        )),
    }
}

impl Opened {
    /// The status answered.
    pub(super) fn answered(&mut self, status: u16) {
        match self {
            Self::Service(service) => service.recorder.status(status),
            Self::Egress(opened) => opened.recorder().status(status),
            Self::Listener(_) => {}
        }
    }

    /// Completes when it may not be open any more, though its answer is still on the way.
    pub(super) async fn revoked(&mut self) -> Lost {
        match self {
            Self::Service(service) => service.open.revoked().await,
            Self::Egress(opened) => opened.revoked().await,
            Self::Listener(dialled) => dialled.lost().await,
        }
    }

    /// The client says when it has a dial. `false`: this is none.
    pub(super) fn waits_to_be_taken(&mut self) -> bool {
        match self {
            Self::Listener(dialled) => {
                dialled.waits_to_be_taken();
                true
            }
            Self::Service(_) | Self::Egress(_) => false,
        }
    }

    /// Is somebody there, for certain? A client that says when it has a dial has said so once it is `heard`.
    pub(super) async fn taken(&mut self, heard: impl Future<Output = Result<(), Broken>>) -> bool {
        match self {
            Self::Listener(dialled) => dialled.taken(heard).await,
            Self::Service(_) | Self::Egress(_) => true,
        }
    }

    /// The client has gone before it could be carried, or sent what it may not send yet.
    pub(super) fn abandon(mut self, lost: Option<Lost>) {
        let recorder = match &mut self {
            Self::Service(service) => &mut service.recorder,
            Self::Egress(opened) => opened.recorder(),
            // The dial takes the accept stream that comes next.
            Self::Listener(_) => return,
        };
        match lost {
            Some(lost) => lost.cut(recorder),
            None => recorder.ended(Outcome::Reset, Party::Downstream),
        }
    }

    /// Carry it to its end; the answer is sent. Each as large as it has to be.
    pub(super) fn carry(
        self,
        flow: impl Flow + 'static,
        peer: SocketAddr,
        current: Arc<Current>,
    ) -> Carrying {
        match self {
            // Out of its box here: one that something is moved out of while it is carried would live as long.
            Self::Service(service) => {
                let Service { open, recorder } = *service;
                let carried = Carried {
                    open: Some(open),
                    flow: Some(flow),
                    recorder,
                };
                // Of the rest of a configuration nothing is kept while the stream lives.
                Box::pin(carried.carry(current.now().h2.clone()))
            }
            Self::Egress(opened) => {
                let stream = Guarded::new(Downstream::stream(flow));
                Box::pin(connect::carry(stream, Vec::new(), *opened, peer, current))
            }
            Self::Listener(dialled) => Box::pin(dialled.carry(flow)),
        }
    }
}

/// A stream to a service that is carried. However it ends, the service's end and the place go first, and the record last: fields are dropped
/// as they stand here.
struct Carried<F> {
    open: Option<Open>,
    flow: Option<F>,
    recorder: Recorder,
}

impl<F: Flow + 'static> Carried<F> {
    #[allow(
        clippy::manual_async_fn,
        reason = "an async fn would hold twice what it is given"
    )]
    fn carry(mut self, context: Arc<h2::Context>) -> impl Future<Output = ()> + Send {
        async move {
            // As one: what is captured apart is dropped in no certain order.
            let carried = &mut self;
            let (flow, open) = (&mut carried.flow, &mut carried.open);
            context.relay.carry(flow, open, &mut carried.recorder).await;
        }
    }
}

/// The fields of an accepting answer: it carries capsules (RFC 9297 §3.4), and who says so (RFC 9209 §2).
pub(super) fn accepting(fields: &mut HeaderMap) {
    fields.insert(
        CAPSULE_PROTOCOL,
        HeaderValue::from_static(CAPSULE_PROTOCOL_TRUE),
    );
    fields.insert(
        HeaderName::from_static("proxy-status"),
        HeaderValue::from_static("sluicegate"),
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluicegate_relay::flow::{CapsuleFlow, QuicFlow};

    use super::{Carried, h2};

    fn size<T, F: Future>(_: fn(Carried<T>, Arc<h2::Context>) -> F) -> usize {
        size_of::<F>()
    }

    /// Idle streams are many, and beyond this the allocator has 1,280 bytes for each.
    #[test]
    fn what_carries_an_idle_stream_fits_1024_bytes() {
        let sizes = [
            size(Carried::<QuicFlow>::carry),
            size(Carried::<CapsuleFlow>::carry),
        ];
        assert!(sizes.iter().all(|size| *size <= 1024), "{sizes:?}");
    }
}
