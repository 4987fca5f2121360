//! Policies tried out: expectations held against one, and access records decided again by it.
//!
//! What lives here: what the command line and the admin API do the same. What is read is given, and nothing is asked of the
//! world. What does not: where a policy comes from, and how the result is shown.

mod expect;
mod records;
mod replay;

use std::sync::Arc;

use sluicegate_policy::{Admission, Grant};

pub(crate) use expect::{Expectation, Tried, supposed, tried_to_json};
pub(crate) use records::{Bytes, Passed, Seen, Verdict, read_lines, read_values};
pub(crate) use replay::{Change, Changes, Difference, Outcome};

/// A policy to decide by, and the settings addresses are admitted by.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) grant: Arc<Grant>,
    pub(crate) admission: Arc<Admission>,
}
