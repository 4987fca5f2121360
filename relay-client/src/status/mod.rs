//! How the client is, for people and machines: `/status` (JSON), `/metrics` (Prometheus), `/healthz`.
//!
//! Rooms: `stats` counts, `serve` answers.

mod guard;
mod serve;
mod stats;

pub use serve::{Board, ask, serve};
pub use stats::{Open, Stats};
