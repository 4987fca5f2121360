//! `sluicegate-relay run`: a command that has no way out but a gateway elsewhere, as a session that was made there.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use sluicegate_relay::{
    config::{Config, ConfigError, ProxyConfig, Settings, default_directory},
    descriptors,
    isolate::{self, Directory, EXIT_CODES, Ended, IsolateError, RunFlags, Service, Signals, Ways},
    listen::Address,
    proxy::Notice,
    session::{Credential, Session, Status},
    standard,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{FLUSH, session},
    failure::{self, with_code},
    init_logging,
    options::tls,
};

/// `run`.
#[derive(Args)]
#[command(after_help = format!("{EXIT_CODES}; 122 the gateway cannot be reached (nothing was run)"))]
pub(super) struct RunArgs {
    /// The gateway's public URL [env: SLUICEGATE_RELAY_URL]
    #[arg(long)]
    url: Option<String>,
    /// A file that holds the token (else the environment's SLUICEGATE_RELAY_TOKEN); the command does not see it
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A file that holds the egress token (else the environment's SLUICEGATE_PROXY_TOKEN); the command does not see it
    #[arg(long, value_name = "FILE")]
    proxy_token_file: Option<PathBuf>,
    /// Roots to trust beside the system's, PEM [env: SLUICEGATE_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file that holds the key the tokens are bound to; the command does not see it [env: SLUICEGATE_RELAY_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// auto, quic, h2 or h1: auto races QUIC and TLS, h1 where neither passes [env: SLUICEGATE_RELAY_TRANSPORT]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// A host service at a port of the sandbox: NAME=tcp://127.0.0.1:PORT; those of SLUICEGATE_SERVICES that are not named
    /// so have a unix socket, and a variable that says where
    #[arg(long, value_name = "NAME=ADDRESS")]
    listen: Vec<String>,
    /// Not here: a static answer is the session's, and `sluicegate session create --resolve` gives it
    #[arg(long, value_name = "NAME=ADDR")]
    resolve: Vec<String>,
    /// How long to try to reach the gateway before the command begins; 0s: begin at once. Without it one attempt is made
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    run: RunFlags,
}

/// Where nothing is said of it, an attempt that gets no answer at all ends after this.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn main(args: RunArgs) -> ExitCode {
    init_logging("warn");
    // Before there is anything to be seen: the session's credentials.
    if let Err(error) = isolate::keep_others_out() {
        return with_code(isolate::FAILED, &error.into());
    }
    let descriptors = match descriptors::for_run() {
        Ok(descriptors) => descriptors,
        Err(error) => return with_code(isolate::FAILED, &error.into()),
    };
    let (config, services) = match settle(&args) {
        Ok(settled) => settled,
        Err(error) => return with_code(failure::CONFIG, &error.into()),
    };
    // Before there are threads.
    let signals = match Signals::hold() {
        Ok(signals) => signals,
        Err(error) => return with_code(isolate::FAILED, &error.into()),
    };
    let runtime = match isolate::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return with_code(isolate::FAILED, &error.into()),
    };
    let ended = runtime.block_on(run(args, config, services, signals, descriptors));
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(ended) => ended.leave(),
        Err(error) if error.is::<ConfigError>() || names_no_path(&error) => {
            with_code(failure::CONFIG, &error)
        }
        Err(error) if error.is::<Unreachable>() => with_code(isolate::UNREACHABLE, &error),
        Err(error) => with_code(isolate::FAILED, &error),
    }
}

/// Was a path given that cannot be used?
fn names_no_path(error: &anyhow::Error) -> bool {
    let found = error.downcast_ref::<IsolateError>();
    matches!(found, Some(IsolateError::Path(..)))
}

fn settle(args: &RunArgs) -> Result<(Config, Vec<Service>), ConfigError> {
    if let Some(answer) = args.resolve.first() {
        return Err(ConfigError::OfTheSession(answer.clone()));
    }
    let variable = |name: &str| std::env::var(name).ok();
    let flags = Settings {
        url: args.url.clone(),
        token_file: args.token_file.clone(),
        ca_file: args.ca.clone(),
        key_file: args.key.clone(),
        transport: args.transport.clone(),
        // Only that there is one matters: where it stands in the sandbox is settled.
        proxy: args.run.goes_out().then(|| "127.0.0.1:3128".to_owned()),
        proxy_token_file: args.proxy_token_file.clone(),
        ..Settings::default()
    };
    let env = Settings::from_env(variable);
    if let Some(placed) = args.listen.iter().find(|one| one.contains("=unix:")) {
        return Err(ConfigError::Placed(placed.clone()));
    }
    let mut listen = args.listen.clone();
    for service in &env.services {
        let named = |one: &String| one.split('=').next() == Some(service);
        if !args.listen.iter().any(named) {
            // A place of the sandbox's own; the path is settled there.
            listen.push(format!("{service}=unix:///{service}.sock"));
        }
    }
    let settings = Settings {
        listen,
        ..flags.over(Settings {
            expose: Vec::new(),
            services: Vec::new(),
            ..env
        })
    };
    let config = settings.settle(&default_directory(variable))?;
    let services = config.listen.iter().map(|listen| Service {
        name: listen.service.clone(),
        address: match &listen.address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        },
    });
    let services = services.collect();
    Ok((config, services))
}

async fn run(
    args: RunArgs,
    config: Config,
    services: Vec<Service>,
    signals: Signals,
    descriptors: Option<u64>,
) -> anyhow::Result<Ended> {
    let mut signals = signals.listen().context("signals")?;
    if args.run.is_unconfined() {
        standard::tell(format_args!(
            "sluicegate-relay: WARNING: --unconfined: the command can reach whatever this user can; the proxy variables are a mere request\n"
        ));
    }
    for exposed in config.exposed_files() {
        tracing::warn!("{exposed}");
    }
    let tls = tls(&config)?;
    let (connection, stop) = (TaskTracker::new(), CancellationToken::new());
    let session = session(&config, tls, &connection, &stop);
    let token = config.proxy.as_ref().map(ProxyConfig::credential);
    let ways = Ways {
        token: token.unwrap_or_else(|| Credential::from("")),
        notice: Notice::default(),
        session,
    };
    tokio::select! {
        waited = wait_for_gateway(&ways.session, args.wait) => waited?,
        ended = signals.ended() => return Ok(ended),
    }
    let hide = [args.token_file, args.proxy_token_file, config.key_file];
    let hide = hide.into_iter().flatten().collect();
    let hide = isolate::with_their_directories(hide);
    let confinement = args.run.confinement(services, hide, descriptors);
    let directory = Directory::new().context("a temporary directory")?;
    let ended = isolate::run(confinement, ways, signals, directory.path()).await?;
    stop.cancel();
    connection.close();
    let _ = tokio::time::timeout(FLUSH, connection.wait()).await;
    Ok(ended)
}

/// Until the gateway has said what it thinks of the token. One that takes no credential of ours is no reason not to run the
/// command, but to say so: that may change while it runs.
async fn wait_for_gateway(session: &Session, wait: Option<Duration>) -> Result<(), Unreachable> {
    if wait == Some(Duration::ZERO) {
        return Ok(());
    }
    let patience = wait.unwrap_or(PATIENCE);
    let (mut status, mut last) = (session.status(), None);
    let answered = async {
        loop {
            match &*status.borrow_and_update() {
                Status::Connecting => {}
                Status::Connected { .. } => return true,
                Status::Unauthorized { reason } => {
                    standard::tell(format_args!(
                        "sluicegate-relay: the gateway refuses the token: {reason}\n"
                    ));
                    return true;
                }
                Status::Waiting { reason, .. } => {
                    if last.is_none() && wait.is_some() {
                        standard::tell(format_args!(
                            "sluicegate-relay: waiting for the gateway: {reason}\n"
                        ));
                    }
                    last = Some(reason.clone());
                    if wait.is_none() {
                        return false;
                    }
                }
            }
            if status.changed().await.is_err() {
                return false;
            }
        }
    };
    match tokio::time::timeout(patience, answered).await {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(Unreachable {
            reason: last.unwrap_or_else(|| format!("it has not answered within {patience:?}")),
        }),
    }
}

/// No gateway, and so no command.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the gateway: {reason}\nNothing was run. To give a gateway that is starting its time: --wait 30s; to run the \
     command all the same: --wait 0s"
)]
struct Unreachable {
    reason: String,
}
