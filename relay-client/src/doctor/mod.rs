//! Why does it not work? Every step a stream takes, tried one by one, with what to change where one fails.
//!
//! Rooms: [`Check`] is one finding, `path` the way to the gateway, `rights` what the credentials are good for.

mod check;
mod path;
mod rights;

pub use check::{Check, Finding, Outcome};

use crate::{
    config::Config,
    transport::{Choice, Connection, Tls, Transport},
};

/// What is looked at besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// A target that the proxy must let pass: `host:port`.
    pub canary: Option<(String, u16)>,
}

/// Try everything. What a failed step makes impossible is skipped and says so.
pub async fn examine(config: &Config, tls: &Tls, wanted: &Wanted) -> Vec<Check> {
    let mut checks = path::reach(config).await;
    let tasks = tokio_util::task::TaskTracker::new();
    let mut best: Option<Connection> = None;
    for transport in transports(config) {
        let (check, connection) = path::transport(config, tls, transport, &tasks).await;
        checks.push(check);
        best = best.or(connection);
    }
    let works = best.is_some();
    for check in &mut checks {
        // One way is enough: that another is closed is worth a word.
        if works && transports(config).iter().any(|t| t.label() == check.name) {
            check.soften();
        }
    }
    let Some(connection) = best else {
        let skipped = |name: &str| Check::skipped(name, "no transport works");
        checks.extend(["transport", "token", "services", "proxy"].map(skipped));
        return checks;
    };
    checks.push(path::winner(config, tls, &tasks).await);
    checks.push(rights::token(config, tls, &connection).await);
    checks.extend(rights::services(config, &connection).await);
    checks.extend(rights::exposed(config, &connection).await);
    checks.extend(rights::proxy(config, &connection, wanted).await);
    checks
}

fn transports(config: &Config) -> Vec<Transport> {
    match config.transport {
        Choice::Only(only) => vec![only],
        Choice::Auto if config.endpoint.is_tls() => {
            vec![Transport::Quic, Transport::H2, Transport::H1]
        }
        Choice::Auto => vec![Transport::H2, Transport::H1],
    }
}
