//! The one decision, and the permits only it can make.
//!
//! `judge.rs` holds the order of precedence; [`decide`] and [`explain`] both tell what it found, `name.rs` asks it of a name
//! without a port. `admit.rs` judges addresses, `own.rs` knows the gateway's own and `interfaces.rs` the host's, `first_bytes.rs` what a tunnel began with, `relief.rs` what would let it pass, `service.rs` relay streams, `supposed.rs` what may be asked about beside, `permit.rs` holds the keys to what lies behind.

mod admit;
mod explain;
mod first_bytes;
#[cfg(test)]
mod hints;
mod interfaces;
mod judge;
mod name;
mod own;
mod permit;
#[cfg(test)]
mod properties;
mod relief;
mod service;
mod supposed;
#[cfg(test)]
mod tests;

pub use admit::{Admission, MixedAnswers, admit, admit_one, decide_at};
pub use explain::{Explanation, explain, explain_supposing};
pub use first_bytes::{FirstBytes, Hello};
pub use interfaces::Interfaces;
pub use judge::decide;
pub use name::decide_name;
pub use own::{DialPorts, OwnAddresses};
pub use permit::{
    AddressPermit, CallsPermit, ListenerPermit, ServicePermit, StreamPermit, TargetPermit,
};
pub use service::{decide_listener, decide_service, decide_stream};
pub use supposed::Supposed;
