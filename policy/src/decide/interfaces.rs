//! The addresses that this host has, as far as it is known.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use crate::address::canonical;

/// Addresses of this host, other than loopback. They come and go while it is up, so that whoever judges by them holds the set
/// itself, and whoever can read them replaces what is in it.
#[derive(Clone, Debug, Default)]
pub struct Interfaces(Arc<Listed>);

#[derive(Debug)]
struct Listed {
    /// Replaced as a whole: whoever judges waits for nobody.
    addresses: ArcSwap<Vec<IpAddr>>,
    /// When they are to be read anew, by the clock of whoever reads them.
    due: AtomicU64,
}

impl Default for Listed {
    fn default() -> Self {
        Self {
            addresses: ArcSwap::default(),
            due: AtomicU64::new(u64::MAX),
        }
    }
}

impl From<Vec<IpAddr>> for Interfaces {
    /// A set that is never due.
    fn from(addresses: Vec<IpAddr>) -> Self {
        let interfaces = Self::default();
        interfaces.replace(&addresses);
        interfaces
    }
}

impl Interfaces {
    /// So many addresses are held; one more that was [found](Self::found) has no place.
    pub const MOST_FOUND: usize = 1024;

    /// The addresses.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<IpAddr>> {
        self.0.addresses.load_full()
    }

    /// Is it one of them?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.addresses.load().contains(&canonical(address))
    }

    /// From now on these.
    pub fn replace(&self, addresses: &[IpAddr]) {
        let new: Vec<_> = addresses.iter().copied().map(canonical).collect();
        self.0.addresses.store(Arc::new(new));
    }

    /// From now on what `next` makes of those so far. It is asked once more where one was [found](Self::found) meanwhile, so that
    /// none of them is lost.
    pub fn renew(&self, mut next: impl FnMut(&[IpAddr]) -> Vec<IpAddr>) {
        self.0.addresses.rcu(|now| {
            let next = next(now.as_slice());
            Arc::new(next.into_iter().map(canonical).collect::<Vec<_>>())
        });
    }

    /// This one too: it was found to be the host's, though no interface has it.
    pub fn found(&self, address: IpAddr) {
        let address = canonical(address);
        self.0.addresses.rcu(|now| {
            if now.len() >= Self::MOST_FOUND || now.contains(&address) {
                return now.clone();
            }
            Arc::new(now.iter().copied().chain([address]).collect())
        });
    }

    /// They are to be read anew from `when` on, in a unit and from a beginning that whoever reads them chooses.
    pub fn due_at(&self, when: u64) {
        self.0.due.store(when, Ordering::Release);
    }

    /// Is it time to read them, at `now`? One caller is told so, who does it; from `next` on another.
    #[must_use]
    pub fn is_due(&self, now: u64, next: u64) -> bool {
        let due = self.0.due.load(Ordering::Acquire);
        now >= due
            && self
                .0
                .due
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Interfaces;
    use std::net::IpAddr;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_held_is_seen_by_all_who_hold_it() {
        let interfaces = Interfaces::from(vec![ip("9.9.9.9")]);
        let judge = interfaces.clone();
        assert!(judge.contains(ip("::ffff:9.9.9.9")) && !judge.contains(ip("9.9.9.8")));
        interfaces.found(ip("::ffff:9.9.9.8"));
        interfaces.found(ip("9.9.9.8"));
        assert_eq!(*judge.list(), [ip("9.9.9.9"), ip("9.9.9.8")]);
        interfaces.replace(&[ip("9.9.9.7")]);
        assert_eq!(*judge.list(), [ip("9.9.9.7")]);
    }

    #[test]
    fn what_is_found_has_a_bound() {
        let interfaces = Interfaces::default();
        for number in 0..2000u32 {
            interfaces.found(IpAddr::from(number.to_be_bytes()));
        }
        assert_eq!(interfaces.list().len(), Interfaces::MOST_FOUND);
    }

    #[test]
    fn none_that_is_found_is_lost() {
        let interfaces = Interfaces::default();
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let interfaces = &interfaces;
                scope.spawn(move || {
                    for number in 0..64 {
                        interfaces.found(IpAddr::from([9, 9, thread, number]));
                    }
                });
            }
        });
        assert_eq!(interfaces.list().len(), 8 * 64);
    }

    #[test]
    fn one_that_is_found_while_they_are_read_stays() {
        let interfaces = Interfaces::from(vec![ip("9.9.9.9")]);
        let mut asked = 0;
        interfaces.renew(|before| {
            asked += 1;
            interfaces.found(ip("9.9.9.8"));
            before.to_vec()
        });
        assert!(interfaces.contains(ip("9.9.9.8")) && interfaces.contains(ip("9.9.9.9")));
        assert_eq!(asked, 2);
    }

    #[test]
    fn one_of_many_reads_them_and_only_where_they_change() {
        let interfaces = Interfaces::default();
        assert!(!interfaces.is_due(u64::MAX - 1, u64::MAX));
        interfaces.due_at(1000);
        assert!(!interfaces.is_due(999, 1999));
        assert!(interfaces.is_due(1500, 2500));
        assert!(!interfaces.is_due(1500, 2500) && !interfaces.is_due(2499, 3499));
        assert!(interfaces.is_due(2500, 3500));
    }
}
