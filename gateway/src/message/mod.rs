//! HTTP/1 messages as everything that passes them on treats them: read strictly, with the fields that may go on, and
//! refused in one way.
//!
//! What lives here: the strict reader in front of the HTTP library (`Judged`), what can be told of a target that it cannot
//! read (`misspelt`), what of a head is between neighbours only (`headers`), what is left of a refused body (`Lent`), the answer to a refusal (`reject`), and that nobody else says so (`proxy_status`). What does not: where a message goes, and who decides that.

pub(crate) mod headers;
mod judged;
mod lent;
pub(crate) mod misspelt;
pub(crate) mod overrides;
pub(crate) mod proxy_status;
mod reject;

pub(crate) use judged::{Judged, Verdict, denial_of};
pub(crate) use lent::Lent;
pub(crate) use reject::reject;
pub use reject::{Asks, Detail, Manner};
