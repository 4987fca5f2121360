//! `serve`: run the gateway until told to stop.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{Failure, USAGE};
use crate::{
    app::{App, Options},
    config::{self, Config, ListenerConfig, StateDir},
    descriptors,
    listen::ListenerKind,
    telemetry::init_logging,
};

/// `serve`.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// The configuration file (YAML). Without it, the embedded defaults serve this machine alone.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where keys, sessions and the admin socket are kept.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Only check the configuration: as `sluicegate check`.
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let (config, warnings) = read_config(&args)?;
    if args.check {
        say!("the configuration is valid");
        return Ok(ExitCode::SUCCESS);
    }
    init_logging(&config.telemetry.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    tracing::debug!("effective configuration:\n{}", config.masked_yaml());
    ask_for_descriptors(&config);
    let path = StateDir::locate(args.state_dir.as_deref(), |name| std::env::var_os(name))
        .map_err(anyhow::Error::from)?;
    let state_dir = StateDir::open(&path).map_err(anyhow::Error::from)?;
    let app = App::build(Options {
        config,
        config_file: args.config,
        state_dir,
    })
    .await
    .map_err(anyhow::Error::from)?;
    announce(&app);
    let mut hangup = signal(SignalKind::hangup()).map_err(anyhow::Error::from)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let reload = app.reload_handle();
    let shutdown = async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    // The outcome is in the log either way.
                    let _ = reload().await;
                }
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
            }
        }
    };
    let cut = app.run(shutdown).await;
    if cut > 0 {
        tracing::warn!(connections = cut, "cut at the drain's deadline");
    }
    Ok(ExitCode::SUCCESS)
}

/// All this user may have; less than the connections need is for the operator to know now, not at the busiest hour.
fn ask_for_descriptors(config: &Config) {
    let (connections, needed) = (config.limits.connections, descriptors_needed(config));
    match descriptors::raise() {
        Ok(Some(limit)) if limit < needed => tracing::warn!(
            limit,
            needed,
            connections,
            "fewer file descriptors than limits.connections needs, two for each tunnel and one for each connection of a private listener: raise LimitNOFILE= or ulimit -n, or new connections are reset before that many are open"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays as it is"),
    }
}

/// How many file descriptors as many connections take as there may be: two for each tunnel of a sandbox, and one for each dial of a host,
/// whose other end is a stream of a connection that is counted already. The private listener has as many places as all others together.
fn descriptors_needed(config: &Config) -> u64 {
    let private = |listener: &ListenerConfig| listener.kind == config::ListenerKind::Private;
    let of_hosts = config.listeners.iter().any(private);
    u64::from(config.limits.connections) * (2 + u64::from(of_hosts))
}

fn read_config(args: &ServeArgs) -> Result<(Config, Vec<String>), Failure> {
    let Some(path) = &args.config else {
        return Ok((Config::default(), Vec::new()));
    };
    let name = path.display().to_string();
    let source = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(USAGE, format!("cannot read {name}: {error}")))?;
    match Config::parse(&source) {
        Ok((config, warnings)) => Ok((
            config,
            warnings.iter().map(|w| format!("{name}:{w}")).collect(),
        )),
        Err(faults) => {
            let text = faults.render(&source, &name);
            Err(Failure::new(
                USAGE,
                format!(
                    "{text}\n{name}: {} fault(s); nothing was started",
                    faults.errors.len()
                ),
            ))
        }
    }
}

/// What somebody who just started it wants to know; on standard error, as standard output may carry the access log.
fn announce(app: &App) {
    for (kind, address) in app.addresses() {
        let what = match kind {
            ListenerKind::Public => "TLS: proxy, relay, gRPC",
            ListenerKind::Plain => "plaintext: proxy, relay, gRPC",
            ListenerKind::Management => "admin API, /metrics, /readyz",
            ListenerKind::Private => "TLS with client certificates: dial targets",
            ListenerKind::Socks => "SOCKS5: proxy",
            ListenerKind::Transparent => "captured connections",
            ListenerKind::Sni => "TLS and HTTP by the name they say",
        };
        note!("listening on {address} ({}; {what})", kind.label());
    }
    note!("admin token: {}", app.admin_token_file().display());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn connections_of_hosts_need_descriptors_too() {
        let mut config = Config::default();
        config.limits.connections = 1000;
        assert_eq!(descriptors_needed(&config), 2000);
        config.listeners.last_mut().unwrap().kind = config::ListenerKind::Private;
        assert_eq!(descriptors_needed(&config), 3000);
        config.limits.connections = u32::MAX;
        assert_eq!(descriptors_needed(&config), 3 * u64::from(u32::MAX));
    }
}
