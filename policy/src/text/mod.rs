//! Text with positions: one strict reader for YAML and JSON that reports every fault at once.
//!
//! What lives here: the tree ([`Node`]), its readers, and the [`Faults`] they collect. What does not: the meaning of
//! any key.
//!
//! A reader never stops at the first fault: it notes it and returns `None` (or an empty list), and the next key is
//! read. The caller looks at [`Faults::errors`] once, at the end. Absent and `null` differ: an absent key is `None`
//! from [`Fields::take`]; a `null` is a [`Node`] every reader refuses.
//!
//! ```
//! use sluicegate_policy::text::{self, Faults};
//! let mut faults = Faults::default();
//! let root = text::parse("publicUrl: https://g.test\nhosts: [a, b]\nspeling: 1\n", &mut faults);
//! let mut fields = root.fields(&mut faults); // a mapping; anything else is a fault
//! let url = fields.take("publicUrl").and_then(|node| node.string(&mut faults));
//! let hosts = fields.take("hosts").map(|node| node.list(&mut faults)); // Some(&[Node]); absent is None
//! fields.take("spelling");
//! fields.finish(&mut faults); // what was not taken is an unknown key, with a suggestion
//! assert_eq!((url, hosts.map(<[_]>::len)), (Some("https://g.test"), Some(2)));
//! assert_eq!(
//!     faults.to_string(),
//!     "3:1: speling: unknown key \"speling\" (did you mean \"spelling\"?)\n"
//! );
//! ```

mod fault;
mod fields;
mod node;
mod parse;
mod read;
#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults, Path, Place, Position};
pub use fields::Fields;
pub use node::{Kind, Node};
pub use parse::{MAX_BYTES, MAX_DEPTH, MAX_NODES, parse};
