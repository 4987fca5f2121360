//! Policy documents of other systems, read into ours: the same list must mean the same thing wherever it was written.
//!
//! `system.rs` is the door; one file per system reads that system's document; `draft.rs` collects what they found and
//! makes our document of it. An importer never widens silently: what has no equivalent here is a fault at the place
//! where it stands, and what is stricter here, or means nothing, is a note.
//!
//! What lives here: other systems' grammars and rules of precedence. What does not: our own grammar, which is asked.

mod docker;
mod draft;
mod dreadnode;
mod gestalt;
mod gondolin;
mod just_bash;
#[cfg(test)]
mod oracles;
mod smokescreen;
mod system;
#[cfg(test)]
mod tests;

pub use gestalt::import_gestalt_claims;
pub use system::{Choices, Imported, System, import};

use draft::{Draft, block, bracketed, has_whole_name, refuse};
