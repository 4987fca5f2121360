//! One byte stream with TCP's ends, whatever carries it: data, FIN, RESET, each way.
//!
//! What lives here: [`Flow`], its forms (sockets, TLS, QUIC streams, HTTP/2 streams, capsules on an HTTP/2 stream or an upgraded
//! connection), [`pump`], which joins two of them, and [`FlowIo`] for those who read and write bytes. Both ends of the relay use it. What does not: who may open what, and how connections come to be.

mod ahead;
mod capsules;
mod carrier;
mod chunk;
mod connection;
mod direct;
mod early;
mod halves;
mod held;
mod io;
mod load;
mod prefixed;
mod pump;
mod quic;
mod rest;
mod shared;
mod socket;
mod stream;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod tls;
mod unix;

pub use ahead::Ahead;
pub use capsules::CapsuleFlow;
pub use carrier::Carrier;
pub use chunk::{Chunk, FULL};
pub use connection::Connection;
pub use direct::StreamFlow;
pub use early::{EARLY, Early};
pub use halves::Halves;
pub(crate) use halves::poll_early;
pub use held::Held;
pub use io::FlowIo;
pub use load::{Counted, Load};
pub use prefixed::Prefixed;
pub use pump::{Ending, How, Meter, Pacing, Pump, Side, Timers, pump};
pub use quic::{QuicFlow, QuicReceive, QuicSend, code};
pub use rest::Rest;
pub use shared::{Shared, Tcp};
pub use socket::SocketFlow;
pub use stream::{Broken, Flow};
pub use tally::{Rounds, Tally};
pub use tls::TlsFlow;
pub use unix::connect as connect_unix;
