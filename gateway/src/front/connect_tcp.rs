//! `connect-tcp` (draft-ietf-httpbis-connect-tcp), whatever HTTP version asked: to a host service or out to a target.
//!
//! How it is asked and accepted is each version's: `upgrade` for HTTP/1.1, `h2`. Credentials come in `Authorization`, and
//! a missing one is 401, never 407: to the client this is an origin.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sluicegate_policy::Denial;
use sluicegate_relay::flow::Flow;
use sluicegate_relay_protocol::{CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, Handshake, PathError};

use super::{
    connect::{self, Accepted, Ask, Wanted},
    context::Context,
    headers,
};
use crate::{
    egress::Guarded,
    listen::Downstream,
    outcome::{Outcome, Party},
    relay::{Dialled, Ticket},
    telemetry::{Front, Kind, Protocol, Recorder},
};

/// A request that may have its 101 or 200: where it leads is open.
pub(super) enum Opened {
    /// A host service.
    Service(Box<Service>),
    /// An egress target.
    Egress(Box<connect::Opened>),
    /// A listener of the sandbox, which its host has dialled. The record is the dial's.
    Listener(Dialled),
}

/// An open host service.
pub(super) struct Service {
    ticket: Ticket,
    upstream: Box<dyn Flow>,
    recorder: Recorder,
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

/// A request, however it came.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What its path asks for.
    pub(super) handshake: &'a Handshake,
    /// Its fields.
    pub(super) fields: &'a HeaderMap,
    /// What it came by.
    pub(super) protocol: Protocol,
}

/// Decide and open. `gone` completes when the client gives up, which ends the dial.
pub(super) async fn open(
    context: &Context,
    asked: Asked<'_>,
    peer: SocketAddr,
    gone: impl Future,
) -> Accepted<Opened> {
    match asked.handshake {
        Handshake::Service { name } => service(context, name, asked, peer, gone).await,
        Handshake::Listener { name } => listener(context, name, asked, peer, gone).await,
        Handshake::Egress { host, port } => {
            let fields = asked.fields;
            let ask = Ask {
                wanted: Wanted::Template { host, port: *port },
                protocol: asked.protocol,
                credentials: fields
                    .get_all(header::AUTHORIZATION)
                    .iter()
                    .map(HeaderValue::as_bytes)
                    .collect(),
                html: headers::wants_html(fields),
            };
            connect::accept(context, peer, ask, gone)
                .await
                .map(|opened| Opened::Egress(Box::new(opened)))
        }
    }
}

/// An accept stream waits until the host dials. It has a record of its own only where it is refused.
async fn listener(
    context: &Context,
    name: &str,
    asked: Asked<'_>,
    peer: SocketAddr,
    gone: impl Future,
) -> Accepted<Opened> {
    let mut drain = context.drain.clone();
    let waited = match context.h2.relay.offer(asked.fields, name, peer) {
        Err(refusal) => Err(refusal),
        Ok(waiting) => tokio::select! {
            dialled = waiting.dialled(&mut drain) => dialled,
            // The client has withdrawn its offer, or is gone: nothing happened.
            _ = gone => return Accepted::Gone,
        },
    };
    match waited {
        Ok(dialled) => Accepted::Opened(Opened::Listener(dialled)),
        Err(refusal) => {
            let mut recorder = context
                .telemetry
                .begin(Kind::stream, Front::connect_tcp, peer);
            recorder.protocol(asked.protocol);
            recorder.service(name);
            Accepted::Refused(context.challenge(&refusal, None, &mut recorder, false))
        }
    }
}

async fn service(
    context: &Context,
    name: &str,
    asked: Asked<'_>,
    peer: SocketAddr,
    gone: impl Future,
) -> Accepted<Opened> {
    let mut recorder = context
        .telemetry
        .begin(Kind::stream, Front::connect_tcp, peer);
    recorder.protocol(asked.protocol);
    recorder.service(name);
    let relay = &context.h2.relay;
    let admitted = if context.drain.refusing() {
        Err(Denial::Draining.into())
    } else {
        relay.admit(asked.fields, name, peer, &mut recorder)
    };
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(refusal) => {
            return Accepted::Refused(context.challenge(&refusal, None, &mut recorder, false));
        }
    };
    let opened = tokio::select! {
        opened = relay.open(&ticket, &mut recorder) => opened,
        _ = gone => {
            recorder.ended(Outcome::Reset, Party::Downstream);
            return Accepted::Gone;
        }
    };
    match opened {
        Ok(upstream) => Accepted::Opened(Opened::Service(Box::new(Service {
            ticket,
            upstream,
            recorder,
        }))),
        Err(refusal) => Accepted::Refused(context.challenge(&refusal, None, &mut recorder, false)),
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

    /// The client has gone before it could be carried, or sent what it may not send yet.
    pub(super) fn abandon(mut self, denial: Option<Denial>) {
        let recorder = match &mut self {
            Self::Service(service) => &mut service.recorder,
            Self::Egress(opened) => opened.recorder(),
            // The dial takes the accept stream that comes next.
            Self::Listener(_) => return,
        };
        match denial {
            Some(denial) => recorder.cut(denial),
            None => recorder.ended(Outcome::Reset, Party::Downstream),
        }
    }

    /// Carry it to its end; the answer is sent.
    pub(super) async fn carry(
        self,
        flow: impl Flow + 'static,
        peer: SocketAddr,
        context: Arc<Context>,
    ) {
        match self {
            Self::Service(service) => {
                let Service {
                    ticket,
                    upstream,
                    mut recorder,
                } = *service;
                let relay = &context.h2.relay;
                relay.carry(flow, upstream, ticket, &mut recorder).await;
            }
            Self::Egress(opened) => {
                let stream = Guarded::new(Downstream::stream(flow));
                let carried = connect::carry(stream, Vec::new(), *opened, peer, context);
                // Much larger than a relay stream, which would be as large with it.
                Box::pin(carried).await;
            }
            Self::Listener(dialled) => {
                Box::pin(dialled.carry(flow)).await;
            }
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
