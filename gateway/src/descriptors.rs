//! File descriptors: the last of those a process may have are kept for what must not fail.
//!
//! The kernel hands out the lowest number that is free (POSIX.1-2017, 2.14), so the number of a new one says how many there
//! are. Connections stop first, then ways out; what is left is for questions to DNS, operators and files. Nobody is left
//! waiting for an accept that fails.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    process::{Resource, getrlimit},
};

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
}

/// Is this descriptor, just opened, one of those that are kept back?
pub fn is_kept_back(descriptor: impl AsFd, what: For) -> bool {
    let number = u64::try_from(descriptor.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile).current;
    limit.is_some_and(|limit| number >= first_kept(limit, what))
}

/// Would the next one be?
pub fn are_scarce(what: For) -> bool {
    match eventfd(0, EventfdFlags::CLOEXEC) {
        Ok(descriptor) => is_kept_back(descriptor, what),
        Err(_) => true,
    }
}

fn first_kept(limit: u64, what: For) -> u64 {
    let kept = (limit / SHARE).clamp(LEAST, MOST);
    limit.saturating_sub(match what {
        For::Arriving => kept,
        For::Leaving => kept / 2,
    })
}

/// What [`is_kept_back`] is as an error: that there is none.
pub fn error() -> io::Error {
    io::Error::from(Errno::MFILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out_go_on_when_nobody_is_let_in_any_more() {
        for limit in [64, 1024, 20_000, 1 << 20] {
            let (arriving, leaving) = (
                first_kept(limit, For::Arriving),
                first_kept(limit, For::Leaving),
            );
            assert!(arriving < leaving && leaving + 8 <= limit, "{limit}");
            assert!(arriving >= limit / 2, "{limit}: too many kept");
        }
        assert_eq!(first_kept(8, For::Arriving), 0, "too few to begin with");
        assert_eq!(first_kept(1 << 20, For::Arriving), (1 << 20) - 1024);
    }
}
