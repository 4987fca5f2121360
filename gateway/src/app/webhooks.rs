//! Webhooks of the configuration, ready to deliver.

use std::sync::Arc;

use sluicegate_certs::{TrustBundle, tls};

use super::assemble::StartError;
use crate::{
    auth::AdminToken,
    config::{Config, WebhookConfig},
    webhook::Hook,
};

/// Read secrets and trust, so that what is missing stops the start.
pub(super) fn hooks(config: &Config) -> Result<Vec<Hook>, StartError> {
    config.admin.webhooks.iter().map(hook).collect()
}

fn hook(config: &WebhookConfig) -> Result<Hook, StartError> {
    let missing = || crate::auth::AdminTokenError::Missing(config.secret_file.clone());
    AdminToken::load(&config.secret_file)?.ok_or_else(missing)?;
    let tls = if config.tls {
        let mut trust = TrustBundle::system().unwrap_or_else(|_| TrustBundle::empty());
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|source| StartError::ClientCa {
                path: path.clone(),
                source,
            })?;
            trust = trust.with_pem(&pem)?;
        }
        Some(tls::client(&trust, &[b"http/1.1"], None)?)
    } else {
        None
    };
    let mut faults = sluicegate_policy::text::Faults::default();
    let grant = config.grant(&mut faults);
    let grant = grant.ok_or_else(|| StartError::Webhook(config.name.clone()))?;
    Ok(Hook {
        name: config.name.clone(),
        url: config.url.clone(),
        target: config.target.clone(),
        path: config.path.clone(),
        tls,
        secret_file: config.secret_file.clone(),
        events: config.events.clone(),
        attempts: config.attempts,
        grant: Arc::new(grant),
    })
}
