//! A new configuration while serving: applied whole, or not at all.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::oneshot;

use super::{Parts, assemble, probe};
use crate::{
    auth::{AdminToken, Gestalt},
    config::Config,
    drain::DrainWatch,
};

/// Reads the configuration file again.
pub(super) struct Reloader {
    file: Option<PathBuf>,
    current: Mutex<Config>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
    drain: DrainWatch,
}

impl Reloader {
    pub(super) fn new(file: Option<PathBuf>, current: Config, drain: DrainWatch) -> Self {
        Self {
            file,
            current: Mutex::new(current),
            turn: tokio::sync::Mutex::new(()),
            drain,
        }
    }

    /// Apply the file again: what changed, or why the old configuration stays. What is begun comes to its end, though whoever asked
    /// for it goes away meanwhile: a part of it in force would be neither configuration.
    pub(super) async fn reload(self: Arc<Self>, parts: Arc<Parts>) -> Result<String, String> {
        let (tell, told) = oneshot::channel();
        let drain = self.drain.clone();
        drain.spawn_service(async move {
            // Where nobody waits for it any more, it is in the log.
            let _ = tell.send(self.in_turn(&parts).await);
        });
        told.await
            .unwrap_or_else(|_| Err("the reload broke off".to_owned()))
    }

    async fn in_turn(&self, parts: &Parts) -> Result<String, String> {
        let _turn = self.turn.lock().await;
        if !parts.registry.index().readable() {
            // Whoever asks may have mended it. Where not, the reload fails by that, and says so.
            let _ = parts.registry.look_at_store().await;
        }
        let outcome = self.apply(parts).await;
        match &outcome {
            Ok(done) => tracing::info!("reloaded: {done}"),
            Err(why) => tracing::error!("the old configuration stays: {why}"),
        }
        outcome
    }

    async fn apply(&self, parts: &Parts) -> Result<String, String> {
        let Some(file) = &self.file else {
            return Err("started without --config: there is no file to read again".to_owned());
        };
        let source = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let (config, warnings) = Config::parse(&source)
            .map_err(|faults| faults.render(&source, &file.display().to_string()))?;
        let config = config.in_state_dir(parts.state_dir.path());
        let old = self
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        needs_restart(&old, &config)?;
        let now = SystemTime::now();
        // Everything that can fail comes first; then everything is switched.
        let leaf = parts
            .identity
            .prepare(&config, now)
            .map_err(|error| chain(&error))?;
        let context = assemble::context(
            &config,
            &parts.addresses,
            &parts.registry,
            &parts.telemetry,
            &parts.reverse,
            self.drain.clone(),
            parts.presence.clone(),
            parts.opens.clone(),
            parts.gestalt.clone(),
            Some(&parts.current.now()),
        )
        .map_err(|error| chain(&error))?;
        let registry =
            assemble::registry_config(&config, &parts.addresses, &parts.identity, &parts.state_dir);
        let plan = probe::plan(
            &config,
            &registry,
            &parts.addresses,
            &parts.identity,
            &context,
            &parts.targets,
        )
        .map_err(|error| chain(&error))?;
        // Nothing is made anew here: a token that is gone was taken away by somebody.
        let token_file = assemble::token_file(&config, &parts.state_dir);
        let token = AdminToken::load(&token_file).map_err(|error| chain(&error))?;
        let token = token.ok_or_else(|| format!("there is no {}", token_file.display()))?;
        let credentials =
            assemble::admin_credentials(&config, &token).map_err(|error| chain(&error))?;
        // Files of keys may have changed, as where others rotate them.
        let keys = parts.registry.keys().clone();
        let external = config.keys.as_ref().map(assemble::external);
        let new_keys = tokio::task::spawn_blocking(move || keys.read(external));
        let new_keys = new_keys.await.map_err(|error| chain(&error))?;
        let new_keys = new_keys.map_err(|error| chain(&error))?;
        let terms = assemble::gestalt(&config);
        let terms = tokio::task::spawn_blocking(move || Gestalt::prepare(terms));
        let terms = terms.await.map_err(|error| chain(&error))?;
        let terms = terms.map_err(|error| chain(&error))?;
        // Before the first of it is cut.
        let mut open = parts.registry.index().open_now();
        open.extend(parts.gestalt.open_now());
        let current = parts.current.clone();
        let notes = parts
            .registry
            .replace_config_and(registry, move || current.replace(context))
            .await
            .map_err(|error| chain(&error))?;
        let keys = parts.registry.keys();
        let before = keys.list();
        keys.switch(new_keys);
        parts.registry.keys_changed(before);
        parts.gestalt.switch(terms);
        if let Some(leaf) = leaf {
            parts.identity.replace(leaf);
        }
        parts.credentials.follow(credentials);
        // What was let out by the context before is judged by the one in force.
        parts.registry.index().everything_looks_again();
        parts.gestalt.everything_looks_again();
        parts.prober.replace(plan);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = config;
        let mut said = vec![format!("{} applied", file.display())];
        said.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
        said.extend(notes);
        said.extend(told_of_open(&open));
        Ok(said.join("\n"))
    }
}

/// What becomes of what was open, by its number in each session that had such. How much of it is cut only those know who look, each
/// by itself.
fn told_of_open(open: &[u64]) -> Option<String> {
    let (places, sessions) = (open.iter().sum::<u64>(), open.len());
    (places > 0).then(|| {
        format!(
            "{places} open in {sessions} session(s), judged anew: what is not allowed any more is cut within a second, and its access \
             record says policy_changed or why else"
        )
    })
}

/// What is bound or opened once.
fn needs_restart(old: &Config, new: &Config) -> Result<(), String> {
    let fixed = [
        ("listeners", old.listeners == new.listeners),
        ("store.path", old.store.path == new.store.path),
        (
            "keys (the gateway's own instead of external ones, or the reverse)",
            old.keys.is_some() == new.keys.is_some(),
        ),
        ("admin", old.admin == new.admin),
        (
            "telemetry.accessLog",
            old.telemetry.access_log == new.telemetry.access_log,
        ),
        (
            "limits.connections",
            old.limits.connections == new.limits.connections,
        ),
        (
            "limits.connectionsPerSource",
            old.limits.connections_per_source == new.limits.connections_per_source,
        ),
        (
            "tls (files instead of the private CA, or the reverse)",
            old.tls.files.is_some() == new.tls.files.is_some(),
        ),
    ];
    let changed: Vec<&str> = fixed
        .iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| *name)
        .collect();
    if changed.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "a restart is needed to change: {}",
            changed.join(", ")
        ))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_was_open_is_told_of_and_nothing_where_nothing_was() {
        assert_eq!(told_of_open(&[]), None);
        let told = told_of_open(&[2, 1]).expect("something was open");
        assert!(told.starts_with("3 open in 2 session(s), "), "{told}");
        assert!(told.contains("policy_changed"), "{told}");
    }

    #[test]
    fn of_the_store_only_its_place_needs_a_restart() {
        let read = |source: &str| Config::parse(source).expect("a good file").0;
        let old = read("store: {path: /var/lib/a.redb}\n");
        let kept = "store: {path: /var/lib/a.redb, verifyEvery: 2h, retention: {sessions: 2d, events: 500}}\n";
        assert_eq!(needs_restart(&old, &read(kept)), Ok(()));
        let moved = needs_restart(&old, &read("store: {path: /var/lib/b.redb}\n"));
        assert!(moved.is_err_and(|why| why.contains("store.path")));
    }
}
