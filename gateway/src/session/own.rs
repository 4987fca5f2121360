//! The gateway's own session: what its probes come in with. No request makes it, no store keeps it, and it lives for
//! one run; what it does is measured, not recorded as traffic.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use sluicegate_policy::{Denial, Grant};

use super::{
    Authority, Event, Index, Live, PolicyGeneration, Registry, RegistryError, Session, SessionKey,
};
use crate::{
    auth::{Audience, Mint, MintError, mint},
    secret::Secret,
    store::Batch,
    telemetry::OWN_PROVIDER,
};

/// The key of the gateway's own session. No configuration can name such a provider.
pub(super) fn own_key() -> SessionKey {
    SessionKey {
        namespace: "default".into(),
        provider: OWN_PROVIDER.into(),
        id: "probe".into(),
    }
}

/// The gateway's own session, alive until this is dropped.
#[derive(Debug)]
pub struct OwnSession {
    index: Arc<Index>,
    session: Arc<Session>,
    /// For `sluicegate-relay`.
    pub relay: Secret,
    /// For `sluicegate-egress`.
    pub egress: Secret,
}

impl Drop for OwnSession {
    fn drop(&mut self) {
        self.index.end(self.session.key(), &[]);
        self.session
            .publish(Authority::Ended(Denial::SessionRevoked));
    }
}

impl Registry {
    /// Begin the gateway's own session with this grant; its tokens are good for `life`. One at a time: a second one
    /// takes the place of the first.
    ///
    /// # Errors
    /// No key signs, or there is no randomness.
    pub fn own_session(
        &self,
        grant: Arc<Grant>,
        life: Duration,
        now: SystemTime,
    ) -> Result<OwnSession, MintError> {
        let key = own_key();
        // Above every generation before it, this process's and those before.
        let generation = u64::try_from(
            now.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_micros(),
        )
        .unwrap_or(u64::MAX);
        let token = |audience| {
            mint(
                self.keys(),
                Mint {
                    audience,
                    session: &key,
                    generation,
                    born: 0,
                    services: None,
                    key: None,
                    family: None,
                    paused: Duration::ZERO,
                    expires: now + life,
                },
                now,
            )
        };
        let (relay, egress) = (token(Audience::Relay)?, token(Audience::Egress)?);
        let policy = Arc::new(PolicyGeneration {
            number: 1,
            grant,
            narrowed: 0,
        });
        let session = Arc::new(Session::new(key, generation, policy, None));
        let live = Live {
            session: session.clone(),
            sources: Arc::default(),
            token_ttl: None,
            key: None,
            since: SystemTime::UNIX_EPOCH,
        };
        self.index().live(live, &[]);
        Ok(OwnSession {
            index: self.index().clone(),
            session,
            relay,
            egress,
        })
    }

    /// What was last found of a provider, before a restart too.
    pub fn last_profile(&self, provider: &str) -> Option<Value> {
        self.profiles().get(provider).cloned()
    }

    /// Make it durable what a provider's effective profile is now. Where something is to be told of it, whoever follows the events is told.
    ///
    /// # Errors
    /// The store.
    pub async fn profile_is(
        self: &Arc<Self>,
        provider: String,
        profile: Value,
        change: Option<Value>,
        reason: Option<String>,
    ) -> Result<(), RegistryError> {
        self.blocking(move |registry, now| {
            let _writer = registry
                .writer()
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if change.is_none() && registry.profiles().get(&provider) == Some(&profile) {
                return Ok(());
            }
            let event = |change| Event::of_provider("provider.profileChanged", change, reason, now);
            let events: Vec<Event> = change.map(event).into_iter().collect();
            let batch = Batch {
                profiles: vec![(provider.clone(), profile.to_string().into_bytes())],
                ..Batch::default()
            };
            let _told = registry.commit(batch, &[], &events)?;
            registry.profiles().insert(provider, profile);
            Ok(())
        })
        .await
    }
}
