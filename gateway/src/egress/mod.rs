//! Out to the internet, by name: decide → resolve → admit → dial → judge first bytes → tunnel. Dialled from here, or by the
//! operator's own proxy (`proxy`).
//!
//! The fronts bring a session and a target; everything after that is here, and the same for all of them.

mod close;
mod dial;
mod gate;
mod pipeline;
mod proxy;
mod pump;
mod resolve;
mod rewind;
mod splice;
mod standing;
#[cfg(test)]
pub(crate) mod testing;
mod tunnel;
mod upstream;
mod ways;

pub use close::{Abort, Guarded, linger_close};
pub use dial::{DialError, Dialled, Dialler};
pub use gate::is_http;

pub use pipeline::{Egress, Opened, Timeouts};
pub use proxy::{AskFor, Login, Speaks, UpstreamProxy};
pub use pump::{Activity, End, Pump};
pub use resolve::{NameServer, ResolveError, Resolved, Resolver, ResolverConfig};
pub use rewind::Rewind;
pub use standing::{Asked, InForce, Known, still_allowed};
pub use tunnel::{ACCESS_DENIED, Carried, Ends, Tunnel};
pub use upstream::{Carrier, Upstream};
pub use ways::{Reached, Ways};
