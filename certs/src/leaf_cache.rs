//! Leaves minted for hosts whose TLS the gateway terminates: bounded, short-lived, in memory only.
use crate::{Authority, CertError, Identity};
use std::{
    collections::HashMap,
    fmt,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Life of a cache's own authority.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Minted leaves by host. They are signed by an authority of the cache's own, which verifiers believe only for the
/// names it was made for; its key and the leaves' keys are never written down.
pub struct LeafCache {
    authority: Authority,
    permitted: Vec<String>,
    capacity: NonZeroUsize,
    lifetime: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    leaves: HashMap<String, Leaf>,
    /// Counts uses, so that the one longest unused can be found.
    uses: u64,
}

struct Leaf {
    identity: Arc<Identity>,
    renew_at: SystemTime,
    last_use: u64,
}

impl LeafCache {
    /// A cache of at most `capacity` leaves of `lifetime` each, for the DNS names `permitted` and names below them.
    /// It lasts thirty days, or as long as `root`: make another before that.
    ///
    /// # Errors
    /// No name permitted, or one that no certificate can carry.
    pub fn new(
        root: &Authority,
        permitted: &[String],
        capacity: NonZeroUsize,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        let permitted: Vec<String> = permitted
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let authority = root.constrained(
            "Sluicegate interception",
            &permitted,
            AUTHORITY_LIFETIME,
            now,
        )?;
        Ok(Self {
            authority,
            permitted,
            capacity,
            lifetime,
            kept: Mutex::default(),
        })
    }

    /// The leaf for `host`, minted where there is none or the kept one has half of its life behind it.
    ///
    /// # Errors
    /// A host outside the permitted names, or a cache past its own life.
    pub fn leaf(&self, host: &str, now: SystemTime) -> Result<Arc<Identity>, CertError> {
        let host = host.to_ascii_lowercase();
        if !self.permits(&host) {
            return Err(CertError::NameNotPermitted(host));
        }
        // Minting takes some 100 µs, and under the lock one burst for a host mints one leaf.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let this_use = kept.uses;
        if let Some(leaf) = kept
            .leaves
            .get_mut(&host)
            .filter(|leaf| now < leaf.renew_at)
        {
            leaf.last_use = this_use;
            return Ok(Arc::clone(&leaf.identity));
        }
        let identity = Arc::new(self.authority.issue_server(
            std::slice::from_ref(&host),
            self.lifetime,
            now,
        )?);
        kept.make_room(&host, self.capacity.get());
        let renew_at = now
            .checked_add(self.lifetime / 2)
            .ok_or(CertError::Time)?
            .min(identity.not_after());
        kept.leaves.insert(
            host,
            Leaf {
                identity: Arc::clone(&identity),
                renew_at,
                last_use: this_use,
            },
        );
        Ok(identity)
    }

    /// Leaves kept now.
    pub fn len(&self) -> usize {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leaves
            .len()
    }

    /// Is nothing kept?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same bound the constrained authority's certificate states, checked before a key is spent on it.
    fn permits(&self, host: &str) -> bool {
        self.permitted.iter().any(|name| {
            host == name
                || host
                    .strip_suffix(name.as_str())
                    .is_some_and(|labels| labels.ends_with('.'))
        })
    }
}

impl fmt::Debug for LeafCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafCache")
            .field("permitted", &self.permitted)
            .finish_non_exhaustive()
    }
}

impl Kept {
    /// Room for `host`: the leaf longest unused goes.
    fn make_room(&mut self, host: &str, capacity: usize) {
        while self.leaves.len() >= capacity && !self.leaves.contains_key(host) {
            let oldest = self
                .leaves
                .iter()
                .min_by_key(|(_, leaf)| leaf.last_use)
                .map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.leaves.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
