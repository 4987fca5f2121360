//! A sweep, and the store it is made on.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::*;
use crate::store::{
    Appended, Dropped, EmbeddedStore, Loaded, LogPage, Store, StoreError, StoredEvent, Verified,
};

/// How many rows each commit had; and whether it panics, as a store does that does not know what it has before it.
#[derive(Debug)]
struct Counting(EmbeddedStore, Mutex<Vec<usize>>, AtomicBool);

impl Counting {
    fn in_order(&self) {
        assert!(!self.2.load(Ordering::Acquire), "it is meant to break off");
    }
}

impl Store for Counting {
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        self.in_order();
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
    fn append_log(
        &self,
        key: &str,
        records: &[Vec<u8>],
        keep: u64,
        room: u64,
    ) -> Result<Appended, StoreError> {
        self.0.append_log(key, records, keep, room)
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
        self.in_order();
        self.0.probe(now)
    }
    fn verify(&self) -> Result<Verified, StoreError> {
        self.0.verify()
    }
}

/// A registry of its own beside the fixture's, and its store.
fn counted(f: &Fixture, now: SystemTime) -> (Arc<Counting>, Arc<Registry>) {
    let store = EmbeddedStore::open(&f.dir.path().join("counted.redb")).unwrap();
    let store = Arc::new(Counting(store, Mutex::default(), AtomicBool::new(false)));
    let keys = f.registry.keys().clone();
    let registry = Registry::open(store.clone(), keys, config(), now).unwrap();
    (store, registry)
}

/// However many end at once, the store is written once for all of them.
#[tokio::test]
async fn the_ends_of_one_sweep_are_one_commit() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = counted(&f, now);
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

/// However a store breaks off: what was taken away is taken away before it is asked.
#[tokio::test]
async fn an_end_and_a_revocation_hold_where_the_store_panics() {
    let f = Fixture::new();
    let now = SystemTime::now();
    let (store, registry) = counted(&f, now);
    let mut lives = Vec::new();
    let mut handles = Vec::new();
    for id in ["reset", "stopped", "revoked"] {
        let asked = request(&format!("{{id: {id}, idleTimeout: 0}}"));
        let issued = registry.create_at(&Behalf::nobody(), "local", asked, now);
        let env = issued.unwrap().bundle.unwrap().env;
        let handle = env
            .iter()
            .find(|(name, _)| *name == "SLUICEGATE_PROXY_TOKEN");
        handles.push(handle.unwrap().1.to_string());
        lives.push(
            registry
                .index()
                .session(&f.key(id))
                .unwrap()
                .session
                .clone(),
        );
    }
    store.2.store(true, Ordering::Release);
    for (id, action) in [("reset", Action::Reset), ("stopped", Action::Stop)] {
        let refused = registry.act(f.key(id), action, None).await.unwrap_err();
        assert!(matches!(refused, RegistryError::Interrupted), "{refused}");
        assert!(registry.index().session(&f.key(id)).is_none(), "{id}");
    }
    for live in &lives[..2] {
        assert!(matches!(live.authority(), Authority::Ended(_)));
    }
    let revoked = registry.revoke_credential(handles[2].clone()).await;
    assert!(matches!(revoked, Err(RegistryError::Interrupted)));
    let named = crate::auth::token_named(registry.keys(), &handles[2]);
    let Some(crate::auth::Named::Own(claims)) = named else {
        panic!("it is a token of ours")
    };
    assert!(registry.index().is_revoked("default", claims.line()));
    // And it is made durable once it can be.
    store.2.store(false, Ordering::Release);
    registry.sweep_at(now);
    assert_eq!(store.load().unwrap().revoked.len(), 1);
    for (id, state) in [("reset", "idle"), ("stopped", "stopped")] {
        let view = registry.show(&f.key(id)).unwrap();
        assert_eq!(view["state"], state, "{id}");
        assert!(view.get("withdrawn").is_none(), "{id}");
    }
}

/// A sweep that breaks off has looked at nobody's clocks: nobody is let in meanwhile.
#[tokio::test]
async fn a_sweep_that_breaks_off_lets_nobody_in() {
    let f = Fixture::new();
    let (store, registry) = counted(&f, SystemTime::now());
    let drain = crate::drain::Drain::default();
    let log = crate::telemetry::AccessLog::open(&Default::default()).unwrap();
    let telemetry = Telemetry::new(log).unwrap();
    drain
        .watch()
        .spawn_service(registry.clone().sweep(telemetry, drain.watch()));
    for breaks in [true, false, true] {
        store.2.store(breaks, Ordering::Release);
        let seen = async {
            while registry.index().readable() == breaks {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(10 * SECOND, seen).await.unwrap();
    }
    assert_eq!(drain.run(SECOND, 5 * SECOND).await, 0);
}
