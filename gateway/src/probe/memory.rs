//! What is known, and what was told of it.

use std::{collections::BTreeMap, time::SystemTime};

use sluicegate_policy::Proof;

use super::{
    check::Check,
    plan::Plan,
    proof::{self, Tracks},
    report::Published,
    track::{State, Track},
};
use crate::clock::unix_seconds;

/// What was found so far, and what was published of it.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) tracks: Tracks,
    /// Relay clients on other machines, looked at with each run: they can stand for one check of the way in.
    pub(super) clients: Track,
    pub(super) published: BTreeMap<String, Published>,
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

    pub(super) fn proofs(&self) -> (Proof, Proof) {
        let connected = matches!(self.clients.state(), Some((State::Works, _)));
        (
            proof::relay(&self.tracks, connected),
            proof::proxy(&self.tracks),
        )
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
