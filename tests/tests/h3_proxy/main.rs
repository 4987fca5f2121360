//! The proxy over HTTP/3, with aioquic as the client: the same answers as over HTTP/2, and ends that mean what TCP's mean.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod requests;
mod stage;
mod tunnels;
