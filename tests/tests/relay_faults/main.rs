//! The relay on bad networks, under frozen readers, through restarts and in crowds.
//!
//! `network`: namespaces with limits, losses, silence and new addresses, which take root. `link`: delay and loss in user
//! space, from seeds. `crowd`: many streams at once. `full`: more of them than a connection has room for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod crowd;
mod full;
mod lab;
mod link;
mod network;
