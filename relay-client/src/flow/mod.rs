//! One byte stream with TCP's ends, whatever carries it: data, FIN, RESET, each way.
//!
//! What lives here: [`Flow`], its forms (sockets, TLS, capsules on an HTTP/2 stream) and [`pump`], which joins two of
//! them. Both ends of the relay use it. What does not: who may open what, and how connections come to be.

mod capsules;
mod chunk;
mod pump;
mod shared;
mod socket;
mod stream;
#[cfg(test)]
mod testing;
mod tls;
mod unix;

pub use capsules::CapsuleFlow;
pub use chunk::Chunk;
pub use pump::{Ending, How, Meter, Side, Timers, pump};
pub use shared::Shared;
pub use socket::SocketFlow;
pub use stream::{Broken, Flow};
pub use tls::TlsFlow;
