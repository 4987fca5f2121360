//! The gateway proves itself: probes go out of it and in again by its public URL, as a sandbox would come.
//!
//! What lives here: the checks ([`Check`]) and how one is made (`road`, `relay`, `proxy`), what they are made against
//! (`inside`: an echo service and a canary that only the probe's own session reaches), how results become states
//! (`track`, pure) and states become effective profiles (`proof`, pure), the task that does it all ([`Prober`]), and agents that make the
//! checks of the way in from elsewhere (`agent`).
//! What does not: the rules of the effective profile (`sluicegate_policy`), how a service's health is asked for
//! (`relay`), which services a provider's sessions can be granted (`session`), routes (`admin`).

mod agent;
mod check;
mod inside;
mod memory;
mod plan;
mod prober;
mod proof;
mod proxy;
mod relay;
mod report;
mod road;
mod run;
#[cfg(test)]
pub(crate) mod testing;
mod track;
mod untold;

pub use agent::{AgentError, LentError, Reported, reported, run_lent};
pub use check::{Check, Finding};
pub use inside::{Inside, Targets};
pub use plan::{Asked, Maker, Plan, Road, Way, resolution};
pub use prober::{Probed, Prober};
