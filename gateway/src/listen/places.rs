//! Places for connections: so many in all, and so many of one source.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections there may be.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    per_source: Option<u32>,
    /// Connections by source; none is kept at zero, so it holds no more than are open.
    sources: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection's place; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

/// A connection's place, and its `count` in the metrics. Dropped in the order of these fields: what is no longer counted has left its
/// place.
#[derive(Debug)]
pub(super) struct Seated<C> {
    _place: Place,
    _count: C,
}

impl<C> Seated<C> {
    pub(super) fn new(place: Place, count: C) -> Self {
        Self {
            _place: place,
            _count: count,
        }
    }
}

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// All are taken.
    All,
    /// This source has as many as one source may.
    Source,
}

impl Full {
    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Source => "source",
        }
    }
}

impl Places {
    /// So many in all; `per_source` of one source, `None` = as many as there are.
    pub fn new(all: usize, per_source: Option<u32>) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(all)),
            per_source,
            sources: Mutex::default(),
        })
    }

    /// Take a place for a connection from `source`.
    ///
    /// # Errors
    /// There is none.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Result<Place, Full> {
        let mut place = self.take_unnamed()?;
        place.belongs_to(source)?;
        Ok(place)
    }

    /// Take a place for a connection whose source is yet to be told.
    ///
    /// # Errors
    /// There is none.
    pub fn take_unnamed(self: &Arc<Self>) -> Result<Place, Full> {
        let permit = self
            .all
            .clone()
            .try_acquire_owned()
            .map_err(|_| Full::All)?;
        Ok(Place {
            places: self.clone(),
            source: None,
            _permit: permit,
        })
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Count it as this source's, which it was not yet anybody's.
    ///
    /// # Errors
    /// The source has as many as one source may.
    pub fn belongs_to(&mut self, source: IpAddr) -> Result<(), Full> {
        let Some(max) = self.places.per_source else {
            return Ok(());
        };
        let source = network(source);
        let mut sources = self.places.sources();
        let open = sources.get(&source).copied().unwrap_or(0);
        if open >= max {
            return Err(Full::Source);
        }
        sources.insert(source, open + 1);
        self.source = Some(source);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(source) = self.source else { return };
        let mut sources = self.places.sources();
        if let Some(open) = sources.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// What counts as one source: an IPv4 address; of IPv6 the /64, since a host chooses the rest itself (RFC 4291 §2.5.1).
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_may_not_have_them_all() {
        let places = Places::new(4, Some(2));
        let first = places.take(ip("192.0.2.1")).unwrap();
        let second = places.take(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), Full::Source);
        let other = places.take(ip("192.0.2.2")).unwrap();
        drop(first);
        let again = places.take(ip("192.0.2.1")).unwrap();
        drop((second, other, again));
        assert!(
            places.sources().is_empty(),
            "nothing is kept of who has gone"
        );
    }

    #[test]
    fn a_place_may_learn_later_whose_it_is() {
        let places = Places::new(4, Some(1));
        let mut place = places.take_unnamed().unwrap();
        let mut other = places.take_unnamed().unwrap();
        place.belongs_to(ip("192.0.2.1")).unwrap();
        assert_eq!(other.belongs_to(ip("192.0.2.1")), Err(Full::Source));
        drop((place, other));
        assert!(places.sources().is_empty());
    }

    #[test]
    fn of_ipv6_a_network_counts() {
        let places = Places::new(4, Some(1));
        let _place = places.take(ip("2001:db8::1")).unwrap();
        assert_eq!(places.take(ip("2001:db8::2")).unwrap_err(), Full::Source);
        assert!(places.take(ip("2001:db8:0:1::1")).is_ok());
    }

    /// Whoever sees that one fewer is counted can come in.
    #[test]
    fn what_is_no_longer_counted_has_left_its_place() {
        struct Count<'a>(&'a Arc<Places>, &'a mut bool);
        impl Drop for Count<'_> {
            fn drop(&mut self) {
                *self.1 = self.0.take(ip("192.0.2.2")).is_ok();
            }
        }
        let (places, mut free) = (Places::new(1, None), false);
        let place = places.take(ip("192.0.2.1")).unwrap();
        let count = Count(&places, &mut free);
        drop(Seated::new(place, count));
        assert!(free);
    }

    #[test]
    fn all_together_are_bounded_and_a_refusal_takes_nothing() {
        let places = Places::new(1, Some(1));
        let place = places.take(ip("192.0.2.1")).unwrap();
        assert_eq!(places.take(ip("192.0.2.2")).unwrap_err(), Full::All);
        drop(place);
        assert!(places.take(ip("192.0.2.2")).is_ok());
    }
}
