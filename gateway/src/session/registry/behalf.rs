//! Changes of sessions, on behalf of whoever may touch all of them or only an owner's.
//!
//! Whose a session is, is asked where it is changed, under the writer's lock: it may have come to be, or have become
//! somebody else's, while a request was still being read or waited for a place.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::{Bind, Issued, LogLine, Observation, Registry, RegistryError};
use crate::session::{CreateRequest, PatchRequest, SessionKey, lifecycle::Action};

/// The registry as somebody may change it.
#[derive(Debug)]
pub struct Behalf<'r> {
    registry: &'r Arc<Registry>,
    owner: Option<Arc<str>>,
}

impl Registry {
    /// On behalf of whoever may touch only what is this owner's; `None` = anybody's.
    pub fn on_behalf_of(self: &Arc<Self>, owner: Option<Arc<str>>) -> Behalf<'_> {
        let registry = self;
        Behalf { registry, owner }
    }

    /// [`Behalf::create`], on nobody's behalf.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn create(
        self: &Arc<Self>,
        provider: String,
        request: CreateRequest,
    ) -> Result<Issued, RegistryError> {
        self.on_behalf_of(None).create(provider, request).await
    }

    /// [`Behalf::act`], on nobody's behalf.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn act(
        self: &Arc<Self>,
        key: SessionKey,
        action: Action,
        reason: Option<String>,
    ) -> Result<Issued, RegistryError> {
        self.on_behalf_of(None).act(key, action, reason).await
    }

    /// [`Behalf::patch`], on nobody's behalf.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn patch(
        self: &Arc<Self>,
        key: SessionKey,
        patch: PatchRequest,
    ) -> Result<Issued, RegistryError> {
        self.on_behalf_of(None).patch(key, patch).await
    }
}

impl Behalf<'_> {
    /// The session as the admin API shows it.
    ///
    /// # Errors
    /// Unknown, or another owner's.
    pub fn show(&self, key: &SessionKey) -> Result<Value, RegistryError> {
        let entry = self.registry.entry_of(self.owner.as_deref(), key)?;
        Ok(self.registry.view(&entry))
    }

    /// Create a session, and begin its first generation unless the request says otherwise. The same request with the
    /// same id gives the same session and an equivalent fresh credential.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn create(
        &self,
        provider: String,
        request: CreateRequest,
    ) -> Result<Issued, RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.create_at(by.as_deref(), &provider, request, now))
            .await
    }

    /// Take an action on a session.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn act(
        &self,
        key: SessionKey,
        action: Action,
        reason: Option<String>,
    ) -> Result<Issued, RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.act_at(by.as_deref(), &key, action, reason, now))
            .await
    }

    /// Change a session's grant: one atomic policy generation.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn patch(
        &self,
        key: SessionKey,
        patch: PatchRequest,
    ) -> Result<Issued, RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.patch_at(by.as_deref(), &key, patch, now))
            .await
    }

    /// Change one capability of a session. Installing what is installed, and uninstalling from a session that never
    /// had it, tell apart by the answer.
    ///
    /// # Errors
    /// [`RegistryError`]: unknown session or binding, a session that is over, or a grant that cannot be had.
    pub async fn bind(
        &self,
        key: SessionKey,
        capability: String,
        how: Bind,
    ) -> Result<Issued, RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.bind_at(by.as_deref(), &key, &capability, how, now))
            .await
    }

    /// Take a runtime's word: `stopped` and `destroyed` end the generation, the others are noted. Returns whether it
    /// spoke of the present generation.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn observe(
        &self,
        key: SessionKey,
        observation: Observation,
    ) -> Result<(Issued, bool), RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.observe_at(by.as_deref(), &key, &observation, now))
            .await
    }

    /// Append to a session's log; of a stopped one too, for its last words. Returns the number of the last record.
    ///
    /// # Errors
    /// Unknown session, or the store.
    pub async fn append_log(
        &self,
        key: SessionKey,
        lines: Vec<LogLine>,
    ) -> Result<u64, RegistryError> {
        let by = self.owner.clone();
        self.registry
            .blocking(move |all, now| all.append_log_at(by.as_deref(), &key, lines, now))
            .await
    }

    /// Records after a number, oldest first: `{records, next, first, last, dropped}`. Where there is none yet, it is
    /// waited for at most so long.
    ///
    /// # Errors
    /// Unknown session, or the store.
    pub async fn log(
        &self,
        key: SessionKey,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Value, RegistryError> {
        let by = self.owner.clone();
        self.registry.log_from(by, key, after, limit, wait).await
    }
}
