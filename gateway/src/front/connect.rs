//! CONNECT (RFC 9110 §9.3.6): authority-form in, a tunnel out.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::Response;
use sluicegate_policy::{Denial, Refusal, Target};

use super::{
    context::Context,
    forward::{self, Scope},
};
use crate::{
    auth::Identity,
    egress::{self, Guarded, Tunnel},
    listen::Downstream,
    outcome::{Outcome, Party},
    session::{PolicyGeneration, Slot, Snapshot},
    telemetry::{Front, Kind, Recorder},
};

/// What a CONNECT says, however it was parsed.
pub(super) struct Ask<'a> {
    /// The request target.
    pub(super) authority: &'a [u8],
    /// The Host field.
    pub(super) host: Option<&'a [u8]>,
    /// The values of Proxy-Authorization.
    pub(super) credentials: Vec<&'a [u8]>,
    /// The client prefers a page.
    pub(super) html: bool,
}

/// A CONNECT that may have its 200.
pub(super) struct Opened {
    way: Way,
    recorder: Recorder,
}

/// Where it leads, whose it is, and by which policy.
struct Way {
    upstream: egress::Opened,
    tunnel: Tunnel,
    identity: Identity,
    policy: Arc<PolicyGeneration>,
    slot: Slot,
}

/// Decide and dial.
///
/// # Errors
/// The refusal's answer, recorded.
pub(super) async fn accept(
    context: &Context,
    peer: SocketAddr,
    ask: Ask<'_>,
) -> Result<Opened, Response<Bytes>> {
    let mut recorder = context.telemetry.begin(Kind::tunnel, Front::connect, peer);
    let mut target = None;
    match open(context, peer, &ask, &mut target, &mut recorder).await {
        Ok(way) => {
            recorder.status(200);
            Ok(Opened { way, recorder })
        }
        Err(refusal) => Err(context.reject(&refusal, target.as_ref(), &mut recorder, ask.html)),
    }
}

async fn open(
    context: &Context,
    peer: SocketAddr,
    ask: &Ask<'_>,
    target: &mut Option<Target>,
    recorder: &mut Recorder,
) -> Result<Way, Refusal> {
    let wanted = parse_target(ask)?;
    recorder.target(&wanted);
    let wanted = target.insert(wanted);
    let (identity, Snapshot { policy, changes }) =
        context.identify_proxy(ask.credentials.iter().copied(), recorder, peer.ip())?;
    let permit = context.egress.decide(&policy, wanted, recorder)?;
    let budget = identity.session.budget();
    let slot = budget.open_to(&wanted.to_string(), SystemTime::now())?;
    let upstream = context.egress.open(&policy, &permit, recorder).await?;
    let tunnel = Tunnel {
        session: identity.session.clone(),
        authority: changes,
        permit,
        dialled: upstream.address.ip(),
        admission: context.egress.admission.clone(),
        idle: context.egress.timeouts.idle,
        first_bytes: context.egress.timeouts.first_bytes,
        gated: true,
    };
    Ok(Way {
        upstream,
        tunnel,
        identity,
        policy,
        slot,
    })
}

/// Authority-form; a Host may be missing or lack the port, but not name another host (real clients do the former).
fn parse_target(ask: &Ask<'_>) -> Result<Target, Refusal> {
    let text = str::from_utf8(ask.authority).map_err(|_| Denial::MalformedTarget)?;
    let target = Target::from_authority(text).map_err(|_| Denial::MalformedTarget)?;
    if let Some(host) = ask.host {
        let host = str::from_utf8(host).map_err(|_| Denial::MalformedRequest)?;
        let named = Target::from_uri_authority(host, target.port())
            .map_err(|_| Denial::MalformedRequest)?;
        if named.host() != target.host() {
            return Err(Denial::HostMismatch.into());
        }
    }
    Ok(target)
}

/// Carry an accepted CONNECT whose 200 is sent. `first` came behind the request's head.
pub(super) async fn carry(
    downstream: Guarded<Downstream>,
    first: Vec<u8>,
    opened: Opened,
    peer: SocketAddr,
    context: Arc<Context>,
) {
    let Opened { way, recorder } = opened;
    let Way {
        upstream,
        tunnel,
        identity,
        policy,
        slot,
    } = way;
    let address = upstream.address;
    let target = tunnel.permit.target().clone();
    let held = tunnel
        .run(downstream, Guarded::new(upstream.stream), first, recorder)
        .await;
    drop(slot);
    if let Some(mut held) = held {
        // Plain HTTP inside a tunnel is judged as absolute-form would be, request by request.
        held.recorder.ended(Outcome::Completed, Party::Downstream);
        drop(held.recorder);
        if let Some(upstream) = held.upstream.take() {
            forward::adopt(&context, &identity, &policy, &target, upstream, address).await;
        }
        let buffer = BytesMut::from(held.bytes.as_slice());
        forward::serve(
            held.downstream,
            buffer,
            peer,
            context,
            Scope::Inside { target, identity },
        )
        .await;
    }
}
