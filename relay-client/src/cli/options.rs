//! Which gateway, as whom, and what to carry: flags over a JSON file over the session's env bundle.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use sluicegate_certs::{ClientKey, TrustBundle};
use sluicegate_relay::{
    config::{Config, ConfigError, Settings, default_directory},
    transport::Tls,
};

/// What every command that speaks to a gateway takes.
#[derive(Args)]
pub(super) struct Options {
    /// The gateway's public URL [env: SLUICEGATE_RELAY_URL]
    #[arg(long)]
    url: Option<String>,
    /// An address of the gateway, instead of what its name stands for; repeatable
    #[arg(long, value_name = "ADDRESS")]
    resolve: Vec<std::net::IpAddr>,
    /// A file that holds the token (else the environment's SLUICEGATE_RELAY_TOKEN)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Roots to trust beside the system's, PEM [env: SLUICEGATE_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file that holds the key the tokens are bound to; made by `sluicegate-relay key` [env: SLUICEGATE_RELAY_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// auto, quic, h2 or h1: auto races QUIC and TLS, h1 where neither passes [env: SLUICEGATE_RELAY_TRANSPORT]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// NAME=unix:///path or NAME=tcp://127.0.0.1:PORT; without any, one unix socket per service of the session
    #[arg(long, value_name = "NAME=ADDRESS")]
    listen: Vec<String>,
    /// A listener of this sandbox that its host may dial: NAME=unix:///path or NAME=tcp://127.0.0.1:PORT [env: SLUICEGATE_EXPOSE]
    #[arg(long, value_name = "NAME=ADDRESS")]
    expose: Vec<String>,
    /// Also an HTTP proxy for the way out, at 127.0.0.1:PORT or unix:///path; programs need no credential
    #[arg(long, value_name = "ADDRESS")]
    proxy: Option<String>,
    /// A file that holds the proxy's token (else the environment's SLUICEGATE_PROXY_TOKEN)
    #[arg(long, value_name = "FILE")]
    proxy_token_file: Option<PathBuf>,
    /// On TCP, serve every user of this network namespace, not only the one it runs as
    #[arg(long, alias = "proxy-any-uid")]
    any_uid: bool,
    /// Tell how it is at 127.0.0.1:PORT or unix:///path: /status, /metrics, /healthz [env: SLUICEGATE_RELAY_STATUS]
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// A JSON file with url, resolve, tokenFile, caFile, keyFile, transport, listen, expose, services, proxy, proxyTokenFile,
    /// anyUid, status
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Options {
    /// Everything settled.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(super) fn settle(&self) -> Result<Config, ConfigError> {
        self.settings()?.settle(&directory())
    }

    /// The same where nothing is to be carried.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(super) fn settle_to_look(&self) -> Result<Config, ConfigError> {
        self.settings()?.settle_to_look(&directory())
    }

    fn settings(&self) -> Result<Settings, ConfigError> {
        let flags = Settings {
            url: self.url.clone(),
            resolve: self.resolve.clone(),
            token: None,
            token_file: self.token_file.clone(),
            ca_file: self.ca.clone(),
            key_file: self.key.clone(),
            transport: self.transport.clone(),
            listen: self.listen.clone(),
            expose: self.expose.clone(),
            services: Vec::new(),
            proxy: self.proxy.clone(),
            proxy_token: None,
            proxy_token_file: self.proxy_token_file.clone(),
            any_uid: self.any_uid,
            status: self.status.clone(),
        };
        let file = self
            .config
            .as_deref()
            .map(Settings::read)
            .transpose()?
            .unwrap_or_default();
        Ok(flags.over(file).over(Settings::from_env(variable)))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn directory() -> PathBuf {
    default_directory(variable)
}

/// Whom to take for the gateway, and who we are.
///
/// # Errors
/// As [`trust`]; the key's file.
pub(super) fn tls(config: &Config) -> anyhow::Result<Tls> {
    let tls = Tls::new(&trust(config)?)?;
    match &config.key_file {
        // It is for `key` to make one: a session is bound to it before there is a client.
        Some(path) => {
            let fault = |error| ConfigError::Key(path.clone(), error);
            Ok(tls.with_key(ClientKey::load(path).map_err(fault)?))
        }
        None => Ok(tls),
    }
}

/// Whom to take for the gateway.
///
/// # Errors
/// There is no system store, or the file given is none.
fn trust(config: &Config) -> anyhow::Result<TrustBundle> {
    let trust = TrustBundle::system().context("the system's trust store")?;
    let Some(path) = &config.ca_file else {
        return Ok(trust);
    };
    let pem = std::fs::read(path).map_err(|error| ConfigError::File(path.clone(), error))?;
    let fault = |error| ConfigError::Roots(path.clone(), error);
    Ok(trust.with_pem(&pem).map_err(fault)?)
}
