//! The store, looked through whole: now and then, and when somebody asks.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{Registry, RegistryError};
use crate::{
    drain::{DrainWatch, Stage},
    store::Verified,
    telemetry::Telemetry,
};

/// A changed period is noticed within this.
const LOOK: Duration = Duration::from_secs(30);

impl Registry {
    /// Verify the store as often as the configuration says, from now on and until the drain is over. The composition root
    /// spawns this into its tracker.
    pub async fn verify_now_and_then(self: Arc<Self>, telemetry: Telemetry, mut drain: DrainWatch) {
        let mut last: Option<Instant> = None;
        loop {
            let every = self.config().verify_every;
            if every.is_some_and(|every| last.is_none_or(|last| last.elapsed() >= every)) {
                // What is wrong is told and counted where it is found.
                let _ = self.verify_store(&telemetry).await;
                last = Some(Instant::now());
            }
            let next = every.map_or(LOOK, |every| every.min(LOOK));
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = drain.reached(Stage::Forced) => return,
            }
        }
    }

    /// Look at every page of the store. One that is damaged is read no more, and new work is refused from now on.
    ///
    /// # Errors
    /// The store: damaged, or not readable at all.
    pub async fn verify_store(
        self: &Arc<Self>,
        telemetry: &Telemetry,
    ) -> Result<Verified, RegistryError> {
        let found = self
            .blocking(|registry, now| registry.verify_store_at(now))
            .await;
        telemetry.metrics().store_verified(found.is_ok());
        found
    }

    /// Somebody says that it may be worth it: a damaged store is looked at at once, and not when its turn comes.
    ///
    /// # Errors
    /// The work was interrupted.
    pub async fn look_at_store(self: &Arc<Self>) -> Result<bool, RegistryError> {
        self.blocking(|registry, now| {
            registry.store.hasten();
            Ok(registry.probe_store(now))
        })
        .await
    }

    fn verify_store_at(&self, now: SystemTime) -> Result<Verified, RegistryError> {
        let verified = self.store.verify().inspect_err(|error| {
            let why = chain(error);
            tracing::error!(error = %why, "the session store did not stand its verification: new work is refused");
            self.index.set_readable(false);
        })?;
        tracing::debug!(bytes = verified.bytes, took = ?verified.took, "the store was verified");
        let mut last = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((now, verified));
        Ok(verified)
    }

    /// When the store was last found whole, and what was found.
    pub fn verified(&self) -> Option<(SystemTime, Verified)> {
        *self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with what is behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
