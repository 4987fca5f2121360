//! Connections to the gateway: QUIC, HTTP/2 over TLS (or without it on a private network), the race between them, and for
//! middleboxes HTTP/1.1, a connection upgraded anew for each stream.

mod adaptive;
pub mod batch;
pub mod closing;
mod connection;
mod endpoint;
mod error;
mod h1;
mod h2;
mod hearing;
pub mod inbound;
mod life;
mod places;
mod prover;
mod quic;
mod race;
mod seats;
pub mod tuning;
pub mod upgrade;
mod why;
pub mod windows;

pub use self::h2::Connection as H2Connection;
pub use connection::{Choice, ChoiceError, Connection, Tls, Transport};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Answer, CONNECT_TIMEOUT, ConnectError, OpenError, Refused};
pub use quic::Connection as QuicConnection;
pub use race::{FIRST, Racer, Won};
pub use seats::Seat;
pub use why::{Reason, Why};
