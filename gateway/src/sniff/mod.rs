//! What do the first bytes say? Pure, incremental readers that run before any library or upstream sees a byte.
//!
//! Here live the TLS ClientHello reader, the watch for the second hello after a HelloRetryRequest, the messages of SOCKS5, and the
//! PROXY protocol's header. The strict judge of HTTP/1.1 request streams is the sandbox's proxy's too, and lives with it
//! (`sluicegate_relay::request`). Fed in any segmentation they give the same verdicts. No sockets, no clock, no policy: whether a
//! name is the right one, and how long to wait for it, is decided by whoever feeds them.

mod client_hello;
mod hello_watch;
mod message;
pub mod proxy_header;
mod record;
pub mod socks;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#[path = "../../../relay-client/src/request/testing.rs"]
mod testing;

pub use client_hello::{ClientHello, HelloError, MAX_HELLO, MAX_HELLO_WIRE, Reader, Sni, Verdict};
pub use hello_watch::{ClientStep, HelloWatch, ServerStep};
pub use message::Message;
pub use proxy_header::ProxyHeader;
pub use sluicegate_relay::request::{
    Event, Field, Framing, Head, HeadError, Judged, MAX_FIELDS, MAX_HEAD, MAX_TRAILERS,
    RequestStream, Version, is_twin, trailer_may_pass,
};
