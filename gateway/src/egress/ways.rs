//! The way out that is in force, for what outlives the configuration it was opened under.

use std::{net::SocketAddr, sync::Arc};

use sluicegate_policy::{AddressPermit, Refusal, Target, TargetPermit};
use tokio::sync::watch;

use super::{Egress, Opened, UpstreamProxy};
use crate::{session::PolicyGeneration, telemetry::Recorder};

/// Where something open leads, and by whom.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The judged address.
    pub address: SocketAddr,
    /// The operator's proxy that was asked for it; `None` = it was dialled from here.
    pub by: Option<Arc<UpstreamProxy>>,
}

/// The way out of now; a reload puts another in its place.
#[derive(Debug)]
pub struct Ways(watch::Sender<Arc<Egress>>);

impl Ways {
    /// This one, until another takes its place.
    pub fn new(egress: Arc<Egress>) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(egress)))
    }

    /// The one in force.
    pub fn now(&self) -> Arc<Egress> {
        self.0.borrow().clone()
    }

    /// Another is in force. What is being opened is begun anew by it; who has something open has to be woken apart.
    pub fn replace(&self, egress: Arc<Egress>) {
        self.0.send_replace(egress);
    }

    /// As [`Egress::open`], by the one in force. Where another takes its place meanwhile, what was begun is given up: no name is
    /// asked for nor an address dialled by what is no longer in force.
    ///
    /// # Errors
    /// As [`Egress::open`].
    pub async fn open(
        &self,
        policy: &PolicyGeneration,
        permit: &TargetPermit,
        recorder: &mut Recorder,
    ) -> Result<Opened, Refusal> {
        let mut changes = self.0.subscribe();
        loop {
            let egress = changes.borrow_and_update().clone();
            tokio::select! {
                biased;
                // It cannot fail while the sender lives, which is ours.
                Ok(()) = changes.changed() => {
                    // What is noted of the way that was given up would be read as if it had been taken.
                    recorder.detail("begun anew: another configuration is in force");
                }
                opened = egress.open(policy, permit, recorder) => return opened,
            }
        }
    }
}

impl Egress {
    /// Would what leads to `target` at an address that is admitted, `by` the operator's proxy or from here, be let out so by this
    /// one? What went directly past a proxy that must be asked would not be, nor what a proxy carries that is no longer the way
    /// out. Where the list of those it is not asked for has grown, what it carries already may go on.
    pub(super) fn still_leads(
        &self,
        target: &Target,
        admitted: &[AddressPermit],
        by: Option<&UpstreamProxy>,
    ) -> bool {
        match (self.proxy.as_deref(), by) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some(proxy), None) => proxy.bypassed(target, admitted),
            (Some(proxy), Some(by)) => proxy.is_the_way_of(by),
        }
    }
}

#[cfg(test)]
mod tests;
