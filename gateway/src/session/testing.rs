//! A registry on a real store, for tests of this crate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{
    Action, Ceiling, import_gestalt_claims,
    text::{self, Faults},
};

use super::{
    BundleContext, CreateRequest, PatchRequest, PolicyGeneration, ProviderConfig, PublicUrl,
    Registry, RegistryConfig, Session, SessionKey, lifecycle::Times,
};
use crate::{auth::Keys, store::EmbeddedStore};

/// A registry in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) registry: Arc<Registry>,
}

/// One provider, `local`, with loopback in its ceiling.
pub(crate) fn config() -> RegistryConfig {
    let provider = ProviderConfig {
        ceiling: Ceiling::local(),
        times: Times {
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(86_400)),
            ..Times::default()
        },
        ..ProviderConfig::default()
    };
    RegistryConfig {
        providers: BTreeMap::from([("local".to_owned(), provider)]),
        default_provider: "local".into(),
        own_listeners: vec![
            "0.0.0.0:8443".parse().unwrap(),
            "127.0.0.1:3128".parse().unwrap(),
        ],
        own_sockets: vec!["/run/sluicegate/admin.sock".into()],
        bundle: BundleContext {
            plain_proxy: Some("127.0.0.1:3128".parse().unwrap()),
            public_url: PublicUrl {
                tls: true,
                host: "gateway.test".into(),
                port: 8443,
            },
            ca: None,
        },
        ..RegistryConfig::default()
    }
}

/// A generation that lives, and may do nothing.
pub(crate) fn generation() -> Arc<Session> {
    let key = SessionKey {
        namespace: "default".into(),
        provider: "local".into(),
        id: "one".into(),
    };
    let nothing = import_gestalt_claims(&[], Some(Action::Deny));
    let policy = PolicyGeneration {
        number: 1,
        grant: Arc::new(nothing.within(&Ceiling::local(), &BTreeMap::new())),
        narrowed: 0,
    };
    Arc::new(Session::new(key, 1, Arc::new(policy), None))
}

/// A create request from YAML.
pub(crate) fn request(source: &str) -> CreateRequest {
    CreateRequest::read(source).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A patch from YAML.
pub(crate) fn patch(source: &str) -> PatchRequest {
    PatchRequest::read(source).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A ceiling from YAML.
pub(crate) fn ceiling(source: &str) -> Ceiling {
    let mut faults = Faults::default();
    let node = text::parse(source, &mut faults);
    let ceiling = Ceiling::read(&node, &mut faults);
    assert!(faults.is_clean(), "{faults}");
    ceiling
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = open(dir.path().into(), config);
        Self { dir, registry }
    }

    /// The process ends without a word and starts again on the same directory.
    pub(crate) fn restarted(self) -> Self {
        self.restarted_with(config())
    }

    pub(crate) fn restarted_with(self, config: RegistryConfig) -> Self {
        let Self { dir, registry } = self;
        drop(registry);
        let registry = open(dir.path().into(), config);
        Self { dir, registry }
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir.path().join("sluicegate.redb")
    }

    pub(crate) fn key(&self, id: &str) -> SessionKey {
        SessionKey {
            namespace: "default".into(),
            provider: "local".into(),
            id: id.into(),
        }
    }

    pub(crate) fn sweep(&self, now: SystemTime) -> Option<SystemTime> {
        self.registry.sweep_at(now)
    }

    pub(crate) fn state(&self, id: &str) -> String {
        let view = self.registry.show(&self.key(id)).unwrap();
        view["state"].as_str().unwrap().to_owned()
    }

    /// Types of all events so far.
    pub(crate) async fn events(&self) -> Vec<String> {
        let events = self.registry.events_after(0, usize::MAX).await.unwrap();
        let kind = |body: &[u8]| -> String {
            let event: serde_json::Value = serde_json::from_slice(body).unwrap();
            event["type"].as_str().unwrap().to_owned()
        };
        events.iter().map(|event| kind(&event.body)).collect()
    }
}

/// A registry on what the directory holds.
pub(crate) fn open(dir: PathBuf, mut config: RegistryConfig) -> Arc<Registry> {
    config.dial.directory = Some(dir.join("listeners"));
    let store = EmbeddedStore::open(&dir.join("sluicegate.redb")).unwrap();
    let keys = Keys::load_or_create(&dir.join("keys")).unwrap();
    Registry::open(Arc::new(store), Arc::new(keys), config, SystemTime::now()).unwrap()
}
