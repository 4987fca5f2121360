//! `sluicegate-relay`: the sandbox's end of the relay.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sluicegate_certs::TrustBundle;
use sluicegate_relay::{
    backoff::Backoff,
    config::{Config, ConfigError, Settings, default_directory},
    expose::expose,
    forward::forward,
    listen::{ListenError, Listener},
    proxy::{self, Proxy},
    session::{Session, SessionConfig, Status},
    transport::{Choice, Tls},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Bad flags, file or environment: nothing was started.
const EXIT_CONFIG: u8 = 2;
/// A listener could not be bound.
const EXIT_LISTEN: u8 = 3;
/// Streams that are open when the client is asked to end get this long.
const GRACE: Duration = Duration::from_secs(5);
/// The connection itself gets this long after its last stream.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    version,
    about = "Brings the host's services into a sandbox, through a Sluicegate gateway"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Listen locally and carry each connection to its host service, until told to stop.
    Up(Up),
}

/// Exit codes: 0 stopped by SIGTERM or SIGINT; 1 failed; 2 bad flags, file or environment; 3 cannot listen.
#[derive(Args)]
struct Up {
    /// The gateway's public URL [env: SLUICEGATE_RELAY_URL]
    #[arg(long)]
    url: Option<String>,
    /// A file that holds the token (else the environment's SLUICEGATE_RELAY_TOKEN)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Roots to trust beside the system's, PEM [env: SLUICEGATE_CA_FILE]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// auto, quic or h2: auto races QUIC and TLS [env: SLUICEGATE_RELAY_TRANSPORT]
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
    /// The proxy serves every user of this network namespace, not only the one it runs as
    #[arg(long)]
    proxy_any_uid: bool,
    /// A JSON file with url, tokenFile, caFile, transport, listen, expose, services, proxy, proxyTokenFile, proxyAnyUid
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Command::Up(up) = Cli::parse().command;
    init_logging();
    let config = match settle(&up) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_CONFIG, &error.into()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &error.into()),
    };
    let code = match runtime.block_on(run(config, up.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<ListenError>() => fail(EXIT_LISTEN, &error),
        Err(error) if error.is::<ConfigError>() => fail(EXIT_CONFIG, &error),
        Err(error) => fail(1, &error),
    };
    // What the grace period left over must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("sluicegate-relay: {}", told(error));
    ExitCode::from(code)
}

/// The error and its causes, each said once: some name their cause themselves.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

/// To standard error, so that standard output is only what was asked for. `RUST_LOG` chooses; `info` without it.
fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,sluicegate_relay=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn settle(up: &Up) -> Result<Config, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let flags = Settings {
        url: up.url.clone(),
        token: None,
        token_file: up.token_file.clone(),
        ca_file: up.ca.clone(),
        transport: up.transport.clone(),
        listen: up.listen.clone(),
        expose: up.expose.clone(),
        services: Vec::new(),
        proxy: up.proxy.clone(),
        proxy_token: None,
        proxy_token_file: up.proxy_token_file.clone(),
        proxy_any_uid: up.proxy_any_uid,
    };
    let file = up
        .config
        .as_deref()
        .map(Settings::read)
        .transpose()?
        .unwrap_or_default();
    flags
        .over(file)
        .over(Settings::from_env(variable))
        .settle(&default_directory(variable))
}

fn trust(config: &Config) -> anyhow::Result<TrustBundle> {
    let trust = TrustBundle::system().context("the system's trust store")?;
    let Some(path) = &config.ca_file else {
        return Ok(trust);
    };
    let pem = std::fs::read(path).map_err(|error| ConfigError::File(path.clone(), error))?;
    trust
        .with_pem(&pem)
        .with_context(|| format!("{}", path.display()))
}

async fn run(config: Config, json: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let tls = Tls::new(&trust(&config)?)?;
    let mut listeners = Vec::new();
    for listen in &config.listen {
        listeners.push((
            Arc::<str>::from(listen.service.as_str()),
            Listener::bind(&listen.address).await?,
        ));
    }
    let proxy = match &config.proxy {
        Some(proxy) => Some((Listener::bind(&proxy.address).await?, proxy)),
        None => None,
    };
    let (listening, streams, stop) = (
        TaskTracker::new(),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    let carried = config.carried();
    let session_config = SessionConfig {
        endpoint: config.endpoint.clone(),
        tls,
        token: config.token.as_str().into(),
        transport: carried.streams,
        backoff: Backoff::default(),
    };
    // The connection has a tracker of its own: it outlives the streams it carries.
    let connection = TaskTracker::new();
    let session = Session::start(session_config.clone(), &connection, stop.child_token());
    let over_http = match carried.apart {
        Some(transport) => {
            let transport = Choice::Only(transport);
            let apart = SessionConfig {
                transport,
                ..session_config
            };
            Session::start(apart, &connection, stop.child_token())
        }
        None => session.clone(),
    };
    let accepting = stop.child_token();
    for (service, listener) in listeners {
        report(
            json,
            "listening",
            &[
                ("service", &service),
                ("address", &listener.address()?.to_string()),
            ],
        );
        listening.spawn(forward(
            listener,
            service,
            session.clone(),
            streams.clone(),
            accepting.clone(),
        ));
    }
    if let Some((listener, proxy)) = proxy {
        let address = listener.address()?.to_string().replace("tcp://", "http://");
        report(json, "proxy", &[("address", &address)]);
        let proxy = Proxy {
            session: over_http.clone(),
            token: proxy.token.as_str().into(),
            any_uid: proxy.any_uid,
            tasks: streams.clone(),
        };
        listening.spawn(proxy::serve(listener, proxy, accepting.clone()));
    }
    for exposed in config.expose {
        let address = exposed.address.to_string();
        let told = [("listener", &*exposed.listener), ("address", &address)];
        report(json, "exposing", &told);
        listening.spawn(expose(
            exposed.listener.into(),
            exposed.address,
            over_http.clone(),
            streams.clone(),
            accepting.clone(),
        ));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tell_status(session.status(), json, config.endpoint.to_string()) => {}
    }
    accepting.cancel();
    listening.close();
    listening.wait().await;
    streams.close();
    report(json, "stopping", &[("open", &streams.len().to_string())]);
    let _ = tokio::time::timeout(GRACE, streams.wait()).await;
    stop.cancel();
    drop((session, over_http));
    connection.close();
    // What the streams left in the connection's buffers still goes out.
    let _ = tokio::time::timeout(FLUSH, connection.wait()).await;
    Ok(())
}

/// Tells what the connection does, once per change, for as long as there is one to keep. Machines only: people have the
/// log.
async fn tell_status(
    mut status: tokio::sync::watch::Receiver<Status>,
    json: bool,
    gateway: String,
) {
    if !json {
        return std::future::pending().await;
    }
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        match now {
            Status::Connecting => {}
            Status::Connected { transport, why } => report(
                json,
                "connected",
                &[
                    ("gateway", &gateway),
                    ("transport", transport.label()),
                    ("why", &why),
                ],
            ),
            Status::Unauthorized { reason } => report(
                json,
                "unauthorized",
                &[("gateway", &gateway), ("reason", &reason)],
            ),
            Status::Waiting { reason, wait } => {
                let wait =
                    humantime::format_duration(Duration::from_millis(wait.as_millis() as u64))
                        .to_string();
                report(
                    json,
                    "reconnecting",
                    &[("reason", &reason), ("wait", &wait)],
                );
            }
        }
    }
}

/// One line on standard output.
fn report(json: bool, event: &str, fields: &[(&str, &str)]) {
    let line = if json {
        let mut object = serde_json::Map::new();
        object.insert("event".into(), event.into());
        object.extend(
            fields
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into())),
        );
        serde_json::Value::Object(object).to_string()
    } else {
        fields
            .iter()
            .fold(event.to_owned(), |line, (_, value)| line + " " + value)
    };
    // Whoever read it may have gone: that is no reason to stop.
    let _ = writeln!(std::io::stdout(), "{line}");
}
