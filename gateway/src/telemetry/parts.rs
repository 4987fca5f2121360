//! What many threads fill, in parts, so that they do not wait for one another: whoever reads takes one part after the other.

use std::{
    iter,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// More threads than these share.
pub(super) const PARTS: usize = 16;

thread_local! {
    /// The part of this thread.
    static OWN: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PARTS
    };
}

/// Threads on two processors do not write to one line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part<T>(Mutex<T>);

impl<T> Part<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All parts.
#[derive(Debug, Default)]
pub(super) struct Parts<T> {
    last: Part<T>,
    others: [Part<T>; PARTS - 1],
}

impl<T> Parts<T> {
    /// The part of this thread.
    pub(super) fn own(&self) -> MutexGuard<'_, T> {
        self.at(OWN.with(|own| *own))
    }

    /// The part of whatever has this number.
    pub(super) fn at(&self, number: usize) -> MutexGuard<'_, T> {
        let part = self.others.get(number % PARTS).unwrap_or(&self.last);
        part.lock()
    }

    /// One after the other; a part is held until it is dropped.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        let parts = self.others.iter().chain(iter::once(&self.last));
        parts.map(Part::lock)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    #[test]
    fn a_thread_waits_for_no_other() {
        let parts = Parts::<u32>::default();
        let own = OWN.with(|own| *own);
        let held = parts.own();
        // Whoever has the same part would wait, and does not try.
        let put = || (OWN.with(|other| *other) != own).then(|| *parts.own() += 1);
        while thread::scope(|scope| scope.spawn(put).join().unwrap()).is_none() {}
        drop(held);
        assert_eq!(parts.each().map(|part| *part).sum::<u32>(), 1);
    }

    #[test]
    fn each_number_has_its_part_and_there_are_no_more() {
        let parts = Parts::<usize>::default();
        for number in 0..3 * PARTS {
            *parts.at(number) += 1;
        }
        let counts: Vec<usize> = parts.each().map(|part| *part).collect();
        assert_eq!(counts, [3; PARTS]);
    }
}
