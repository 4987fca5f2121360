//! Addresses that stand for names, in this sandbox and nowhere else.
//!
//! 198.18.0.0/15 (RFC 2544, benchmarks) and a unique local prefix: nothing real is there, and whoever learns such an
//! address elsewhere has learnt nothing.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

/// The first is not given: a network's own address looks odd.
const V4: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// fd73:6c75:6963:6567::/64.
const V6: u128 = u128::from_be_bytes([
    0xfd, 0x73, 0x6c, 0x75, 0x69, 0x63, 0x65, 0x67, 0, 0, 0, 0, 0, 0, 0, 1,
]);
/// Names that have an address at once.
const MOST: u32 = 8192;
/// A name that was not asked for in so long may lose its address to another. Far above the answers' time to live:
/// programs keep addresses longer than they should.
const STALE: Duration = Duration::from_secs(3600);

/// Both addresses of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pair {
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
}

impl Pair {
    fn at(slot: u32) -> Self {
        Self {
            v4: Ipv4Addr::from(V4 + slot),
            v6: Ipv6Addr::from(V6 + u128::from(slot)),
        }
    }
}

/// What stands for what. Stable: a name keeps its pair for as long as it is asked for.
#[derive(Debug)]
pub(super) struct Pool {
    most: u32,
    slots: HashMap<Arc<str>, u32>,
    /// By slot: the name, and when it was last asked for.
    names: BTreeMap<u32, (Arc<str>, Instant)>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::of(MOST)
    }
}

impl Pool {
    fn of(most: u32) -> Self {
        Self {
            most,
            slots: HashMap::new(),
            names: BTreeMap::new(),
        }
    }

    /// The addresses of a name; `None` where all are taken by names in use.
    pub(super) fn pair(&mut self, name: &str, now: Instant) -> Option<Pair> {
        let slot = match self.slots.get(name) {
            Some(slot) => *slot,
            None => self.free(now)?,
        };
        let name: Arc<str> = name.into();
        self.slots.insert(name.clone(), slot);
        self.names.insert(slot, (name, now));
        Some(Pair::at(slot))
    }

    fn free(&mut self, now: Instant) -> Option<u32> {
        let next = u32::try_from(self.names.len()).ok()?;
        if next < self.most {
            return Some(next);
        }
        let oldest = self.names.iter().min_by_key(|(_, (_, asked))| *asked);
        let (slot, (name, asked)) = oldest?;
        if now.saturating_duration_since(*asked) < STALE {
            return None;
        }
        let (slot, name) = (*slot, name.clone());
        self.slots.remove(&name);
        Some(slot)
    }

    /// The name an address stands for.
    pub(super) fn name(&self, address: IpAddr) -> Option<Arc<str>> {
        let slot = match address.to_canonical() {
            IpAddr::V4(v4) => u32::from(v4).checked_sub(V4)?,
            IpAddr::V6(v6) => u128::from(v6).checked_sub(V6)?.try_into().ok()?,
        };
        self.names.get(&slot).map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::time::{Duration, Instant};

    use super::Pool;

    #[test]
    fn a_name_keeps_its_addresses_and_they_lead_back() {
        let (mut pool, now) = (Pool::default(), Instant::now());
        let one = pool.pair("a.test", now).unwrap();
        let two = pool.pair("b.test", now).unwrap();
        assert_ne!(one, two);
        assert_eq!(pool.pair("a.test", now), Some(one));
        assert_eq!(one.v4.to_string(), "198.18.0.1");
        assert_eq!(pool.name(one.v4.into()).as_deref(), Some("a.test"));
        assert_eq!(pool.name(two.v6.into()).as_deref(), Some("b.test"));
        let mapped = two.v4.to_ipv6_mapped();
        assert_eq!(pool.name(mapped.into()).as_deref(), Some("b.test"));
        for stranger in [
            "198.18.0.0",
            "198.18.0.3",
            "8.8.8.8",
            "255.255.255.255",
            "::1",
            "ffff::",
        ] {
            assert_eq!(pool.name(stranger.parse().unwrap()), None, "{stranger}");
        }
    }

    #[test]
    fn it_is_bounded_and_takes_only_from_those_long_unused() {
        let (mut pool, start) = (Pool::of(2), Instant::now());
        let one = pool.pair("a", start).unwrap();
        pool.pair("b", start + Duration::from_secs(10)).unwrap();
        assert_eq!(pool.pair("c", start + Duration::from_secs(20)), None);
        let later = start + Duration::from_secs(3605);
        assert_eq!(pool.pair("c", later), Some(one));
        assert_eq!(pool.name(one.v4.into()).as_deref(), Some("c"));
        assert_eq!(pool.pair("a", later), None, "b is still in use");
    }
}
