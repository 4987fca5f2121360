//! `run`: a command whose only way out is a gateway, and the gateway in this process, for as long as the command runs.
//!
//! The gateway is that of `serve`, with one plain listener on a port of the system's choice, a session of its own and its
//! state in a directory without a name that goes with it. The command is confined by the relay client's `isolate`, as
//! `sluicegate-relay run` does it for a gateway elsewhere. [`refusals`] tells afterwards what was refused.

mod allowed;
mod local;
mod refusals;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use sluicegate_certs::TrustBundle;
use sluicegate_relay::{
    backoff::Backoff,
    config::Settings,
    descriptors,
    isolate::{
        self, Directory, EXIT_CODES, Ended, RunFlags, Service, Signals, Unnamed, UnnamedError, Ways,
    },
    proxy::Notice,
    session::{Session, SessionConfig},
    transport::Tls,
};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, USAGE},
    output::variables,
    session_create::GrantArgs,
};
use crate::{
    app::{App, Options, StartError},
    config::{Config, StateDir},
    telemetry::{Telemetry, init_logging},
};
use refusals::Refusals;
use upstream::UpstreamProxyArgs;

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct RunArgs {
    /// A host the command may reach: `api.example.com`, `*.example.com`, `db.example.com:5432`. Without any, none.
    #[arg(long, value_name = "HOST[:PORT]")]
    allow: Vec<String>,
    /// A host it may not, whatever else says so.
    #[arg(long, value_name = "HOST[:PORT]")]
    deny: Vec<String>,
    /// A private address or range that allowed names may resolve to.
    #[arg(long, value_name = "CIDR")]
    allow_address: Vec<String>,
    /// A fixed answer for a name.
    #[arg(long, value_name = "NAME=ADDR")]
    resolve: Vec<String>,
    /// What happens to hosts nothing names, where no --allow is given.
    #[arg(long, value_name = "allow|deny")]
    default_action: Option<String>,
    /// A host service: `db=tcp://127.0.0.1:5432` is at that same port of the sandbox's loopback, `cache=unix:///run/c.sock` at
    /// a unix socket; SLUICEGATE_<NAME>_SOCKET says where.
    #[arg(long = "service", value_name = "NAME=URL")]
    services: Vec<String>,
    /// A name server to ask instead of the system's.
    #[arg(long, value_name = "ADDR[:PORT]")]
    dns: Vec<String>,
    #[command(flatten)]
    upstream: UpstreamProxyArgs,
    /// Write the access log to this file, or to standard error.
    #[arg(long, value_name = "FILE|-")]
    log: Option<PathBuf>,
    /// Say nothing of what was refused.
    #[arg(long, short)]
    quiet: bool,
    /// Tell what was refused, and the exit code, as one line of JSON on standard error.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    #[command(flatten)]
    run: RunFlags,
}

/// The built-in provider here: whoever types the command is the operator.
const PROVIDER: &str = "run";
/// Ports of the sandbox that are taken.
const TAKEN: [u16; 3] = [53, 3127, 3128];

/// From arguments to an exit code, with a runtime of its own.
pub(super) fn main(args: RunArgs) -> ExitCode {
    // What the command and its refusals say is what matters; the log is for those who ask for it by RUST_LOG.
    init_logging("off");
    let descriptors = match descriptors::for_run() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            let error = format!("cannot start: {:#}", anyhow::Error::new(error));
            return Failure::new(isolate::FAILED, error).report();
        }
    };
    // Before there is anything to be seen: the state, and the session's credentials.
    let kept_out = isolate::keep_others_out();
    let started = kept_out
        .and_then(|()| Signals::hold())
        .and_then(|signals| Ok((signals, isolate::runtime()?)));
    let (signals, runtime) = match started {
        Ok(started) => started,
        Err(error) => {
            return Failure::new(isolate::FAILED, format!("cannot start: {error}")).report();
        }
    };
    let ended = runtime.block_on(run(args, signals, descriptors));
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(ended) => ended.leave(),
        // What was typed can be mended; anything else is this program's own failure, told apart from the command's.
        Err(failure) if failure.code() == USAGE => failure.report(),
        Err(failure) => Failure::new(isolate::FAILED, failure.to_string()).report(),
    }
}

async fn run(args: RunArgs, signals: Signals, descriptors: Option<u64>) -> Result<Ended, Failure> {
    let mut signals = signals.listen().context("signals")?;
    if args.run.is_unconfined() {
        note!(
            "sluicegate: WARNING: --unconfined: the command can reach whatever this user can; the proxy variables are a mere request"
        );
    } else {
        for warning in allowed::warnings(&args.allow) {
            note!("sluicegate: warning: {warning}");
        }
    }
    let directory = Directory::new().context("a temporary directory")?;
    let keep = async {
        if args.run.is_unconfined() {
            return Ok(None);
        }
        Unnamed::new().await.map(Some)
    };
    let kept = tokio::select! {
        kept = keep => kept,
        ended = signals.ended() => return Ok(ended),
    };
    // Open for as long as the gateway lives.
    let kept = match kept {
        Ok(kept) => kept,
        Err(UnnamedError::Forbidden(ended)) => return Ok(ended),
        Err(UnnamedError::Failed(error)) => {
            return Err(anyhow::Error::new(error)
                .context("a directory in memory")
                .into());
        }
    };
    let gateway = tokio::select! {
        gateway = Gateway::start(&args, directory.path(), kept.as_ref()) => gateway?,
        ended = signals.ended() => return Ok(ended),
    };
    let services = args.services.iter().map(String::as_str);
    let flags = args.run.clone();
    let secrets = args.upstream.credential_file().map(Path::to_owned);
    let mut hide = isolate::with_their_directories(secrets.into_iter().collect());
    hide.extend(log(&args));
    let confinement = flags.confinement(places(services), hide, descriptors);
    let ways = gateway.ways.clone();
    let ended = isolate::run(confinement, ways, signals, directory.path()).await;
    let refusals = gateway.stop().await;
    let ended = ended.map_err(|error| {
        if matches!(error, isolate::IsolateError::Path(..)) {
            Failure::new(USAGE, error.to_string())
        } else {
            Failure::from(anyhow::Error::from(error))
        }
    })?;
    if args.json {
        note!("{}", refusals.json(ended.code()));
    } else if !args.quiet {
        note_whole!("{}", refusals.text());
    }
    Ok(ended)
}

/// The file of the access log, which is there by now: what the command could write there nobody could tell from the gateway's.
fn log(args: &RunArgs) -> Vec<PathBuf> {
    // Not a device; `-` is none either.
    let kept = |path: &&PathBuf| {
        let found = std::fs::metadata(path).map(|found| found.file_type());
        found.is_ok_and(|kind| kind.is_file() || kind.is_fifo())
    };
    let path = args.log.iter().filter(|path| *path != Path::new("-"));
    path.filter(kept).cloned().collect()
}

/// A file that was named can be named anew; the rest is not the user's to mend.
fn cannot_start(args: &RunArgs, error: StartError) -> Failure {
    let flag = match &error {
        StartError::AccessLog(_) => args.log.as_deref().map(|path| ("--log", path)),
        StartError::ProxyCredential(_) | StartError::NoProxyCredential(_) => args
            .upstream
            .credential_file()
            .map(|path| ("--upstream-proxy-credential-file", path)),
        // It is the only one whose certificates are read here.
        StartError::ClientCa { .. } | StartError::Tls(_) => args
            .upstream
            .ca_file()
            .map(|path| ("--upstream-proxy-ca-file", path)),
        _ => None,
    };
    let failure = Failure::from(anyhow::Error::from(error));
    match flag {
        None => failure,
        Some((flag, path)) => Failure::new(USAGE, format!("{flag} {}: {failure}", path.display())),
    }
}

/// The gateway of this command.
struct Gateway {
    ways: Ways,
    telemetry: Telemetry,
    refusals: Arc<Mutex<Refusals>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// What gathers refusals until it is told that there are no more.
    gathering: JoinSet<()>,
    recorded: CancellationToken,
}

impl Gateway {
    /// Its state, with keys and the operator's socket among it, is in `kept`, where no other command of this user finds it.
    async fn start(
        args: &RunArgs,
        directory: &Path,
        kept: Option<&Unnamed>,
    ) -> Result<Self, Failure> {
        let state_dir = match kept {
            Some(kept) => StateDir::by_descriptor(kept.path()),
            // The command is the user, and finds everything.
            None => StateDir::open(&directory.join("state")),
        };
        let state_dir = state_dir.map_err(anyhow::Error::from)?;
        let state_path = state_dir.path().to_owned();
        let options = Options {
            config: configuration(args)?,
            config_file: None,
            state_dir,
        };
        let app = App::build(options).await;
        let app = app.map_err(|error| cannot_start(args, error))?;
        let telemetry = app.telemetry().clone();
        let mut tasks = JoinSet::new();
        let (mut gathering, recorded) = (JoinSet::new(), CancellationToken::new());
        let refusals = Arc::<Mutex<Refusals>>::default();
        gathering.spawn(refusals::gather(
            telemetry.access().subscribe(),
            refusals.clone(),
            recorded.clone(),
        ));
        tasks.spawn(async move {
            app.run(std::future::pending()).await;
        });
        let admin = Client::new(&ClientArgs {
            state_dir: Some(state_path),
            ..ClientArgs::default()
        })?;
        let path = format!("/admin/api/v1/runtime/providers/{PROVIDER}/sessions");
        let request = Value::from(args.grant().to_document()?);
        let reply = admin.call(Method::POST, &path, Some(&request)).await?;
        let stop = CancellationToken::new();
        let mut ways = ways(&reply.body, directory, &stop)?;
        ways.notice = local::notice(telemetry.clone(), &reply.body)
            .context("the session is not as it should be")?;
        Ok(Self {
            ways,
            telemetry,
            refusals,
            stop,
            tasks,
            gathering,
            recorded,
        })
    }

    /// The command has ended, and nobody is served any more: what was refused.
    async fn stop(mut self) -> Refusals {
        self.stop.cancel();
        drop(self.tasks);
        self.telemetry.access().flush();
        self.recorded.cancel();
        while self.gathering.join_next().await.is_some() {}
        mem::take(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RunArgs {
    fn grant(&self) -> GrantArgs {
        GrantArgs {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            allow_address: self.allow_address.clone(),
            resolve: self.resolve.clone(),
            default_action: self.default_action.clone(),
            services: self.services.clone(),
            ..GrantArgs::default()
        }
    }
}

/// One listener, no probes, and a provider whose only bound is what the command line says.
fn configuration(args: &RunArgs) -> Result<Config, Failure> {
    let log = match &args.log {
        None => "none".to_owned(),
        Some(path) if path == Path::new("-") => "stderr".to_owned(),
        Some(path) => std::path::absolute(path)
            .context("--log")?
            .display()
            .to_string(),
    };
    let mut document = json!({
        "listeners": [{"kind": "plain", "address": "127.0.0.1:0"}],
        "probe": {"interval": "0s"},
        // Whoever types the command holds no memory back from it.
        "limits": {"relayConnections": 128},
        "telemetry": {"accessLog": log},
        "runtime": {"providers": {PROVIDER: {
            "hostServiceAccess": "relay",
            "egressMode": "hostname",
            "confinement": "gateway-only",
            "egress": {"ceiling": {"addresses": ["0.0.0.0/0", "::/0"]}},
            "session": {"idleTimeout": "0s", "maxLifetime": "8760h"},
        }}},
    });
    if let Some(document) = document.as_object_mut() {
        if !args.dns.is_empty() {
            document.insert("dns".into(), json!({"servers": args.dns}));
        }
        if let Some(proxy) = args.upstream.document()? {
            document.insert("upstreamProxy".into(), proxy);
        }
    }
    let source = document.to_string();
    match Config::parse(&source) {
        Ok((config, _)) => Ok(config),
        Err(faults) => {
            // Nobody wrote the document: what is wrong with it is wrong with a flag.
            let told = faults
                .errors
                .iter()
                .map(|fault| UpstreamProxyArgs::told(fault).unwrap_or_else(|| fault.to_string()));
            let told: Vec<String> = told.collect();
            Err(Failure::new(USAGE, told.join("\n")))
        }
    }
}

/// Connections to our own gateway, as a relay client elsewhere would have them.
fn ways(bundle: &Value, directory: &Path, stop: &CancellationToken) -> anyhow::Result<Ways> {
    let env: BTreeMap<_, _> = variables(bundle).into_iter().collect();
    let flags = Settings {
        transport: Some("h2".into()),
        proxy: Some("127.0.0.1:3128".into()),
        ..Settings::default()
    };
    let from_bundle = Settings::from_env(|name| env.get(name).cloned());
    let config = flags.over(from_bundle).settle(directory)?;
    let token = config.proxy.context("no egress token in the bundle")?.token;
    // Its tasks end with the runtime, and with `stop`.
    let tasks = TaskTracker::new();
    let session_config = SessionConfig {
        endpoint: config.endpoint,
        // Nothing here is reached over TLS.
        tls: Tls::new(&TrustBundle::empty())?,
        token: config.token.as_str().into(),
        transport: config.transport,
        backoff: Backoff::default(),
    };
    let session = Session::start(session_config, &tasks, stop.child_token());
    Ok(Ways {
        session,
        token: token.as_str().into(),
        notice: Notice::default(),
    })
}

/// Where each service is to be found: one on TCP at its own port of loopback, if that is free; else a unix socket.
fn places<'a>(services: impl Iterator<Item = &'a str>) -> Vec<Service> {
    let mut taken = BTreeSet::from(TAKEN);
    let place = |service: &str| {
        let (name, url) = service.split_once('=').unwrap_or((service, ""));
        let tcp = url.starts_with("tcp://") || url.starts_with("tls://");
        let port = url.rsplit_once(':').filter(|_| tcp);
        let port = port.and_then(|(_, port)| port.trim_end_matches('/').parse().ok());
        let port = port.filter(|port| *port != 0 && taken.insert(*port));
        Service {
            name: name.to_owned(),
            address: port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        }
    };
    services.map(place).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{RunArgs, USAGE, configuration, places};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn what_is_wrong_with_a_flag_names_the_flag() {
        let line = ["run", "--upstream-proxy=proxy.test", "--", "true"];
        let line = Line::try_parse_from(line).ok().unwrap();
        let failure = configuration(&line.run).err().unwrap();
        assert_eq!(failure.code(), USAGE);
        let told = failure.to_string();
        assert!(told.starts_with("--upstream-proxy: expected "), "{told}");
    }

    #[test]
    fn a_service_keeps_its_port_where_that_is_free() {
        let services = [
            "db=tcp://127.0.0.1:5432",
            "again=tcp://10.0.0.1:5432",
            "secure=tls://cache.example.com:6380",
            "proxy=tcp://127.0.0.1:3128",
            "cache=unix:///run/cache.sock",
            "known",
        ];
        let found = places(services.into_iter());
        let ports: Vec<_> = found
            .iter()
            .map(|service| service.address.map(|address| address.port()))
            .collect();
        assert_eq!(ports, [Some(5432), None, Some(6380), None, None, None]);
    }
}
