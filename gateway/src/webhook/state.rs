//! What is known of each webhook's deliveries, for the admin API.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

/// One webhook's deliveries so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HookState {
    /// Where it goes.
    pub url: String,
    /// The last event acknowledged, given up or not wanted.
    pub cursor: u64,
    /// Events acknowledged since the start.
    pub delivered: u64,
    /// Failed attempts for the event that is next; 0 where nothing waits.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Events that were no longer stored when their turn came.
    pub missed: u64,
}

/// All webhooks by name.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, HookState>>);

impl Board {
    /// Change what is known of one.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut HookState)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(name.to_owned()).or_default());
    }

    /// What is known of all.
    pub fn all(&self) -> Vec<(String, Value)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(name, state): (&String, &HookState)| {
            let value = json!({
                "name": name,
                "url": state.url,
                "cursor": state.cursor,
                "delivered": state.delivered,
                "attempts": state.attempts,
                "error": state.error,
                "missed": state.missed,
            });
            (name.clone(), value)
        };
        all.iter().map(shown).collect()
    }
}
