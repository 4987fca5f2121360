//! Everything the tour needs, running: peers, gateway, admin client; gone with its directory when it is closed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};
use sluicegate_certs::{Authority, ServerIdentity, TrustBundle, tls};
use tempfile::TempDir;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::peers;
use crate::{
    app::{App, Options},
    cli::client::{Client, ClientArgs},
    config::{Config, StateDir},
    telemetry::Telemetry,
};

/// The origin's name: a static answer of the session, loopback, as the operator's ceiling admits.
pub(super) const ORIGIN: &str = "api.demo.test";
/// A name that is allowed, and that DNS gives a private address.
pub(super) const INTRANET: &str = "intranet.demo.test";
/// That address.
pub(super) const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 20, 30, 40);
/// The session.
pub(super) const SESSION: &str = "demo";
/// Its provider, built in.
pub(super) const PROVIDER: &str = "local";
/// The demo CA and the origin's leaf live this long: nobody keeps a demo for longer.
const LIFE: Duration = Duration::from_secs(7 * 86_400);

/// A running stage.
pub(super) struct Stage {
    /// The origin with TLS.
    pub(super) https: SocketAddr,
    /// The origin without.
    pub(super) http: SocketAddr,
    /// The line service.
    pub(super) echo: SocketAddr,
    /// The gRPC service.
    pub(super) health: SocketAddr,
    /// Trusts the demo CA alone: the origin must prove who it is, through the tunnel.
    pub(super) origin_tls: Arc<rustls::ClientConfig>,
    /// The demo CA.
    pub(super) origin_ca: String,
    /// How many connections to the origin ended without a byte: its own witness.
    pub(super) silent: watch::Receiver<usize>,
    /// The gateway's records.
    pub(super) telemetry: Telemetry,
    admin: Client,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    gateway: JoinSet<()>,
    _peers: JoinSet<()>,
}

impl Stage {
    /// Start it all.
    pub(super) async fn build() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("sluicegate-demo-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let now = SystemTime::now();
        let authority = Authority::create("Sluicegate demo CA", now)?;
        let leaf = authority.issue_server(&[ORIGIN.to_owned()], LIFE, now)?;
        let server_tls = tls::server(&ServerIdentity::new(leaf), &[b"http/1.1"])?;
        let origin_ca = authority.certificate_pem().to_owned();
        let trust = TrustBundle::empty().with_pem(origin_ca.as_bytes())?;
        let origin_tls = tls::client(&trust, &[b"http/1.1"], None)?;
        let mut tasks = JoinSet::new();
        let silent = watch::Sender::new(0);
        let https = peers::origin(&mut tasks, Some(server_tls), silent.clone()).await?;
        let http = peers::origin(&mut tasks, None, silent.clone()).await?;
        let echo = peers::line_service(&mut tasks).await?;
        let health = peers::health_service(&mut tasks).await?;
        let names = peers::name_server(&mut tasks, INTRANET, PRIVATE).await?;

        let (telemetry, admin, stop, gateway) = start(directory.path(), names).await?;
        Ok(Self {
            https,
            http,
            echo,
            health,
            origin_tls,
            origin_ca,
            silent: silent.subscribe(),
            telemetry,
            admin,
            directory,
            stop: Some(stop),
            gateway,
            _peers: tasks,
        })
    }

    /// A file or directory of the demo's own.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The origin with TLS, as a target.
    pub(super) fn https_target(&self) -> String {
        format!("{ORIGIN}:{}", self.https.port())
    }

    /// The origin without.
    pub(super) fn http_target(&self) -> String {
        format!("{ORIGIN}:{}", self.http.port())
    }

    /// What the session asks for: two ports of the origin and a name in DNS, two host services.
    pub(super) async fn create_session(&self) -> anyhow::Result<Value> {
        let (https, http) = (self.https_target(), self.http_target());
        let request = json!({
            "id": SESSION,
            "egress": {
                "allowedHosts": [https, http, INTRANET],
                "hosts": {ORIGIN: [self.https.ip()]},
                "rules": [{"host": https, "tls": "require"}],
            },
            "services": {
                "echo": format!("tcp://{}", self.echo),
                "health": format!("tcp://{}", self.health),
            },
        });
        self.post("", Some(&request)).await
    }

    /// An action on the session, by the admin API.
    pub(super) async fn act(&self, action: &str) -> anyhow::Result<Value> {
        self.post(&format!("/{SESSION}:{action}"), None).await
    }

    async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let path = format!("/admin/api/v1/runtime/providers/{PROVIDER}/sessions{path}");
        let reply = self.admin.call(Method::POST, &path, body).await;
        let reply = reply.map_err(|failure| anyhow::anyhow!("the admin API: {failure}"))?;
        Ok(reply.body)
    }

    /// Drain the gateway and remove the directory.
    pub(super) async fn close(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        while self.gateway.join_next().await.is_some() {}
    }
}

/// The gateway of `serve`, in this process: its records, a client of its admin socket, how to stop it, and its task.
async fn start(
    directory: &Path,
    names: SocketAddr,
) -> anyhow::Result<(Telemetry, Client, oneshot::Sender<()>, JoinSet<()>)> {
    let access_log = directory.join("access.jsonl");
    let config = configuration(names, &access_log.display().to_string())?;
    let state_dir = StateDir::open(&directory.join("state"))?;
    let state_path = state_dir.path().to_owned();
    let options = Options {
        config,
        config_file: None,
        state_dir,
    };
    let app = App::build(options).await?;
    let telemetry = app.telemetry().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut gateway = JoinSet::new();
    gateway.spawn(async move {
        app.run(async {
            // A stage that was dropped stops too.
            let _ = stopped.await;
        })
        .await;
    });
    let admin = Client::new(&ClientArgs {
        state_dir: Some(state_path),
        ..ClientArgs::default()
    });
    let admin = admin.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    Ok((telemetry, admin, stop, gateway))
}

/// The built-in provider, all ports the system's choice, names asked of nobody but the demo's own server.
fn configuration(names: SocketAddr, access_log: &str) -> anyhow::Result<Config> {
    let source = format!(
        r#"
listeners:
  - {{kind: public, address: "127.0.0.1:0"}}
  - {{kind: plain, address: "127.0.0.1:0"}}
  - {{kind: management, address: "127.0.0.1:0"}}
dns: {{servers: ["{names}"], timeout: 2s}}
limits: {{drainTimeout: 1s}}
telemetry: {{accessLog: {}}}
"#,
        json!(access_log)
    );
    match Config::parse(&source) {
        Ok((config, _)) => Ok(config),
        Err(faults) => Err(anyhow::anyhow!(faults.render(&source, "demo"))),
    }
}
