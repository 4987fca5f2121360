//! A sweep, and the store it is made on.

use std::sync::Mutex;

use super::*;
use crate::store::{
    Dropped, EmbeddedStore, Loaded, LogPage, Store, StoreError, StoredEvent, Verified,
};

/// How many rows each commit had.
#[derive(Debug)]
struct Counting(EmbeddedStore, Mutex<Vec<usize>>);

impl Store for Counting {
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        self.1.lock().unwrap().push(batch.put.len());
        self.0.commit(batch)
    }
    fn load(&self) -> Result<Loaded, StoreError> {
        self.0.load()
    }
    fn events(&self, after: u64, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.0.events(after, limit)
    }
    fn dropped(&self, of: &str) -> Result<Dropped, StoreError> {
        self.0.dropped(of)
    }
    fn webhook_letter(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.0.webhook_letter(name, cursor, dead)
    }
    fn append_log(&self, key: &str, records: &[Vec<u8>], keep: u64) -> Result<u64, StoreError> {
        self.0.append_log(key, records, keep)
    }
    fn log(&self, key: &str, after: u64, limit: usize) -> Result<LogPage, StoreError> {
        self.0.log(key, after, limit)
    }
    fn webhook_cursor(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.0.webhook_cursor(name)
    }
    fn webhook_settle(
        &self,
        name: &str,
        cursor: u64,
        dead: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        self.0.webhook_settle(name, cursor, dead)
    }
    fn hasten(&self) {
        self.0.hasten();
    }
    fn webhook_dead(&self, name: &str, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.0.webhook_dead(name, limit)
    }
    fn probe(&self, now: SystemTime) -> Result<(), StoreError> {
        self.0.probe(now)
    }
    fn verify(&self) -> Result<Verified, StoreError> {
        self.0.verify()
    }
}

/// However many end at once, the store is written once for all of them.
#[tokio::test]
async fn the_ends_of_one_sweep_are_one_commit() {
    let f = Fixture::new();
    let store = EmbeddedStore::open(&f.dir.path().join("counted.redb")).unwrap();
    let store = Arc::new(Counting(store, Mutex::default()));
    let now = SystemTime::now();
    let keys = f.registry.keys().clone();
    let registry = Registry::open(store.clone(), keys, config(), now).unwrap();
    for id in 0..40 {
        let asked = request(&format!("{{id: s{id}, ttl: 10s}}"));
        registry
            .create_at(&Behalf::nobody(), "local", asked, now)
            .unwrap();
    }
    store.1.lock().unwrap().clear();
    registry.sweep_at(now + 11 * SECOND);
    assert_eq!(*store.1.lock().unwrap(), [40]);
    for id in 0..40 {
        let view = registry.show(&f.key(&format!("s{id}"))).unwrap();
        assert_eq!(view["state"], "idle");
    }
}
