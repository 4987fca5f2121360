//! Address classes from the IANA special-purpose registries, embedded IPv4 included.
//!
//! `table.rs` is the registries as data; `embedded.rs` finds the IPv4 addresses an IPv6 address stands for;
//! `classify.rs` puts both together. What an exception permits is not decided here.

mod classify;
mod embedded;
mod table;
#[cfg(test)]
mod tests;

pub use classify::{AddressClass, classify};
pub use embedded::{Nat64Prefix, canonical_net};

pub(crate) use classify::is_special_range;
pub(crate) use embedded::{canonical, embedded, spelled_out};
pub(crate) use table::{METADATA, METADATA_NAMES};
