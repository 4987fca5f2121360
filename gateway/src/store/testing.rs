//! A store that does as a test wants.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use tokio::sync::watch;

use super::{
    Appended, Batch, Dropped, EmbeddedStore, Loaded, LogPage, Store, StoreError, StoredEvent,
    Verified,
};

/// What it does with what is asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// As a store does.
    Serve,
    /// It refuses everything, as one whose disk is gone.
    Refuse,
    /// It panics, as one that does not know what it has before it.
    BreakOff,
    /// It panics where it is to write, and reads on.
    BreakOffWriting,
}

/// An embedded store behind a manner that can change.
#[derive(Debug)]
pub(crate) struct Minded {
    store: EmbeddedStore,
    manner: Mutex<Manner>,
    commits: Mutex<Vec<usize>>,
    /// How often it was asked whether it can be read: once by each sweep, before anything else.
    probes: watch::Sender<u64>,
}

impl Minded {
    /// One that serves.
    pub(crate) fn open(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            store: EmbeddedStore::open(path).unwrap(),
            manner: Mutex::new(Manner::Serve),
            commits: Mutex::default(),
            probes: watch::Sender::new(0),
        })
    }

    /// Do so from now on.
    pub(crate) fn be(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// How many rows of sessions each commit had since this was last asked.
    pub(crate) fn commits(&self) -> Vec<usize> {
        std::mem::take(&mut *self.commits.lock().unwrap())
    }

    /// Completes when so many more sweeps have begun: all of those before the last are over.
    pub(crate) async fn swept(&self, times: u64) {
        let mut probes = self.probes.subscribe();
        let until = *probes.borrow() + times;
        probes.wait_for(|count| *count >= until).await.unwrap();
    }

    fn asked(&self, writes: bool) -> Result<(), StoreError> {
        // Not held over a panic.
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::BreakOff => panic!("it is meant to break off"),
            Manner::BreakOffWriting if writes => panic!("it is meant to break off"),
            Manner::Serve | Manner::BreakOffWriting => Ok(()),
            Manner::Refuse => Err(StoreError::Vanished {
                path: "/gone".into(),
            }),
        }
    }
}

/// What goes to the store behind, where the manner lets it.
macro_rules! passed_on {
    ($($writes:literal $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> Result<$answer, StoreError> {
            self.asked($writes)?;
            self.store.$name($($argument),*)
        })*
    };
}

impl Store for Minded {
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        self.asked(true)?;
        self.commits.lock().unwrap().push(batch.put.len());
        self.store.commit(batch)
    }

    fn hasten(&self) {
        self.store.hasten();
    }

    fn probe(&self, now: SystemTime) -> Result<(), StoreError> {
        self.probes.send_modify(|count| *count += 1);
        self.asked(false)?;
        self.store.probe(now)
    }

    passed_on! {
        false load() -> Loaded;
        false events(after: u64, limit: usize) -> Vec<StoredEvent>;
        false dropped(of: &str) -> Dropped;
        true append_log(key: &str, records: &[Vec<u8>], keep: u64, room: u64) -> Appended;
        false log(key: &str, after: u64, limit: usize) -> LogPage;
        false webhook_cursor(name: &str) -> Option<u64>;
        true webhook_settle(name: &str, cursor: u64, dead: Option<&[u8]>) -> ();
        true webhook_letter(name: &str, cursor: u64, dead: Option<&[u8]>) -> ();
        false webhook_dead(name: &str, limit: usize) -> Vec<(u64, Vec<u8>)>;
        false verify() -> Verified;
    }
}
