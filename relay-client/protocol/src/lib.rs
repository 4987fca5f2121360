//! What the two ends of the relay say to each other: pure, no IO, no clock, no async.
//!
//! What lives here: the `connect-tcp` token and its paths ([`Handshake`]), the capsules that carry a TCP stream over
//! HTTP ([`capsule`]), what keeps an open from happening twice ([`Once`]), and what stands in front of the bytes on a QUIC connection of our own: the head of each stream
//! ([`preamble`]), the control stream's messages ([`message`]) and the error codes ([`ErrorCode`]). What does not:
//! sockets, connections, credentials, policy.
//!
//! Sections of draft-ietf-httpbis-connect-tcp, here and elsewhere, are those of its revision -09; later ones keep their names.

pub mod capsule;
mod code;
mod handshake;
pub mod message;
mod once;
pub mod preamble;
pub mod varint;
mod version;

pub use code::ErrorCode;
pub use handshake::{
    Handshake, PROOF_PATH, PathError, TOKEN_PATH, asked_name, egress_path, listener_path,
    name_path, service_path,
};
pub use once::{INSTANCE, Instance, ONCE, Once};
pub use version::{
    ALPN_H2, ALPN_H3, ALPN_HTTP1, ALPN_RELAY, CAPSULE_PROTOCOL, CAPSULE_PROTOCOL_TRUE, CONNECT_TCP,
    TAKEN,
};
