//! How a request arrives. Each front learns `(session, target)` its own way and hands over to one pipeline.
//!
//! [`Entry`] is a listener's: HTTP, SOCKS5, or connections that know of no proxy (`captured`). `http1` owns a connection and judges its first head; CONNECT goes to `connect`, everything else to `forward`
//! behind the strict reader of `message`. [`h2`] serves HTTP/2 and [`h3`] HTTP/3, whose requests are `stream`'s; [`quic`]
//! the relay's own streams. `connect_tcp` is what all versions' forms of it lead to; `upgrade` is HTTP/1.1's.
//! `names` answers the name servers of sandboxes; `path` knows where the client of a QUIC connection has gone.

mod asked;
mod body;
mod captured;
mod client_body;
mod connect;
mod connect_tcp;
mod context;
mod entry;
mod exchange;
mod exposed;
mod forward;
pub mod grpc;
mod guard;
pub mod h2;
pub mod h3;
mod http1;
mod max_forwards;
mod names;
mod paced;
mod path;
mod pool;
pub mod quic;
mod send;
mod socks;
mod standing;
mod stream;
mod token;
mod upgrade;

pub use captured::{Captured, Identify};
pub use context::{Context, Current};
pub use entry::{Entry, serve};
pub use pool::Pool;

pub use crate::message::Detail;
use crate::message::headers;
