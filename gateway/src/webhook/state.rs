//! What is known of each webhook's deliveries, for the admin API.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::watch;

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
pub struct Board {
    hooks: Mutex<BTreeMap<String, HookState>>,
    /// By webhook: what was given up and is to be tried once more.
    asked: Mutex<BTreeMap<String, BTreeSet<u64>>>,
    /// Something was asked for.
    bell: watch::Sender<()>,
}

impl Board {
    /// Change what is known of one.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut HookState)) {
        change(self.hooks().entry(name.to_owned()).or_default());
    }

    /// Is there a webhook of this name?
    pub fn has(&self, name: &str) -> bool {
        self.hooks().contains_key(name)
    }

    /// Try these events of a webhook once more: its task comes by when the event it is at has come to its end.
    pub fn ask(&self, name: &str, cursors: impl IntoIterator<Item = u64>) {
        self.asked()
            .entry(name.to_owned())
            .or_default()
            .extend(cursors);
        self.bell.send_replace(());
    }

    /// What is to be tried once more of a webhook: the oldest, which stays asked for until its attempt has ended.
    pub(super) fn next_asked(&self, name: &str) -> Option<u64> {
        self.asked().get(name)?.first().copied()
    }

    /// The attempt at this one has ended.
    pub(super) fn tried(&self, name: &str, cursor: u64) {
        if let Some(asked) = self.asked().get_mut(name) {
            asked.remove(&cursor);
        }
    }

    /// None of those that were asked for is to be tried: how many there were.
    pub(super) fn forget_asked(&self, name: &str) -> usize {
        self.asked().remove(name).map_or(0, |asked| asked.len())
    }

    /// Changes with everything that is asked for.
    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    fn hooks(&self) -> MutexGuard<'_, BTreeMap<String, HookState>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<u64>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of all.
    pub fn all(&self) -> Vec<(String, Value)> {
        let asked = self.asked().clone();
        let all = self.hooks();
        let shown = |(name, state): (&String, &HookState)| {
            let value = json!({
                "name": name,
                "url": state.url,
                "cursor": state.cursor,
                "delivered": state.delivered,
                "attempts": state.attempts,
                "error": state.error,
                "missed": state.missed,
                "redelivering": asked.get(name).map_or(0, BTreeSet::len),
            });
            (name.clone(), value)
        };
        all.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_shown_until_its_attempt_has_ended() {
        let board = Board::default();
        board.update("hook", |state| state.cursor = 9);
        let shown = || {
            let all = board.all();
            let hook = all.first().map(|(_, value)| value);
            hook.and_then(|value| value.get("redelivering").cloned())
        };
        board.ask("hook", [5, 3, 8]);
        assert_eq!(board.next_asked("hook"), Some(3));
        assert_eq!(shown(), Some(json!(3)));
        board.tried("hook", 3);
        assert_eq!(board.next_asked("hook"), Some(5));
        assert_eq!(shown(), Some(json!(2)));
        assert_eq!(board.forget_asked("hook"), 2);
        assert_eq!(board.next_asked("hook"), None);
        assert_eq!(shown(), Some(json!(0)));
    }
}
