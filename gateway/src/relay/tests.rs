//! The relay from a program's socket to a service's, through the gateway, and back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod authority;
mod bulk;
mod closes;
mod places;
mod quic;
mod race;
mod reverse;
mod upgrade;
