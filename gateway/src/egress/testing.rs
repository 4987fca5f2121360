//! A way out for tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use sluicegate_policy::Admission;

use super::{Egress, Resolver, ResolverConfig, Timeouts};

/// From here, with nothing but what is usual.
pub(crate) fn egress() -> Egress {
    Egress {
        resolver: Resolver::new(&ResolverConfig::default()).unwrap(),
        admission: Arc::new(Admission::default()),
        timeouts: Timeouts::default(),
        proxy: None,
    }
}
