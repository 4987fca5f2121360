//! The one configuration file: text to types, all faults at once with line and column.
//!
//! What lives here: the typed document ([`Config`]), its defaults (`defaults.rs`, all in one place), its JSON Schema
//! ([`schema`]), and where state is kept ([`StateDir`]). What does not: what the settings do; the composition root
//! hands each module its own part, and only it and the command line read this module.

mod admin;
mod capability;
mod compat;
mod defaults;
mod dns;
mod document;
mod json;
mod keys;
mod limits;
mod listener;
mod probe;
mod provider;
mod public_url;
mod read;
mod schema;
mod state_dir;
mod store;
mod telemetry;
mod tls;
mod upstream_proxy;
mod webhook;
mod yaml;

pub use admin::{AdminConfig, CredentialConfig, ScopeConfig, TokenConfig};
pub use capability::{CapabilityConfig, CeilingConfig};
pub use compat::{CompatConfig, GestaltConfig, GestaltKeyConfig, VerifySessions};
pub use dns::{DnsConfig, DnsServer, DnsTransport};
pub use document::Config;
pub use keys::{KeysConfig, SigningKey};
pub use limits::{LimitsConfig, OwnerQuotaConfig, QuotaConfig};
pub use listener::{
    CaptureConfig, CaptureMode, IdentifyBy, KeyFiles, ListenerConfig, ListenerKind,
};
pub use probe::{ProbeConfig, ProbeFrom};
pub use provider::{OnExpiry, OnPause, ProviderConfig, ScopesConfig, SessionConfig};
pub use public_url::PublicUrl;
pub use schema::schema;
pub use state_dir::{StateDir, StateDirError};
pub use store::{RetentionConfig, StoreConfig};
pub use telemetry::{AccessLog, RefusalDetail, TelemetryConfig};
pub use tls::TlsConfig;
pub use upstream_proxy::{ProxyAsk, ProxyScheme, UpstreamProxyConfig, bypass as default_bypass};
pub use webhook::WebhookConfig;

#[cfg(test)]
mod tests;
