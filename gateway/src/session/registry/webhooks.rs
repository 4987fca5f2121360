//! What is stored of webhooks: how far each has come, and what was given up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Registry, RegistryError};
use crate::store::Batch;

/// An event that was given up, and is kept. As JSON it is what the admin API shows.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetter {
    /// The event's. The row has it for a key.
    #[serde(skip_deserializing)]
    pub cursor: u64,
    /// The event.
    pub event: Value,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Attempts so far.
    pub attempts: u64,
}

impl Registry {
    /// The last event a webhook is done with. One that is new begins with what happens from now on.
    ///
    /// # Errors
    /// The store.
    pub async fn webhook_cursor(self: &Arc<Self>, name: String) -> Result<u64, RegistryError> {
        self.blocking(move |registry, _| registry.webhook_cursor_at(&name))
            .await
    }

    /// The same, for before anything happens that one could miss. Blocks.
    ///
    /// # Errors
    /// The store.
    pub fn webhook_cursor_at(&self, name: &str) -> Result<u64, RegistryError> {
        if let Some(cursor) = self.store.webhook_cursor(name)? {
            return Ok(cursor);
        }
        let now = self.store.commit(&Batch::default())?;
        self.store.webhook_settle(name, now, None)?;
        Ok(now)
    }

    /// A webhook is done with everything up to this event; `dead` is kept where it was given up.
    ///
    /// # Errors
    /// The store.
    pub async fn webhook_settle(
        self: &Arc<Self>,
        name: String,
        cursor: u64,
        dead: Option<Vec<u8>>,
    ) -> Result<(), RegistryError> {
        self.blocking(move |registry, _| {
            Ok(registry
                .store
                .webhook_settle(&name, cursor, dead.as_deref())?)
        })
        .await
    }

    /// What was given up is delivered after all (`None`), or kept with this.
    ///
    /// # Errors
    /// The store.
    pub async fn webhook_letter(
        self: &Arc<Self>,
        name: String,
        cursor: u64,
        dead: Option<Vec<u8>>,
    ) -> Result<(), RegistryError> {
        self.blocking(move |registry, _| {
            Ok(registry
                .store
                .webhook_letter(&name, cursor, dead.as_deref())?)
        })
        .await
    }

    /// What was given up of a webhook and is kept, the newest 200, oldest first.
    ///
    /// # Errors
    /// The store.
    pub async fn webhook_dead(
        self: &Arc<Self>,
        name: String,
    ) -> Result<Vec<DeadLetter>, RegistryError> {
        self.blocking(move |registry, _| {
            let letters = registry.store.webhook_dead(&name, usize::MAX)?;
            let read = |(cursor, body): (u64, Vec<u8>)| DeadLetter {
                cursor,
                ..serde_json::from_slice(&body).unwrap_or_default()
            };
            Ok(letters.into_iter().map(read).collect())
        })
        .await
    }
}
