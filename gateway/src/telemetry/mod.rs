//! What happened: one access record per tunnel, request and stream, and the metrics drawn from it.
//!
//! Nothing here imports what it measures: the fronts fill a [`Recorder`], whose drop writes.

mod access;
mod counters;
mod histogram;
mod init;
mod kept;
mod line;
mod live;
mod metrics;
mod queue;
mod recorder;
mod refusals;

pub use access::{AccessLog, AccessSink};
pub use counters::{Counters, Motion, Wait};
pub use init::init_logging;
pub use metrics::{Metrics, TransportLabel, WaitingGuard};
pub use recorder::{
    Caller, Front, Kind, OWN_PROVIDER, Protocol, Recorder, SessionLabel, Speaker, Telemetry,
};
