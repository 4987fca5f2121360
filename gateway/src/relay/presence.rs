//! Sandboxes on other machines whose relay streams came through: they show that there is a way in where this gateway cannot
//! reach its own public URL. They say nothing of its certificate or of what else is checked there.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// A stream proves the way in while it is open, and for so many seconds after.
const PROVES_FOR: u64 = 60;

/// Relay streams of other machines.
#[derive(Debug, Default)]
pub struct Presence {
    open: AtomicUsize,
    /// When the last one ended, in seconds of Unix time.
    last: AtomicU64,
}

/// One stream that is open.
#[derive(Debug)]
pub struct Present {
    presence: Arc<Presence>,
}

impl Presence {
    /// A stream from `peer` was opened. One from this machine proves nothing about the road.
    pub fn came(self: &Arc<Self>, peer: IpAddr, own: &[IpAddr]) -> Option<Present> {
        let peer = peer.to_canonical();
        if peer.is_loopback() || own.iter().any(|ip| ip.to_canonical() == peer) {
            return None;
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        Some(Present {
            presence: self.clone(),
        })
    }

    /// Is one open at `now` (seconds of Unix time), or was a moment ago?
    pub fn proves(&self, now: u64) -> bool {
        let last = self.last.load(Ordering::Acquire);
        self.open.load(Ordering::Acquire) > 0 || (last > 0 && now <= last + PROVES_FOR)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let now = crate::clock::unix_seconds(std::time::SystemTime::now());
        self.presence.last.fetch_max(now, Ordering::AcqRel);
        self.presence.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_other_machines_prove_the_road_while_open_and_a_minute_after() {
        let presence = Arc::new(Presence::default());
        let own = [IpAddr::from([192, 0, 2, 1])];
        let from = |ip: [u8; 4]| presence.came(ip.into(), &own);
        assert!(from([127, 0, 0, 1]).is_none() && from([192, 0, 2, 1]).is_none());
        let now = crate::clock::unix_seconds(std::time::SystemTime::now());
        assert!(!presence.proves(now));
        let one = from([192, 0, 2, 2]);
        assert!(one.is_some() && presence.proves(now));
        drop(one);
        assert!(presence.proves(now + PROVES_FOR));
        assert!(!presence.proves(now + PROVES_FOR + 3600));
    }
}
