//! What of an earlier life is missing at the start. A gateway begins anew without it; somebody should know.

use std::{fs, path::Path};

use crate::config::{Config, StateDir};

/// Sessions are gone while those who had tokens of them are still there.
const STORE: &str = "a gateway has been here, and its store is not: sessions, revocations and events of before are gone. \
                     A token that was revoked alone is good again wherever its session is not asked for (compat.gestalt.verifySessions: \
                     trust-token). If that is not meant, stop and put the store back";
/// The other way round.
const KEYS: &str = "there is a store and there are no signing keys: new ones are made, and every signed token that was issued \
                    before is refused. If that is not meant, stop and put the keys back";

/// What to warn of before anything is made.
pub(super) fn of(config: &Config, state_dir: &StateDir, store: &Path) -> Option<&'static str> {
    let has_keys = match &config.keys {
        // Somebody else keeps them, whether this is the first start or not.
        Some(_) => None,
        None => Some(holds(&state_dir.file("keys"))),
    };
    // Made at every start, after the store.
    let lived = state_dir.file("relay-opens").exists();
    missing(store.exists(), has_keys, lived)
}

/// Is there anything in this directory?
fn holds(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn missing(store: bool, keys: Option<bool>, lived: bool) -> Option<&'static str> {
    match (store, keys) {
        (true, Some(false)) => Some(KEYS),
        (false, Some(true)) => Some(STORE),
        (false, _) if lived => Some(STORE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_without_the_other_is_told() {
        for (store, keys, lived, expected) in [
            (false, Some(false), false, None),
            (false, None, false, None),
            (true, Some(true), true, None),
            (true, None, true, None),
            (false, Some(true), false, Some(STORE)),
            (false, Some(true), true, Some(STORE)),
            (false, None, true, Some(STORE)),
            (true, Some(false), true, Some(KEYS)),
        ] {
            let told = missing(store, keys, lived);
            assert_eq!(told, expected, "{store} {keys:?} {lived}");
        }
    }
}
