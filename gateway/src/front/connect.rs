//! CONNECT (RFC 9110 §9.3.6): authority-form in, a tunnel out. `connect-tcp` to an egress target is the same from there on.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use bytes::{Bytes, BytesMut};
use http::Response;
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Host, Refusal, ServiceBound, Target, TargetPermit};

use super::{
    context::{Context, Current},
    forward::{self, Scope},
    pool::Adopted,
    standing::Standing,
};
use crate::{
    auth::{Identity, Values},
    egress::{
        Carried, Ends, Guarded, InForce, Known, Reached, Tunnel, Upstream, Ways, still_allowed,
    },
    listen::Downstream,
    lost::Lost,
    message::Asks,
    outcome::{Outcome, Party},
    session::{Changes, Destination, Judged, PolicyGeneration, Slot},
    telemetry::{Front, Kind, Protocol, Recorder},
};

/// What asks for a tunnel, however it was parsed.
pub(super) struct Ask<'a> {
    /// What carries it.
    pub(super) front: Front,
    /// Where to.
    pub(super) wanted: Wanted<'a>,
    /// The values of Proxy-Authorization (CONNECT) or Authorization (connect-tcp).
    pub(super) credentials: Values<'a>,
    /// What the two ends of its connection share; for credentials that are bound to a key.
    pub(super) channel: Option<&'a Channel>,
    /// The client prefers a page.
    pub(super) html: bool,
    /// What it came by.
    pub(super) protocol: Option<Protocol>,
    /// The connection that carries it beside others.
    pub(super) carrier: Option<&'a Standing>,
}

/// Where a tunnel is to lead, as it is said.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// CONNECT.
    Authority {
        /// The request target.
        authority: &'a [u8],
        /// The Host field.
        host: Option<&'a [u8]>,
    },
    /// The variables of connect-tcp's template.
    Template {
        /// A name, an IPv4 or an unbracketed IPv6 literal.
        host: &'a str,
        /// The port.
        port: u16,
    },
}

/// What became of an ask.
pub(super) enum Accepted<O> {
    /// It may have its answer.
    Opened(O),
    /// The refusal's answer, recorded.
    Refused(Response<Bytes>),
    /// The client gave up meanwhile.
    Gone,
}

impl<O> Accepted<O> {
    pub(super) fn map<T>(self, change: impl FnOnce(O) -> T) -> Accepted<T> {
        match self {
            Self::Opened(opened) => Accepted::Opened(change(opened)),
            Self::Refused(answer) => Accepted::Refused(answer),
            Self::Gone => Accepted::Gone,
        }
    }
}

/// A tunnel that may have its 200.
pub(super) struct Opened {
    led: Led,
    recorder: Recorder,
}

impl Opened {
    pub(super) fn new(led: Led, recorder: Recorder) -> Self {
        Self { led, recorder }
    }

    /// Its record.
    pub(super) fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Completes when it may not be open any more. Until it is carried nothing else watches that; whoever carries it sees each change again.
    pub(super) fn revoked(&self) -> impl Future<Output = Lost> + use<> {
        let tunnel = &self.led.way.tunnel;
        let (mut changes, permit) = (tunnel.authority.clone(), tunnel.permit.clone());
        let (reached, ways) = (tunnel.reached.clone(), tunnel.ways.clone());
        async move { lost(&mut changes, &permit, Some(&reached), &ways).await }
    }
}

/// A way that is open.
pub(super) struct Led {
    upstream: Upstream,
    /// Apart: it is handed on from stage to stage, and each would hold room for it.
    way: Box<Way>,
}

/// Where it leads, whose it is, and by which policy.
struct Way {
    tunnel: Tunnel,
    /// Of its identity, which the tunnel has otherwise.
    bound: Option<Arc<[ServiceBound]>>,
    policy: Arc<PolicyGeneration>,
    slot: Slot,
}

/// Decide and dial. `gone` completes when the client gives up, which ends the dial.
pub(super) async fn accept(
    context: &Context,
    peer: SocketAddr,
    ask: Ask<'_>,
    gone: impl Future,
) -> Accepted<Opened> {
    let asks = match ask.wanted {
        Wanted::Authority { .. } => Asks::Proxy,
        Wanted::Template { .. } => Asks::Origin,
    };
    let mut recorder = context.telemetry.begin(Kind::tunnel, ask.front, peer);
    if let Some(protocol) = ask.protocol {
        recorder.protocol(protocol);
    }
    let mut target = None;
    let opened = tokio::select! {
        opened = open(context, peer, &ask, &mut target, &mut recorder) => Some(opened),
        _ = gone => None,
    };
    match opened {
        Some(Ok(led)) => {
            recorder.status(200);
            Accepted::Opened(Opened::new(led, recorder))
        }
        Some(Err(refusal)) => {
            let (target, html) = (target.as_ref(), ask.html);
            Accepted::Refused(context.reject(asks, &refusal, target, &mut recorder, html))
        }
        None => {
            recorder.ended(Outcome::Reset, Party::Downstream);
            Accepted::Gone
        }
    }
}

async fn open(
    context: &Context,
    peer: SocketAddr,
    ask: &Ask<'_>,
    target: &mut Option<Target>,
    recorder: &mut Recorder,
) -> Result<Led, Refusal> {
    let wanted = parse_target(ask.wanted)?;
    recorder.target(&wanted);
    let wanted = target.insert(wanted);
    let identity =
        context.identify_proxy(ask.credentials.iter(), ask.channel, recorder, peer.ip())?;
    if let Some(standing) = ask.carrier {
        standing.here(&identity.session)?;
        let (budget, right) = (identity.session.budget(), identity.right());
        let limits = &context.h2.limits;
        match ask.wanted {
            Wanted::Authority { .. } => standing.carry_asked(budget, right, limits)?,
            Wanted::Template { .. } => standing.carry(budget, right, limits)?,
        }
    }
    lead(context, identity, wanted, recorder).await
}

/// Decide and dial for a session that is known, and on record, however its client asked.
pub(super) async fn lead(
    context: &Context,
    identity: Identity,
    wanted: &Target,
    recorder: &mut Recorder,
) -> Result<Led, Refusal> {
    let now = SystemTime::now();
    let Judged {
        permit,
        policy,
        mut changes,
    } = identity.judge_at(now, |policy| {
        recorder.policy(policy.number);
        let decided = context.egress.decide(policy, wanted, recorder);
        decided.map_err(|refusal| identity.session.refused(refusal, now))
    })?;
    let budget = identity.session.budget();
    let slot = budget
        .open_to(Destination::Target(wanted.clone()), now)
        .map_err(|denial| budget.refusal(denial))?;
    let dial = budget.dial(context.egress.timeouts.pending_opens)?;
    let counted = context.telemetry.metrics().pending();
    let upstream = tokio::select! {
        biased;
        ended = lost(&mut changes, &permit, None, &context.ways) => return Err(ended.told(recorder).into()),
        opened = context.ways.open(&policy, &permit, recorder) => opened?,
    };
    drop((dial, counted));
    // A change meanwhile was judged without the address, which was admitted by the policy before it.
    let (stream, reached) = (upstream.stream, upstream.reached);
    let (now, egress) = (changes.now(), context.ways.now());
    let now = still_allowed(&now, &permit, Known::Nothing, Some(&reached), &egress)
        .map_err(|lost| lost.told(recorder))?;
    now.record(recorder);
    let InForce { permit, policy } = now;
    let tunnel = Tunnel {
        session: identity.session,
        authority: changes,
        permit,
        reached,
        ways: context.ways.clone(),
        idle: context.egress.timeouts.idle,
        first_bytes: context.egress.timeouts.first_bytes,
        upgraded: None,
    };
    Ok(Led {
        upstream: stream,
        way: Box::new(Way {
            tunnel,
            bound: identity.bound,
            policy,
            slot,
        }),
    })
}

/// Completes when the right to open this is lost, or to keep it open where it was dialled: neither a name is asked for nor an address
/// dialled from then on.
async fn lost(
    changes: &mut Changes,
    permit: &TargetPermit,
    reached: Option<&Reached>,
    ways: &Ways,
) -> Lost {
    loop {
        if changes.changed().await.is_err() {
            return Denial::SessionRevoked.into();
        }
        let (now, egress) = (changes.now(), ways.now());
        if let Err(lost) = still_allowed(&now, permit, Known::Nothing, reached, &egress) {
            return lost;
        }
    }
}

fn parse_target(wanted: Wanted<'_>) -> Result<Target, Refusal> {
    match wanted {
        Wanted::Authority { authority, host } => parse_authority(authority, host),
        Wanted::Template { host, port } => {
            let host = Host::parse_bare(host).map_err(|_| Denial::MalformedTarget)?;
            Ok(Target::new(host, port).ok_or(Denial::MalformedTarget)?)
        }
    }
}

/// Authority-form; a Host may be missing or lack the port, but not name another host (real clients do the former).
fn parse_authority(authority: &[u8], host: Option<&[u8]>) -> Result<Target, Refusal> {
    let text = str::from_utf8(authority).map_err(|_| Denial::MalformedTarget)?;
    let target = Target::from_authority(text).map_err(|_| Denial::MalformedTarget)?;
    if let Some(host) = host {
        let host = str::from_utf8(host).map_err(|_| Denial::MalformedRequest)?;
        let named = Target::from_uri_authority(host, target.port())
            .map_err(|_| Denial::MalformedRequest)?;
        if named.host() != target.host() {
            return Err(Denial::HostMismatch.into());
        }
    }
    Ok(target)
}

/// Carry an accepted tunnel whose answer is sent. `first` came behind the request.
pub(super) fn carry(
    downstream: Guarded<Downstream>,
    first: Vec<u8>,
    opened: Opened,
    peer: SocketAddr,
    current: Arc<Current>,
) -> impl Future<Output = ()> + Send {
    let Opened { led, recorder } = opened;
    let Led { upstream, mut way } = led;
    let mut ends = Ends {
        recorder,
        first,
        upstream: Guarded::new(upstream),
        downstream,
    };
    async move {
        if way.tunnel.run(&mut ends).await == Carried::Http {
            // Apart: few tunnels need the room.
            Box::pin(judged(ends, way, peer, current)).await;
        } else {
            drop(ends);
        }
    }
}

/// Plain HTTP inside a tunnel is judged as absolute-form would be, request by request.
async fn judged(
    ends: Ends<Downstream, Upstream>,
    way: Box<Way>,
    peer: SocketAddr,
    current: Arc<Current>,
) {
    let Way {
        mut tunnel,
        bound,
        policy,
        slot,
    } = *way;
    let identity = Identity {
        session: tunnel.session.clone(),
        bound,
        bearer: tunnel.authority.bearer().cloned(),
    };
    let Ends {
        mut recorder,
        first,
        mut upstream,
        downstream,
    } = ends;
    let target = tunnel.permit.target().clone();
    let adopted = match upstream.take() {
        Some(upstream) => {
            let (context, reached) = (current.now(), tunnel.reached.clone());
            forward::adopt(&context, &identity, &policy, &target, upstream, reached).await
        }
        None => Adopted::default(),
    };
    let buffer = BytesMut::from(first.as_slice());
    let scope = Scope::Inside {
        target,
        identity,
        adopted,
        requests: Arc::default(),
    };
    match forward::serve_while(downstream, buffer, peer, current, scope, Some(&mut tunnel)).await {
        Some(lost) => lost.cut(&mut recorder),
        None => recorder.ended(Outcome::Completed, Party::Downstream),
    }
    // The record first, then the place: who sees room sees the record.
    drop(recorder);
    drop(slot);
}

#[cfg(test)]
mod tests {
    use super::{Arc, Current, Downstream, Guarded, Opened, SocketAddr, carry};

    /// A way to call [`carry`].
    type Carry<F> = fn(Guarded<Downstream>, Vec<u8>, Opened, SocketAddr, Arc<Current>) -> F;

    fn size<F: Future>(_: Carry<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tunnel_holds_little() {
        let size = size(carry);
        assert!(size <= 2816, "{size}");
    }
}
