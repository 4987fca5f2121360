//! Taking connections: sockets, TLS, and the limit on how many. What is asked on them is the fronts' concern.

mod downstream;
mod places;
mod tcp;
mod udp;

pub use downstream::Downstream;
pub use places::{Full, Place, Places};
pub use tcp::{Accepted, Listener, ListenerKind, accept_loop};
pub use udp::{ResetKey, Spoken, UdpListener, accept_quic, flush};
