//! What must happen, input by input: every row of the table in `docs/conformance.md` that the wire can show, as a named test.
//!
//! Witnesses are the DNS server's query log and the upstream's byte log, not only the answer. [`table`] holds the rows, and
//! the document is written from it; each test says which fronts it went through, and must have gone through all of its row's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod addresses;
mod chaining;
mod corpora;
mod dns;
mod form;
mod forms;
mod h2;
mod hello;
mod hosts;
mod identity;
mod lab;
mod limits;
mod ports;
mod sandbox;
mod smuggling;
mod socks;
mod streams;
mod table;
mod tap;
mod tls;
