//! The end of a QUIC connection, told whatever is on the way.
//!
//! CONNECTION_CLOSE elicits no acknowledgement and takes no part in congestion control (RFC 9002 §2). quinn holds it back like
//! payload while there is payload beside it, and a closed connection hears no acknowledgement that would make room: the peer
//! would learn of the end by its idle timeout, and never why. So the window is without a bound from that moment on; what is
//! sent then is that one frame.
//!
//! It is the same place that hears of acknowledgements, which are counted here.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use quinn::{
    VarInt,
    congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig},
};
use quinn_proto::RttEstimator;

/// Close a connection with this code and reason. The peer is told of it at once, where the connection was made with
/// [`tuning`](super::tuning)'s configuration.
pub fn close(connection: &quinn::Connection, code: VarInt, reason: &[u8]) {
    if let Some(controller) = controller(connection) {
        controller.closing.store(true, Ordering::Relaxed);
    }
    connection.close(code, reason);
}

/// How many times the peer has acknowledged something that it had not acknowledged before.
pub(crate) fn answered(connection: &quinn::Connection) -> u64 {
    controller(connection).map_or(0, |controller| controller.answered.load(Ordering::Relaxed))
}

fn controller(connection: &quinn::Connection) -> Option<Box<Closable>> {
    let controller = connection.congestion_state().into_any();
    controller.downcast().ok()
}

/// Makes a controller for each path.
pub(super) fn controllers() -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(Factory(Arc::default()))
}

struct Factory(Arc<CubicConfig>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Closable {
            inner: self.0.clone().build(now, current_mtu),
            closing: Arc::default(),
            answered: Arc::default(),
        })
    }
}

/// quinn's usual one, until the connection is closed.
struct Closable {
    inner: Box<dyn Controller>,
    /// The copies that quinn gives out share it.
    closing: Arc<AtomicBool>,
    /// Acknowledgements of something new; shared likewise.
    answered: Arc<AtomicU64>,
}

impl Controller for Closable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        // Only of what asks to be acknowledged: of what does not, it may come long after.
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.closing.load(Ordering::Relaxed) {
            u64::MAX
        } else {
            self.inner.window()
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            closing: self.closing.clone(),
            answered: self.answered.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
