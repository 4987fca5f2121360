//! The gateway as a child process, configured by file and reached by its ports.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::program::{Finished, Program, Running, binary};
use crate::record::{Log, Record};
use crate::tasks::{PATIENCE, free_port, until_told, until_within};
use crate::web;
use crate::wire::Reply;

/// What a test may want otherwise than [`Settings::default`] has it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The resolver, absent when a test configures `dns` itself.
    pub dns: Option<SocketAddr>,
    /// Further entries of `listeners`, lines indented by two.
    pub listeners: String,
    /// Whole top-level YAML sections to append.
    pub more: String,
    /// Lines of the `limits` section, indented by two.
    pub limits: String,
    /// What refusals tell: `full` or `minimal`.
    pub detail: &'static str,
    /// `publicUrl`, absent for the public listener's own.
    pub public_url: Option<String>,
    /// The `runtime` section.
    pub runtime: String,
}

/// One provider, `test`, whose operator admits loopback, since every origin of a test lives there.
pub const LOOPBACK_PROVIDER: &str = "
runtime:
  providers:
    test:
      hostServiceAccess: relay
      egressMode: hostname
      canHostPlugins: true
      egress:
        allowedAddresses: [\"127.0.0.0/8\", \"::1/128\"]
        ceiling: {addresses: [\"127.0.0.0/8\", \"::1/128\"]}
";

/// The same, where nothing is excepted by itself: a session may ask for it, and only the operator's own answers lead inside.
pub const NOTHING_EXCEPTED: &str = "
runtime:
  providers:
    test:
      hostServiceAccess: relay
      egressMode: hostname
      canHostPlugins: true
      egress:
        ceiling:
          addresses:
            [\"0.0.0.0/0\", \"::/0\"]
";

impl Default for Settings {
    fn default() -> Self {
        Self {
            dns: None,
            listeners: String::new(),
            more: String::new(),
            limits: String::new(),
            detail: "full",
            public_url: None,
            runtime: LOOPBACK_PROVIDER.to_owned(),
        }
    }
}

/// Listener addresses of one gateway.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// TLS.
    pub public: SocketAddr,
    /// Plaintext on loopback.
    pub plain: SocketAddr,
    /// Management.
    pub management: SocketAddr,
}

/// A running gateway. It is killed when dropped.
pub struct Gateway {
    /// Where it listens.
    pub ports: Ports,
    /// The process.
    pub process: Running,
    directory: TempDir,
    log: Mutex<Log>,
}

impl Settings {
    /// The configuration file's text.
    pub fn yaml(&self, ports: Ports, access_log: &Path) -> String {
        let mut yaml = format!(
            "publicUrl: {url}\n\
             listeners:\n\
             \x20 - {{kind: public, address: \"{public}\"}}\n\
             \x20 - {{kind: plain, address: \"{plain}\"}}\n\
             \x20 - {{kind: management, address: \"{management}\"}}\n\
             {listeners}\
             telemetry: {{accessLog: \"{log}\", refusalDetail: {detail}}}\n",
            url = self
                .public_url
                .clone()
                .unwrap_or_else(|| format!("https://{}", ports.public)),
            public = ports.public,
            plain = ports.plain,
            management = ports.management,
            listeners = self.listeners,
            log = access_log.display(),
            detail = self.detail,
        );
        if let Some(dns) = self.dns {
            writeln!(yaml, "dns: {{servers: [\"{dns}\"]}}").unwrap();
        }
        if !self.limits.is_empty() {
            writeln!(yaml, "limits:\n{}", self.limits).unwrap();
        }
        yaml + &self.runtime + &self.more
    }
}

impl Ports {
    /// Three ports that were free a moment ago.
    pub async fn free() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            public: loopback(free_port().await),
            plain: loopback(free_port().await),
            management: loopback(free_port().await),
        }
    }
}

impl Gateway {
    /// Starts `sluicegate serve` and waits until it is ready.
    pub async fn start(settings: &Settings) -> Self {
        // Another test may take a port between our probe and the gateway's bind: then try other ports.
        for _ in 0..4 {
            let directory = tempfile::tempdir().unwrap();
            let ports = Ports::free().await;
            let config = directory.path().join("sluicegate.yaml");
            let yaml = settings.yaml(ports, &directory.path().join("access.jsonl"));
            std::fs::write(&config, yaml).unwrap();
            let process = serve(&config, directory.path());
            let mut gateway = Self {
                ports,
                process,
                directory,
                log: Mutex::default(),
            };
            if gateway.became_ready().await {
                return gateway;
            }
            let said = gateway.process.said();
            assert!(
                said.contains("in use"),
                "the gateway did not start:\n{said}"
            );
        }
        panic!("no free ports in four attempts")
    }

    async fn became_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            if self.process.ended().is_some() {
                return false;
            }
            let open = tokio::net::TcpStream::connect(self.ports.management).await;
            if open.is_ok() && self.management("/readyz").await.status() == 200 {
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "never ready:\n{}",
                self.process.said()
            );
            tick.tick().await;
        }
    }

    /// Starts the same configuration and state once more, after the process has ended.
    pub async fn restart(&mut self) {
        let config = self.directory().join("sluicegate.yaml");
        self.process = serve(&config, self.directory());
        assert!(self.became_ready().await, "{}", self.process.said());
    }

    /// The directory of its state, configuration and logs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `--state-dir`.
    pub fn state(&self) -> PathBuf {
        self.directory().join("state")
    }

    /// Replaces the configuration file, for reloads.
    pub fn reconfigure(&self, settings: &Settings) {
        let access = self.directory().join("access.jsonl");
        let yaml = settings.yaml(self.ports, &access);
        std::fs::write(self.directory().join("sluicegate.yaml"), yaml).unwrap();
    }

    /// GET on the management listener, without a credential.
    pub async fn management(&self, path: &str) -> Reply {
        web::fetch(self.ports.management, path).await
    }

    /// The admin API, with the generated token.
    pub async fn admin(&self, method: &str, path: &str, body: &str) -> Reply {
        let token = std::fs::read_to_string(self.state().join("admin.token")).unwrap();
        let extra = format!(
            "Authorization: Bearer {}\r\nContent-Type: application/json\r\n",
            token.trim()
        );
        let path = format!("/admin/api/v1{path}");
        web::request(self.ports.management, method, &path, &extra, body).await
    }

    /// Where the first listener of this kind listens, as the gateway tells.
    pub async fn listener(&self, kind: &str) -> SocketAddr {
        let all = self.listeners(kind).await;
        *all.first().unwrap_or_else(|| panic!("no {kind} listener"))
    }

    /// Where all listeners of this kind listen, in the order they are configured.
    pub async fn listeners(&self, kind: &str) -> Vec<SocketAddr> {
        let status = self.admin("GET", "/status", "").await.json();
        let listeners = status["listeners"].as_array().unwrap();
        let found = listeners.iter().filter(|one| one["kind"] == kind);
        found
            .map(|one| one["address"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    /// `sluicegate ARGUMENTS --state-dir …`.
    pub async fn cli(&self, arguments: &[&str]) -> Finished {
        Program::new(binary("sluicegate"))
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state())
            .run()
            .await
    }

    /// The value of a metric's sample, written with its labels as `/metrics` has them; 0 where absent.
    pub async fn metric(&self, sample: &str) -> f64 {
        let text = self.management("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// Waits until a sample is at least this.
    pub async fn metric_reaches(&self, sample: &str, least: f64) {
        let looked = async || (self.metric(sample).await >= least).then_some(());
        until_told(sample, looked).await;
    }

    /// Waits until a sample is this.
    pub async fn metric_is(&self, sample: &str, value: f64) {
        let looked = async || (self.metric(sample).await == value).then_some(());
        until_told(&format!("{sample} {value}"), looked).await;
    }

    /// What the process holds in memory, in KiB.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_ascii_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    /// Every access record so far.
    pub fn records(&self) -> Vec<Record> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.read(&self.directory().join("access.jsonl"))
    }

    /// Waits for the one record that `wanted` accepts. The record is written when the work ends.
    pub async fn record(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        let found = until_within(PATIENCE, || {
            self.records().into_iter().find(|record| wanted(record))
        });
        found.await.unwrap_or_else(|| {
            let records = self.records();
            let last: Vec<_> = records.iter().rev().take(20).rev().collect();
            panic!("not within {PATIENCE:?}: {what}; the last that came: {last:#?}")
        })
    }

    /// Waits for a record of `target`, as `host:port`.
    pub async fn record_of(&self, target: &str) -> Record {
        let what = format!("an access record of {target}");
        self.record(&what, |record| record.text("target") == target)
            .await
    }

    /// How many file descriptors the process has open.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Whether it has accepted the connection of this client, which is still open at its end.
    pub fn accepted(&self, client: SocketAddr) -> bool {
        let SocketAddr::V4(client) = client else {
            panic!("{client} is not in a table of IPv4");
        };
        // Addresses as the kernel prints them (proc_pid_net(5)); a connection that waits to be accepted has no inode.
        let remote = format!(
            "{:08X}:{:04X}",
            u32::from_ne_bytes(client.ip().octets()),
            client.port()
        );
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.process.id()));
        let table = table.unwrap();
        table.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            fields[2] == remote && fields[9] != "0"
        })
    }

    /// SIGTERM: drain.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// SIGHUP: reload.
    pub fn reload(&self) {
        self.process.signal(Signal::HUP);
    }
}

/// `sluicegate serve` in the background; its state is `DIRECTORY/state`, its log `DIRECTORY/gateway.log`.
pub fn serve(config: &Path, directory: &Path) -> Running {
    Program::new(binary("sluicegate"))
        .arg("serve")
        .arg("--config")
        .arg(config)
        .arg("--state-dir")
        .arg(directory.join("state"))
        .start(&directory.join("gateway.log"))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Whatever a test asked of it: no input makes the gateway panic.
        if !std::thread::panicking() {
            let said = self.process.said();
            assert!(
                !said.contains("panicked at"),
                "the gateway panicked:\n{said}"
            );
        }
    }
}
