//! The effective profile: one prerequisite broken at a time, exactly that shortfall, and the recovery.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod door;
mod lab;
mod makers;
mod providers;
mod proxy;
mod road;
mod services;
