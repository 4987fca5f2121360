//! How the ends of streams and tunnels travel: every way in, both sides, every kind of end. `docs/close-matrix.md` is
//! written from [`table`]; [`random`] and [`faults`] look for what nobody
//! thought of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod act;
mod faults;
mod lab;
mod random;
mod table;
