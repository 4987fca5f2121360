//! The gateway as a process of its own, with one session, and the kernel's account of its CPU time.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use crate::work::Door;

/// The origin's name, a static answer of the session.
const NAME: &str = "origin.bench.test";
/// Starting and stopping take no longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// No access log: writing it is another measurement.
const CONFIG: &str = r#"
listeners:
  - {kind: public, address: "127.0.0.1:0"}
  - {kind: plain, address: "127.0.0.1:0"}
  - {kind: management, address: "127.0.0.1:0"}
telemetry: {accessLog: none, log: error}
limits: {drainTimeout: 1s}
runtime:
  providers:
    local: {egress: {ceiling: {addresses: ["127.0.0.0/8"]}}}
    bounded: {egress: {ceiling: {addresses: ["127.0.0.0/8"]}}, limits: {opensPerSecond: 50}}
"#;

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    process: Child,
    _said: Lines<BufReader<ChildStderr>>,
    proxy: SocketAddr,
    credential: String,
    /// The credential of a session that may open 50 tunnels a second.
    bounded: String,
    _directory: TempDir,
}

impl Gateway {
    /// Start the binary beside this one, and make a session that may reach the origin.
    pub(crate) async fn start(origin: SocketAddr) -> anyhow::Result<Self> {
        let binary = beside()?;
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("sluicegate.yaml");
        std::fs::write(&config, CONFIG)?;
        let state = directory.path().join("state");
        let mut process = Command::new(&binary)
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stderr = process.stderr.take().context("no standard error")?;
        let mut said = BufReader::new(stderr).lines();
        // It announces its listeners, then the token file.
        timeout(PATIENCE, async {
            while let Some(line) = said.next_line().await? {
                if line.starts_with("admin token") {
                    return Ok(());
                }
            }
            bail!("the gateway ended before it listened")
        })
        .await
        .context("the gateway did not start in time")??;
        let (credential, proxy) = session(&binary, &state, "local", origin).await?;
        let (bounded, _) = session(&binary, &state, "bounded", origin).await?;
        Ok(Self {
            process,
            _said: said,
            proxy,
            credential,
            bounded,
            _directory: directory,
        })
    }

    /// The way to the origin through this gateway.
    pub(crate) fn door(&self, origin: SocketAddr) -> Door {
        self.door_of(&self.credential, origin)
    }

    /// The same for the session that may open 50 tunnels a second.
    pub(crate) fn bounded_door(&self, origin: SocketAddr) -> Door {
        self.door_of(&self.bounded, origin)
    }

    fn door_of(&self, credential: &str, origin: SocketAddr) -> Door {
        let target = format!("{NAME}:{}", origin.port());
        let connect = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {credential}\r\n\r\n"
        );
        Door::proxy(self.proxy, connect)
    }

    /// CPU time so far, user and system, all threads, in seconds (proc_pid_stat(5), fields 14 and 15).
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let id = self.process.id().context("the gateway has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The second field is the name in parentheses, which may hold anything; what follows are fields 3 and on.
        let (_, rest) = stat.rsplit_once(')').context("unreadable stat")?;
        let ticks: Vec<f64> = rest
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(ticks.len() == 2, "unreadable stat");
        Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Drain it.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        let id = id
            .and_then(rustix::process::Pid::from_raw)
            .context("the gateway has ended")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = timeout(PATIENCE, self.process.wait())
            .await
            .context("the gateway did not drain in time")??;
        ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

/// Make a session of this provider that may reach the origin: its credential, and where the proxy is.
async fn session(
    binary: &Path,
    state: &Path,
    provider: &str,
    origin: SocketAddr,
) -> anyhow::Result<(String, SocketAddr)> {
    let create = Command::new(binary)
        .args(["session", "create", "--format", "json"])
        .args(["--idle-timeout", "0", "--provider", provider])
        .args(["--allow", &format!("{NAME}:{}", origin.port())])
        .args(["--resolve", &format!("{NAME}={}", origin.ip())])
        .arg("--state-dir")
        .arg(state)
        .output()
        .await?;
    ensure!(
        create.status.success(),
        "{}",
        String::from_utf8_lossy(&create.stderr)
    );
    let bundle: Value = serde_json::from_slice(&create.stdout)?;
    let url = bundle.pointer("/env/HTTPS_PROXY").and_then(Value::as_str);
    let (credential, place) = url
        .and_then(|url| url.strip_prefix("http://sluicegate:"))
        .and_then(|rest| rest.split_once('@'))
        .context("no proxy in the bundle")?;
    Ok((credential.to_owned(), place.parse()?))
}

fn beside() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("sluicegate");
    ensure!(
        path.exists(),
        "{} is missing: cargo build --release -p sluicegate",
        path.display()
    );
    Ok(path)
}
