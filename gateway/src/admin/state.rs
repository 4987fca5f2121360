//! What the routes need, handed over by the composition root.

use std::{pin::Pin, sync::Arc};

use sluicegate_policy::Admission;

use super::Trials;
use crate::{
    auth::AdminCredentials, drain::DrainWatch, probe::Prober, session::Registry,
    telemetry::Telemetry, webhook::Board,
};

/// A future in a box.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything the admin API acts on. Cheap to clone.
#[derive(Clone)]
pub struct State {
    /// The sessions.
    pub registry: Arc<Registry>,
    /// Effective profiles.
    pub prober: Arc<Prober>,
    /// How deliveries of webhooks go.
    pub webhooks: Arc<Board>,
    /// Metrics and access records.
    pub telemetry: Telemetry,
    /// Who may come in.
    pub credentials: Arc<AdminCredentials>,
    /// Host names accepted besides loopback ones: the part of `Host` before the port.
    pub allowed_hosts: Arc<[String]>,
    /// Values of `Origin` accepted; any other is refused, as no browser page has business here.
    pub allowed_origins: Arc<[String]>,
    /// How addresses are judged, as of the last reload.
    pub admission: Arc<dyn Fn() -> Arc<Admission> + Send + Sync>,
    /// Who tries policies out.
    pub trials: Trials,
    /// Begin to go down. Returns at once.
    pub drain: Arc<dyn Fn() + Send + Sync>,
    /// Apply the configuration file again: what was done, or why the old one stays.
    pub reload: Arc<dyn Fn() -> BoxFuture<Result<String, String>> + Send + Sync>,
    /// Is new work accepted? Otherwise why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// What only the composition root knows, for `status`: listeners, version, uptime.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Where long answers live until the drain ends them.
    pub tasks: DrainWatch,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
