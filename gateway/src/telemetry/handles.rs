//! What is looked up once of the metrics, and held by what moves them.

use std::sync::OnceLock;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::histogram::OpenSeconds;

/// What every tunnel, request or stream of one kind moves: looked up once, and not for each of them.
#[derive(Debug)]
pub(super) struct OfKind {
    pub(super) open: Gauge,
    pub(super) up: Counter,
    pub(super) down: Counter,
    pub(super) open_seconds: OpenSeconds,
    /// By front, those that were completed in order, as most are. Each is there from the first such end on.
    pub(super) completed: [OnceLock<Counter>; FRONTS],
}

/// So many [fronts](super::labels::Front) there are; those of one above it would be looked up each time.
pub(super) const FRONTS: usize = 11;

/// Downstream connections that come in one way.
#[derive(Debug)]
pub struct Connections {
    pub(super) accepted: Counter,
    pub(super) open: Gauge,
}

impl Connections {
    /// One came in; the guard's drop takes it off the gauge.
    pub fn begin(&self) -> ConnectionGuard {
        self.accepted.inc();
        self.open.inc();
        ConnectionGuard(self.open.clone())
    }
}

/// One open downstream connection.
#[derive(Debug)]
pub struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One waiting accept stream, or one dial under way.
#[derive(Debug)]
pub struct WaitingGuard(pub(super) Gauge);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
