//! What happened: one access record per tunnel, request and stream, and the metrics drawn from it.
//!
//! Nothing here imports what it measures: the fronts fill a [`Recorder`], whose drop writes.

mod access;
mod counters;
mod handles;
mod histogram;
mod init;
mod kept;
mod labels;
mod line;
mod live;
mod metrics;
mod parts;
mod queue;
mod recorder;
mod refusals;
mod whose;

pub use access::{AccessLog, AccessSink};
pub use counters::{Counters, Motion, Wait};
pub use handles::WaitingGuard;
pub use init::init_logging;
pub use labels::{Front, Kind, Protocol, TransportLabel};
pub use metrics::Metrics;
pub use recorder::{Recorder, Telemetry};
pub use whose::{Caller, OWN_PROVIDER, SessionLabel, Speaker};
