//! The end-to-end harness: real processes, real sockets, and witnesses on every side.
//!
//! What lives here: a programmable DNS server ([`dns`]), a test authority ([`ca`]), origins that log what
//! reached them ([`origin`], [`raw`]), the gateway and relay client as child processes ([`gateway`],
//! [`relay`]), its admin API against its document ([`contract`]), sessions made by the real command line ([`session`]), byte-exact clients of the proxy ([`wire`], [`socks`]),
//! one of HTTP/3 ([`h3`], [`h3_streams`]), real programs ([`program`], [`servers`], [`flows`]), and ways between that are bad on purpose ([`link`], [`network`]).
//! What does not: any code of the product.
//!
//! The harness panics when the world is not as a test needs it: it is the test that fails then.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod apart;
pub mod ca;
pub mod capsules;
pub mod contract;
pub mod corpus;
pub mod dns;
pub mod edge;
pub mod flows;
pub mod forwarder;
pub mod frames;
pub mod gateway;
pub mod h3;
pub mod h3_streams;
pub mod late;
pub mod link;
pub mod network;
pub mod origin;
pub mod pipe;
pub mod program;
pub mod raw;
pub mod record;
pub mod relay;
pub mod servers;
pub mod session;
pub mod socks;
pub mod tasks;
pub mod web;
pub mod wire;
pub mod world;

pub use ca::Ca;
pub use contract::Contract;
pub use dns::{Answer, Dns};
pub use edge::{Edge, Manner};
pub use forwarder::Forwarder;
pub use gateway::{Gateway, Settings};
pub use h3::Http3;
pub use late::LateLink;
pub use link::{Break, Link, Towards, Weather};
pub use network::Network;
pub use origin::Origin;
pub use pipe::Pipe;
pub use program::Program;
pub use raw::RawOrigin;
pub use record::Record;
pub use relay::RelayClient;
pub use session::{Ask, Session};
pub use socks::Socks;
pub use tasks::{Tasks, until, within};
pub use wire::Wire;
pub use world::World;
