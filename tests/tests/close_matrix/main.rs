//! How the ends of streams and tunnels travel: every way in, both sides, every kind of end, over TCP and over unix sockets.
//! `docs/close-matrix.md` is written from [`table`] and [`unix`]; [`random`] and [`faults`] look for what nobody thought of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod act;
mod carrier;
mod faults;
mod lab;
mod random;
mod stream;
mod table;
mod together;
mod unix;
