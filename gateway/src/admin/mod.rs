//! The operators' door: sessions, policy, events and health over HTTP, on the management listener and a unix socket.
//!
//! Here live routes, their guard and their answers. What a session is lives in `session`; listening on TCP and the
//! choice of addresses are the composition root's.

mod access;
mod capabilities;
mod control;
mod events;
mod guard;
mod logs;
mod openapi;
mod owners;
mod page;
mod placement;
mod policy;
mod probe;
mod problem;
mod providers;
mod request;
mod routes;
mod seats;
mod server;
mod sessions;
mod state;
mod veil;
mod wait;
mod webhooks;

pub use policy::Trials;
pub use problem::Problem;
pub use seats::{Seat, Seats};
pub use server::{router, serve_connection, serve_unix};
pub use state::{BoxFuture, State};
