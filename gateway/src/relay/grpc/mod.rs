//! gRPC calls to host services, whatever brings them: carried over HTTP/2, frame by frame.
//!
//! What lives here: one call from its permit to its end ([`Call`]), what a refusal is to its client ([`Status`]), and streams that
//! carry calls (`carry`). What does
//! not: how calls arrive on a listener and which service they mean (`front::grpc`), and who decides (`sluicegate_policy`).
//!
//! Nothing of gRPC is interpreted but the path and the refusals: messages, metadata, deadlines and trailers pass as they
//! are, resets with their codes. Credentials of ours do not.

mod authority;
mod call;
mod exchange;
mod lent;
mod status;
mod stream;

pub use call::{BINDING, Call, TOKEN};
pub use status::Status;
pub(super) use stream::carry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
