//! The relay from a program's socket to a service's, through TLS and HTTP/2, and back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod authority;
mod bulk;
mod closes;
mod upgrade;
