//! `sluicegate run` and `sluicegate-relay run`: what is allowed works unchanged, and there is no other way out.
//!
//! Each test runs in a network namespace of its own (`outer`), in which addresses of the internet, of a LAN and of the
//! host's loopback have listeners that would notice, and a packet capture that sees whatever is not loopback to loopback.
//! Nothing can leave the machine even where confinement fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod clients;
mod datagrams;
mod devices;
mod ends;
mod forbidden;
mod kernel;
mod kills;
mod names;
mod outer;
mod private;
mod relay;
mod sockets;
mod terminal;
mod upstream;
mod walls;
