//! The admin API as a contract: each route is registered together with what it takes and answers, and from that one
//! declaration come the OpenAPI 3.1 document and the checks in front of the route.
//!
//! What lives here: declarations ([`Operation`]), the table they are gathered in ([`Api`]), the document, the schemas.
//! What does not: what a route does.

mod api;
mod operation;
mod schemas;
pub(super) mod shape;

pub(super) use api::{Api, delete, get, patch, post};
pub(super) use operation::{Media, Operation};
