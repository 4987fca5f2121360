//! The proxy over HTTP/2: classic CONNECT and `connect-tcp`, many tunnels on one connection, and plain requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod requests;
mod stage;
mod tunnels;
