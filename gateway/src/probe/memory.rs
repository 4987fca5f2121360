//! What is known, and what was told of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use sluicegate_policy::Proof;

use super::{
    check::Check,
    plan::Plan,
    proof::{self, Tracks},
    report::Published,
    track::{State, Track},
    untold::Untold,
};
use crate::{clock::unix_seconds, session::HostService};

/// What was found so far, and what was published of it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) tracks: Tracks,
    /// Relay clients on other machines, looked at with each run: they can stand for one check of the way in.
    pub(super) clients: Track,
    pub(super) published: BTreeMap<String, Published>,
    /// Changes of it that are not recorded yet.
    pub(super) untold: Untold,
    /// The host services that sessions of each provider can be granted.
    pub(super) granted: BTreeMap<String, BTreeSet<HostService>>,
}

impl Memory {
    /// Every track that something follows from.
    pub(super) fn counting(&self) -> impl Iterator<Item = &Track> {
        self.tracks.values().chain(self.clients())
    }

    /// Relay clients on other machines, where something follows from them: this gateway cannot reach its own public URL.
    pub(super) fn clients(&self) -> Option<&Track> {
        proof::is_cut_off(&self.tracks).then_some(&self.clients)
    }

    /// Relay and proxy as this provider's sessions depend on them; `None` where the plan does not know it.
    pub(super) fn proofs(&self, provider: &str) -> Option<(Proof, Proof)> {
        let granted = self.granted.get(provider)?;
        let relay = self.relay(|service| granted.contains(service));
        Some((relay, proof::proxy(&self.tracks)))
    }

    /// Relay and proxy with every host service that anybody can be granted.
    pub(super) fn all_proofs(&self) -> (Proof, Proof) {
        (self.relay(|_| true), proof::proxy(&self.tracks))
    }

    fn relay(&self, services: impl Fn(&HostService) -> bool) -> Proof {
        let connected = matches!(self.clients.state(), Some((State::Works, _)));
        proof::relay(&self.tracks, services, connected)
    }

    /// The checks that this provider's effective profile rests on, with what is known of them.
    pub(super) fn tracks_for(&self, provider: &str) -> impl Iterator<Item = (&Check, &Track)> {
        let granted = self.granted.get(provider);
        self.tracks.iter().filter(move |(check, _)| match check {
            Check::Service(service) => granted.is_some_and(|granted| granted.contains(service)),
            _ => true,
        })
    }
}

/// The plan's checks, with what is known of them.
pub(super) fn tracks_of(plan: &Plan, mut known: Tracks) -> Tracks {
    if plan.name.is_none() {
        let why = "there is no name to ask for: set probe.name";
        let unasked = Track::unasked(why, unix_seconds(SystemTime::now()));
        known.insert(Check::Resolver, unasked);
    }
    let with_track = |check: Check| {
        let track = known.remove(&check).unwrap_or_default();
        (check, track)
    };
    plan.checks().into_iter().map(with_track).collect()
}
