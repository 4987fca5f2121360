//! Policy documents: text to types, all faults at once, and within the operator's ceiling.
//!
//! `model.rs` is what a document says; `read_*.rs` turns text into it, `write.rs` back; `merge.rs` lays documents over
//! each other; `compile.rs` makes the [`Grant`](crate::Grant), `ceiling.rs` holds the operator's bound on it, `compile_rules.rs` judges rules: `enforceable.rs` whether they can be kept, `within.rs` what they are to those below; `foreign.rs` makes one of a
//! policy that somebody else wrote.

#[cfg(test)]
mod bounds_tests;
mod ceiling;
mod compile;
mod compile_rules;
mod enforceable;
#[cfg(test)]
mod expose_tests;
mod foreign;
#[cfg(test)]
mod layer_tests;
mod merge;
mod model;
mod read_egress;
mod read_expose;
mod read_service;
#[cfg(test)]
mod tests;
mod within;
mod write;

pub use ceiling::{Author, Ceiling};
pub use model::{EgressDocument, ExposeDocument, GrantDocument, LimitsDocument, ServiceDocument};

pub(crate) use model::{RuleDocument, Written};
pub(crate) use read_service::is_method;

use read_egress::{entries, strings};
use read_service::read_http_rule;
