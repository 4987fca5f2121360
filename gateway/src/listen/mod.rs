//! Taking connections: sockets, PROXY headers, TLS, and the limit on how many. What is asked on them is the fronts' concern.

mod arrival;
mod downstream;
mod original_dst;
mod places;
mod tcp;
mod udp;

use arrival::Lost;
pub use arrival::{Accepted, Arrival, Preface, Trust};
pub use downstream::{Downstream, Hangup};
pub use original_dst::{Capture, original_destination};
pub use places::{Full, Place, Places};
pub use tcp::{Carrying, Listener, ListenerKind, accept_loop};
pub use udp::{ResetKey, Shaken, Spoken, UdpListener, accept_quic, flush};
