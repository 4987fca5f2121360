//! What the two ends of the relay say to each other: pure, no IO, no clock, no async.
//!
//! What lives here: the `connect-tcp` token and its paths ([`Handshake`]), and the capsules that carry a TCP stream over
//! HTTP ([`capsule`]). What does not: sockets, HTTP connections, credentials, policy.

pub mod capsule;
mod handshake;
mod version;

pub use handshake::{Handshake, PathError, egress_path, service_path};
pub use version::{ALPN_H2, ALPN_HTTP1, CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, CONNECT_TCP};
