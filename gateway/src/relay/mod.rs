//! Host services, by name: who may open which, where it is, and the bytes between.
//!
//! What lives here: opening a service ([`Services`]), one relay stream from its request to its end, the pooled
//! connections of the gRPC path, and the other direction ([`Reverse`]): listeners of sandboxes that their hosts dial. What does not: how requests arrive (`front`), the stream semantics themselves
//! (`sluicegate_relay::flow`), and who decides (`sluicegate_policy`).

mod endpoint;
pub mod grpc;
mod health;
mod http;
mod metered;
mod opens;
mod place;
mod pool;
mod presence;
mod proxy_protocol;
mod reverse;
mod services;
mod socket;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::http::HttpContext;
pub use endpoint::{Endpoint, Open};
pub use opens::Opens;
pub use pool::{Pool, Upstream};
pub use presence::{Presence, Present};
pub use reverse::{Dialled, Reverse, Waiting};
pub use services::{Resolve, ServiceFailure, Services, ServicesConfig};
pub use stream::{Spending, Ticket};
