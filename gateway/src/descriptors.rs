//! File descriptors: the last of those a process may have are kept for what must not fail.
//!
//! The kernel hands out the lowest number that is free (POSIX.1-2017, 2.14), so the number of a new one says how many there
//! are. What idles goes first, then connections stop, then ways out; what is left is for questions to DNS, operators and
//! files. Nobody is left waiting for an accept that fails.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    process::{Resource, getrlimit},
};
use tokio::net::TcpSocket;

use crate::outcome::is_exhausted;

pub use sluicegate_relay::descriptors::raise;

/// Of how many descriptors one is kept back, and the bounds of that.
const SHARE: u64 = 8;
const LEAST: u64 = 16;
const MOST: u64 = 1024;

/// What a descriptor is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    /// A connection that came.
    Arriving,
    /// One that is made for a session, or what makes one faster.
    Leaving,
    /// One that waits to be used again. As many as are kept back are left when it goes, for those that arrive before it is closed.
    Idling,
}

/// What is known of the limit. It can be another at any time (prlimit(2)), and is asked for anew by each descriptor with a number that
/// none had when it was asked before, or in the upper half of it: the descriptors that it may concern. One that is lowered below what
/// had been in use is noticed by the first open that fails, see [`ran_out`].
#[derive(Debug)]
struct Known {
    /// Zero before it is asked for the first time.
    limit: AtomicU64,
    /// The highest number that it was asked for.
    highest: AtomicU64,
    /// Since [`ran_low`] looked, one was opened that cannot be let idle, or none could be.
    few: AtomicBool,
}

static KNOWN: Known = Known::nothing();

impl Known {
    const fn nothing() -> Self {
        Self {
            limit: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            few: AtomicBool::new(false),
        }
    }

    /// The limit for this descriptor; `ask` answers `None` where there is none.
    fn limit(&self, number: u64, ask: impl FnOnce() -> Option<u64>) -> u64 {
        let known = self.limit.load(Ordering::Relaxed);
        if number <= self.highest.load(Ordering::Relaxed) && number < known / 2 {
            return known;
        }
        let limit = ask().unwrap_or(u64::MAX);
        self.highest.fetch_max(number, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        limit
    }

    fn is_kept_back(&self, number: u64, what: For, ask: impl FnOnce() -> Option<u64>) -> bool {
        let limit = self.limit(number, ask);
        if number >= first_kept(limit, For::Idling) {
            self.few.store(true, Ordering::Release);
        }
        number >= first_kept(limit, what)
    }

    fn ran_low(&self, ask: impl FnOnce() -> bool) -> bool {
        if !self.few.load(Ordering::Relaxed) {
            return false;
        }
        // Before the answer, so that one opened meanwhile is not forgotten, nor the one that asks.
        self.few.swap(false, Ordering::Acquire);
        ask()
    }

    /// None could be opened. What is not for want of them, as where there is no IPv6, says nothing of how many there are.
    fn failed(&self, error: &io::Error) {
        if is_exhausted(error) {
            self.forget();
        }
    }

    fn forget(&self) {
        self.limit.store(0, Ordering::Relaxed);
        self.few.store(true, Ordering::Release);
    }
}

/// Is this descriptor, just opened, one of those that are kept back?
pub fn is_kept_back(descriptor: impl AsFd, what: For) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    KNOWN.is_kept_back(number, what, || getrlimit(Resource::Nofile).current)
}

/// Would the next one be?
pub fn are_scarce(what: For) -> bool {
    match eventfd(0, EventfdFlags::CLOEXEC) {
        Ok(descriptor) => is_kept_back(descriptor, what),
        Err(_) => {
            ran_out();
            true
        }
    }
}

/// Is there none to be let idle? For whoever asks often: no system call while none was opened that cannot be. Where others have the
/// numbers behind the last that was free, the next descriptor tells.
pub fn ran_low() -> bool {
    KNOWN.ran_low(|| are_scarce(For::Idling))
}

/// There was none to be had: the limit may be another than was known.
pub fn ran_out() {
    KNOWN.forget();
}

fn first_kept(limit: u64, what: For) -> u64 {
    let kept = (limit / SHARE).clamp(LEAST, MOST);
    limit.saturating_sub(match what {
        For::Arriving => kept,
        For::Leaving => kept / 2,
        For::Idling => kept * 2,
    })
}

/// A socket for a way out to this address.
///
/// # Errors
/// As [`error`] where it is one of those that are kept back; what the system says where it gives none.
pub fn socket_towards(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.inspect_err(|error| KNOWN.failed(error))?;
    if is_kept_back(&socket, For::Leaving) {
        return Err(error());
    }
    Ok(socket)
}

/// What [`is_kept_back`] is as an error: that there is none.
pub fn error() -> io::Error {
    io::Error::from(Errno::MFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_asked_for_by_those_it_may_concern() {
        let known = Known::nothing();
        let never = || -> Option<u64> { unreachable!("it is known") };
        assert_eq!(known.limit(10, || Some(1024)), 1024);
        for number in [10, 4, 9] {
            assert_eq!(known.limit(number, never), 1024);
        }
        // Higher than any before, it sees that the limit was lowered; from the upper half on each one looks.
        assert_eq!(known.limit(11, || Some(24)), 24);
        assert_eq!(known.limit(3, never), 24);
        assert_eq!(known.limit(12, || Some(24)), 24);
        assert_eq!(known.limit(12, || Some(1024)), 1024);
        assert_eq!(known.limit(12, never), 1024);
        // Lowered below what was in use: by then one has failed.
        known.forget();
        assert_eq!(known.limit(5, || Some(12)), 12);
        assert_eq!(known.limit(5, never), 12);
        assert_eq!(known.limit(13, || None), u64::MAX);
    }

    #[test]
    fn whoever_asks_often_asks_the_kernel_only_near_the_end() {
        let known = Known::nothing();
        let never = || -> bool { unreachable!("they are far from it") };
        let open = |number, what| known.is_kept_back(number, what, || Some(1024));
        let asked = |number| known.ran_low(|| open(number, For::Idling));
        assert!(!known.ran_low(never));
        // 128 are kept back, and 128 before them do not idle.
        assert!(!open(767, For::Leaving));
        assert!(!known.ran_low(never));
        assert!(!open(768, For::Arriving));
        // What is opened to find out tells of itself, and so does what is opened meanwhile.
        assert!(asked(768));
        assert!(asked(1000));
        assert!(!known.ran_low(|| {
            open(900, For::Leaving);
            open(20, For::Idling)
        }));
        // It is far again when the one that asks is.
        assert!(!asked(20));
        assert!(!known.ran_low(never));
        // None could be opened, for another reason and for want of them.
        known.failed(&Errno::AFNOSUPPORT.into());
        assert!(!known.ran_low(never));
        known.failed(&error());
        assert!(known.ran_low(|| true));
    }

    #[test]
    fn ways_out_go_on_when_nobody_is_let_in_any_more() {
        for limit in [64, 1024, 20_000, 1 << 20] {
            let (arriving, leaving) = (
                first_kept(limit, For::Arriving),
                first_kept(limit, For::Leaving),
            );
            assert!(arriving < leaving && leaving + 8 <= limit, "{limit}");
            assert!(arriving >= limit / 2, "{limit}: too many kept");
            let idling = first_kept(limit, For::Idling);
            assert_eq!(arriving - idling, limit - arriving, "{limit}");
        }
        assert_eq!(first_kept(8, For::Arriving), 0, "too few to begin with");
        assert_eq!(first_kept(1 << 20, For::Arriving), (1 << 20) - 1024);
    }
}
