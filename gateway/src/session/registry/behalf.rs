//! Changes of sessions, on behalf of whoever may touch all of them or only an owner's.
//!
//! Whose a session is, is asked where it is changed, under the writer's lock: it may have come to be, or have become
//! somebody else's, while a request was still being read or waited for a place.

use std::{sync::Arc, time::SystemTime};

use serde_json::Value;
use sluicegate_policy::Author;

use super::{Issued, Registry, RegistryError};
use crate::session::{Actor, CreateRequest, PatchRequest, SessionKey, lifecycle::Action};

/// On whose behalf something is asked for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Behalf {
    /// Only what is this owner's may be touched; `None` = anybody's.
    pub owner: Option<Arc<str>>,
    /// Whoever asks has a say in a part of the gateway only.
    pub bounded: bool,
    /// The entity tags the session may have for it to be done (RFC 9110 §13.1.1); empty = any.
    pub if_match: Vec<String>,
    /// Who asks, for events; `None` = the gateway itself.
    pub actor: Option<Actor>,
}

impl Behalf {
    /// Nobody's in particular: everything may be touched.
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Who names the addresses of host services in a request of theirs.
    pub(in crate::session) fn author(&self) -> Author {
        if self.bounded {
            Author::Bounded
        } else {
            Author::Operator
        }
    }
}

/// Somebody writes, for as long as this is held.
#[must_use]
pub(in crate::session) struct Acting<'a> {
    registry: &'a Registry,
    before: Option<Actor>,
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        *self.registry.actor() = self.before.take();
    }
}

impl Registry {
    /// What is committed from now on is asked for by this one. Under the writer's lock, and let go before it.
    pub(in crate::session) fn acting(&self, actor: Option<Actor>) -> Acting<'_> {
        let before = std::mem::replace(&mut *self.actor(), actor);
        Acting {
            registry: self,
            before,
        }
    }

    /// The session as the admin API shows it.
    ///
    /// # Errors
    /// Unknown, or another owner's.
    pub fn show_to(&self, by: &Behalf, key: &SessionKey) -> Result<Value, RegistryError> {
        let entry = self.entry_of(by, key)?;
        Ok(self.view(&entry))
    }

    /// A change on somebody's behalf: one of the functions `…_at`, which judge whose the session is.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        by: &Behalf,
        work: impl FnOnce(&Self, &Behalf, SystemTime) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let by = by.clone();
        self.blocking(move |all, now| work(all, &by, now)).await
    }

    /// [`Registry::create_at`], on nobody's behalf and now.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn create(
        self: &Arc<Self>,
        provider: String,
        request: CreateRequest,
    ) -> Result<Issued, RegistryError> {
        let by = Behalf::nobody();
        self.change(&by, move |all, by, now| {
            all.create_at(by, &provider, request, now)
        })
        .await
    }

    /// [`Registry::act_at`], on nobody's behalf and now.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn act(
        self: &Arc<Self>,
        key: SessionKey,
        action: Action,
        reason: Option<String>,
    ) -> Result<Issued, RegistryError> {
        let by = Behalf::nobody();
        self.change(&by, move |all, by, now| {
            all.act_at(by, &key, action, reason, now)
        })
        .await
    }

    /// [`Registry::patch_at`], on nobody's behalf and now.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn patch(
        self: &Arc<Self>,
        key: SessionKey,
        patch: PatchRequest,
    ) -> Result<Issued, RegistryError> {
        let by = Behalf::nobody();
        self.change(&by, move |all, by, now| all.patch_at(by, &key, patch, now))
            .await
    }
}
