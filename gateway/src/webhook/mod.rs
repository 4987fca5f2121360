//! Webhooks: lifecycle events told to whoever the operator names, signed, in order, until they are acknowledged.
//!
//! One task per webhook reads the stored events behind its own stored cursor, so that a restart loses nothing. Where
//! it may connect to is decided like any egress: resolve, admit, dial. Routes that show the state live in `admin`.

mod deliver;
mod sign;
mod state;

pub use deliver::{Hook, Reach, run};
pub use sign::signature;
pub use state::{Board, HookState};
