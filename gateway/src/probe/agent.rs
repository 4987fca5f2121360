//! Probes from elsewhere: an agent on another machine is lent the probe's own session for one run, makes the checks of
//! the way in from there, and reports what it found.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sluicegate_certs::{CertError, TrustBundle, tls};
use sluicegate_policy::Target;
use sluicegate_relay_protocol::ALPN_RELAY;

use super::{
    check::{Check, Finding},
    plan::{Maker, Road, Way, resolution},
    run::{self, Credentials, Found},
    track::Last,
};
use crate::{
    clock::unix_seconds,
    egress::{ResolveError, Resolver, ResolverConfig},
    secret::Secret,
    session::OwnSession,
};

/// A run that was begun and not reported by then is over; whoever made it has gone.
pub(super) const TURN: Duration = Duration::from_secs(60);

/// The run an agent makes now.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: String,
    pub(super) until: Instant,
    /// Lives as long as the run.
    pub(super) _own: OwnSession,
}

/// Why an agent is given nothing, or its report not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AgentError {
    /// `probe.from` is `self`.
    #[error("this gateway probes itself: probe.from is self")]
    NotAsked,
    /// No listener takes sandboxes.
    #[error("there is no public listener to probe")]
    NoRoad,
    /// Another agent's run is under way.
    #[error("another agent is probing; its run ends within a minute")]
    Busy,
    /// Reported for a run that is over, or never was.
    #[error("no such run is under way: begin one")]
    NoTurn,
    /// No key signs, or there is no randomness.
    #[error("no token can be minted")]
    Mint,
}

/// What an agent is told: where, with what, against what.
pub(super) fn lent(way: &Way, id: &str, own: &OwnSession, ca_pem: Option<&str>) -> Value {
    json!({
        "run": id,
        "publicUrl": way.road.url(),
        "quic": way.road.quic.is_some(),
        "certificateSetting": way.road.certificate_setting,
        "caPem": ca_pem,
        "relayToken": own.relay.reveal(),
        "egressToken": own.egress.reveal(),
        "origin": way.own_canary.to_string(),
        "canary": way.canary.as_ref().map(Target::to_string),
        "timeoutMilliseconds": u64::try_from(way.timeout.as_millis()).unwrap_or(u64::MAX),
        "seconds": TURN.as_secs(),
    })
}

/// One finding of a report: `Err` names what is wrong with it.
pub fn reported(
    name: &str,
    outcome: &str,
    why: (String, String),
    took: u64,
) -> Result<Reported, String> {
    let check = Check::of_way(name).ok_or_else(|| format!("{name:?} is no check of the way in"))?;
    let (reason, setting) = why;
    let finding = match outcome {
        "pass" => Finding::Pass,
        "fail" => Finding::Fail { reason, setting },
        "unknown" => Finding::Unknown(reason),
        other => return Err(format!("{other:?} is not pass, fail or unknown")),
    };
    Ok(Reported {
        check,
        finding,
        took,
    })
}

/// A finding an agent made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    check: Check,
    finding: Finding,
    took: u64,
}

impl Reported {
    /// As if found here, now: clocks of two machines may differ.
    pub(super) fn into_found(all: Vec<Self>) -> Found {
        let at = unix_seconds(std::time::SystemTime::now());
        let last = |one: Self| {
            let last = Last {
                finding: one.finding,
                at,
                took: one.took,
            };
            (one.check, last)
        };
        all.into_iter().map(last).collect()
    }
}

/// What keeps an agent from making the checks it was lent the means for.
#[derive(Debug, thiserror::Error)]
pub enum LentError {
    /// The gateway's answer is not what an agent is told.
    #[error("the gateway's answer has no usable {0}")]
    Malformed(&'static str),
    /// TLS.
    #[error("cannot set up TLS")]
    Tls(#[from] CertError),
    /// Names.
    #[error("cannot set up name resolution")]
    Resolver(#[from] ResolveError),
}

/// Make the checks of the way in from here, as lent. Gives the report.
///
/// # Errors
/// What was lent cannot be used.
pub async fn run_lent(lent: &Value, resolve: &[IpAddr]) -> Result<Value, LentError> {
    let text = |key: &'static str| lent.get(key).and_then(Value::as_str);
    let needed = |key: &'static str| text(key).ok_or(LentError::Malformed(key));
    let url = needed("publicUrl")?;
    let (tls, authority) = match url.split_once("://") {
        Some(("https", authority)) => (true, authority),
        Some(("http", authority)) => (false, authority),
        Some(_) | None => return Err(LentError::Malformed("publicUrl")),
    };
    let target =
        Target::from_authority(authority).map_err(|_| LentError::Malformed("publicUrl"))?;
    let mut trust = TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty());
    if let Some(pem) = text("caPem") {
        trust = trust.with_pem(pem.as_bytes())?;
    }
    let quic = tls
        && lent
            .get("quic")
            .and_then(Value::as_bool)
            .unwrap_or_default();
    let milliseconds = lent.get("timeoutMilliseconds").and_then(Value::as_u64);
    let origin = needed("origin")?.parse::<SocketAddr>();
    let canary = text("canary").map(Target::from_authority).transpose();
    let milliseconds = milliseconds.ok_or(LentError::Malformed("timeoutMilliseconds"))?;
    let timeout = Duration::from_millis(milliseconds);
    let names = ResolverConfig::default();
    let way = Way {
        maker: Maker::Agent,
        road: Road {
            target,
            tls,
            resolve: resolve.to_vec(),
            h2: tls::client(&trust, &[b"h2"], None)?,
            h1: tls::client(&trust, &[b"http/1.1"], None)?,
            quic: if quic {
                Some(tls::quic_client(&trust, &[ALPN_RELAY])?)
            } else {
                None
            },
            certificate_setting: if text("certificateSetting") == Some("tls.certificate") {
                "tls.certificate"
            } else {
                "tls.names"
            },
        },
        timeout,
        resolver: Resolver::new(&ResolverConfig {
            max_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            timeout: resolution(names.timeout, timeout),
            ..names
        })?,
        own_canary: origin.map_err(|_| LentError::Malformed("origin"))?,
        canary: canary.map_err(|_| LentError::Malformed("canary"))?,
    };
    let credentials = Credentials {
        relay: Secret::new(needed("relayToken")?),
        egress: Secret::new(needed("egressToken")?),
    };
    let found = run::way_in(&Arc::new(way), &credentials).await;
    Ok(json!({ "run": needed("run")?, "checks": report(&found) }))
}

fn report(found: &Found) -> Vec<Value> {
    let one = |(check, last): (&Check, &Last)| {
        let (outcome, reason, setting) = match &last.finding {
            Finding::Pass => ("pass", None, None),
            Finding::Fail { reason, setting } => ("fail", Some(reason), Some(setting)),
            Finding::Unknown(why) => ("unknown", Some(why), None),
        };
        let mut value =
            json!({ "name": check.to_string(), "outcome": outcome, "milliseconds": last.took });
        if let Some(fields) = value.as_object_mut() {
            fields.extend(reason.map(|reason| ("reason".to_owned(), reason.as_str().into())));
            fields.extend(setting.map(|setting| ("setting".to_owned(), setting.as_str().into())));
        }
        value
    };
    found.iter().map(one).collect()
}
