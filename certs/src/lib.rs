//! Keys, certificates and trust.
//!
//! What lives here: the private authority and what it issues, identities read from files, the keys of clients and what they prove, trust bundles, and `tls`,
//! the only place that builds rustls configurations. What does not: sockets, handshakes in progress, policy.
//! The cryptography is aws-lc-rs, passed explicitly everywhere: where two providers end up in one binary, rustls'
//! implicit default panics.

mod authority;
mod client_key;
mod error;
mod files;
mod identity;
mod leaf;
mod leaf_cache;
mod sealing;
pub mod tls;
mod trust;

pub use authority::Authority;
pub use client_key::{Channel, ClientKey, Thumbprint, ThumbprintError, proven, split_proof};
pub use error::CertError;
pub use files::directory_of;
pub use identity::{Identity, ServerIdentity};
pub use leaf_cache::LeafCache;
pub use trust::TrustBundle;

#[cfg(test)]
mod handshake;
