//! Places of streams in their session's budget, and of the calls that streams carry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use sluicegate_policy::{Denial, ServiceName};

use crate::session::{Budget, Destination, Slot};

/// A place of its own. While it carries calls one of them has it, so that a session with one place has one call.
#[derive(Debug)]
pub(super) struct Place {
    _slot: Slot,
    lent: AtomicBool,
}

/// What a call counts as. Dropping it frees the place.
#[derive(Debug)]
pub(super) enum Held {
    /// One of its own.
    Own(Arc<Place>),
    /// That of the stream it came by.
    Lent { _place: Lent },
}

/// A stream's place, had by one of its calls.
#[derive(Debug)]
pub(super) struct Lent(Arc<Place>);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lent.store(false, Ordering::Release);
    }
}

impl Held {
    /// A place for one more stream or call to this service.
    ///
    /// # Errors
    /// As [`Budget::open_to`].
    pub(super) fn open(
        budget: &Arc<Budget>,
        service: ServiceName,
        now: SystemTime,
    ) -> Result<Self, Denial> {
        let slot = budget.open_to(Destination::Service(service), now)?;
        Ok(Self::Own(Arc::new(Place {
            _slot: slot,
            lent: AtomicBool::new(false),
        })))
    }

    /// A place for a call on the stream that has this one: the stream's, or another where some call has that. Each counts as an
    /// open.
    ///
    /// # Errors
    /// As [`Budget::open_to`].
    pub(super) fn open_within(
        &self,
        budget: &Arc<Budget>,
        service: ServiceName,
        now: SystemTime,
    ) -> Result<Self, Denial> {
        match self {
            Self::Own(place) if !place.lent.swap(true, Ordering::AcqRel) => {
                let lent = Lent(place.clone());
                budget.again(now)?;
                Ok(Self::Lent { _place: lent })
            }
            Self::Own(_) | Self::Lent { .. } => Self::open(budget, service, now),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::Arc, time::SystemTime};

    use sluicegate_policy::{Denial, Limits, ServiceName};

    use super::Held;
    use crate::session::Budget;

    fn budget(limits: Limits) -> (Arc<Budget>, ServiceName, SystemTime) {
        let name = ServiceName::parse("echo").unwrap();
        (
            Arc::new(Budget::new(limits, None)),
            name,
            SystemTime::UNIX_EPOCH,
        )
    }

    #[test]
    fn calls_at_once_take_as_many_places_as_there_are_calls() {
        let (budget, name, now) = budget(Limits {
            tunnels: Some(2),
            ..Limits::default()
        });
        let stream = Held::open(&budget, name.clone(), now).unwrap();
        assert_eq!(budget.open_now(), 1);
        let call = || stream.open_within(&budget, name.clone(), now);
        let first = call().unwrap();
        assert_eq!(budget.open_now(), 1);
        let second = call().unwrap();
        assert_eq!(budget.open_now(), 2);
        assert_eq!(call().unwrap_err(), Denial::TooManyTunnels);
        drop(first);
        let third = call().unwrap();
        assert_eq!(budget.open_now(), 2);
        drop((second, third));
        assert_eq!(budget.open_now(), 1);
    }

    #[test]
    fn each_call_is_an_open() {
        let (budget, name, now) = budget(Limits {
            opens_per_second: Some(3),
            ..Limits::default()
        });
        let stream = Held::open(&budget, name.clone(), now).unwrap();
        let call = || stream.open_within(&budget, name.clone(), now);
        for _ in 0..2 {
            drop(call().unwrap());
        }
        assert_eq!(call().unwrap_err(), Denial::TooManyOpens);
        // What was refused has not kept the stream's place.
        budget.set_limits(Limits::default());
        let _call = call().unwrap();
        assert_eq!(budget.open_now(), 1);
    }
}
