//! All that is looked up, as it is at one moment. Nothing in it is ever changed where somebody sees it: whoever changes something does so
//! in a copy of what it is in, and shows the whole.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{Live, pieces::Pieces, whose::Whose};
use crate::{
    auth::HandleHash,
    session::{SessionKey, usage::Usage},
};

/// A handle that is good.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) key: Arc<SessionKey>,
    /// Held here and by whoever is here by it, and so never cloned with a table.
    pub(super) usage: Arc<Usage>,
}

/// Ids that are revoked.
type Ids = Pieces<Arc<str>, ()>;

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) sessions: Pieces<Arc<SessionKey>, Arc<Live>>,
    pub(super) handles: Pieces<HandleHash, Arc<Known>>,
    /// Sessions by each range of their sources.
    pub(super) sources: Pieces<IpNet, Whose>,
    /// How long the prefixes of those ranges are, of addresses of how many bits. One that was needed once stays.
    lengths: Arc<BTreeSet<(u8, u8)>>,
    revoked: Ids,
    /// Those that are revoked for one namespace only, by it.
    revoked_in: Arc<HashMap<Arc<str>, Ids>>,
    /// Handles that were withdrawn one by one, of generations that live. (One that made room for newer ones lets nobody in any
    /// more, and cuts nothing.)
    pub(super) withdrawn: Pieces<HandleHash, ()>,
    /// Signing keys that were taken away.
    pub(super) retired: Arc<HashSet<String>>,
}

impl Tables {
    pub(super) fn is_revoked(&self, namespace: &str, id: &str) -> bool {
        let own = self.revoked_in.get(namespace);
        self.revoked.contains(id) || own.is_some_and(|ids| ids.contains(id))
    }

    /// How many ids are revoked for this namespace alone.
    pub(super) fn revoked_within(&self, namespace: &str) -> usize {
        self.revoked_in.get(namespace).map_or(0, Ids::len)
    }

    /// For one namespace, or for all.
    pub(super) fn revoke(&mut self, namespace: Option<&str>, id: &str) {
        let ids = match namespace {
            Some(own) => Arc::make_mut(&mut self.revoked_in)
                .entry(own.into())
                .or_default(),
            None => &mut self.revoked,
        };
        ids.insert(id.into(), ());
    }

    /// It is revoked no more.
    pub(super) fn forget(&mut self, namespace: Option<&str>, id: &str) {
        let Some(namespace) = namespace else {
            self.revoked.remove(id);
            return;
        };
        let all = Arc::make_mut(&mut self.revoked_in);
        if let Some(ids) = all.get_mut(namespace) {
            ids.remove(id);
            if ids.is_empty() {
                all.remove(namespace);
            }
        }
    }

    /// A generation lives, with these handles.
    pub(super) fn live(&mut self, live: Live, handles: &[HandleHash]) {
        let key = Arc::new(live.session.key().clone());
        for hash in handles {
            let (key, usage) = (key.clone(), Usage::fresh());
            self.handles.insert(*hash, Known { key, usage }.into());
        }
        self.forget_sources(&key);
        self.add_sources(&key, &live.sources);
        self.sessions.insert(key, Arc::new(live));
    }

    /// Whose are the ranges that `source`, a single address, is in?
    pub(super) fn sources_of(&self, source: IpNet) -> impl Iterator<Item = &Arc<SessionKey>> {
        let bits = source.max_prefix_len();
        self.lengths
            .iter()
            .filter(move |(of, _)| *of == bits)
            .filter_map(move |(_, length)| IpNet::new(source.addr(), *length).ok())
            .filter_map(move |range| self.sources.get(&range.trunc()))
            .flat_map(Whose::iter)
    }

    /// What lives under this key may come from there too.
    fn add_sources(&mut self, key: &Arc<SessionKey>, sources: &[IpNet]) {
        for range in sources.iter().map(IpNet::trunc) {
            // Taken out meanwhile, so that it is changed where it is, once it is this copy's own.
            let mut whose = self.sources.remove(&range).unwrap_or_default();
            whose.insert(key);
            self.sources.insert(range, whose);
            let length = (range.max_prefix_len(), range.prefix_len());
            if !self.lengths.contains(&length) {
                Arc::make_mut(&mut self.lengths).insert(length);
            }
        }
    }

    /// Whatever lives under this key has no sources from now on.
    pub(super) fn forget_sources(&mut self, key: &SessionKey) {
        let Some(live) = self.sessions.get(key).cloned() else {
            return;
        };
        for range in live.sources.iter().map(IpNet::trunc) {
            let Some(mut whose) = self.sources.remove(&range) else {
                continue;
            };
            whose.remove(key);
            if !whose.is_empty() {
                self.sources.insert(range, whose);
            }
        }
    }
}
