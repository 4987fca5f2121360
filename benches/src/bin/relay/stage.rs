//! Gateway, service and relay clients as processes, with the kernel's account of each.

use std::{
    any::Any,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::origin::ECHO;

/// Whatever is started or asked answers within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Everything but the load. Killed when dropped.
pub(crate) struct Stage {
    pub(crate) gateway: Process,
    _origin: Process,
    bundle: Value,
    public: SocketAddr,
    directory: TempDir,
}

/// A relay client and where it listens.
pub(crate) struct Client {
    pub(crate) process: Process,
    pub(crate) entry: SocketAddr,
    /// Where it tells its status.
    told: TempDir,
}

/// A child of ours.
pub(crate) struct Process {
    child: Child,
    /// The pipe it writes to: closed, what it says next would be an error to it.
    _said: Box<dyn Any + Send>,
}

impl Stage {
    /// A gateway with one session that has the service `bench`.
    pub(crate) async fn set() -> anyhow::Result<Self> {
        Self::taking(256).await
    }

    /// The same; it takes so many connections of the session at once.
    pub(crate) async fn taking(connections: u32) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut origin = Command::new(std::env::current_exe()?);
        let (origin, line) = start(origin.arg("origin"), |_| true).await?;
        let service = format!("bench=tcp://127.0.0.1:{}", line.trim());
        let public = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = format!(
            "listeners:\n  - {{kind: public, address: \"{public}\"}}\n  - {{kind: management, address: \"127.0.0.1:0\"}}\n\
             telemetry: {{accessLog: \"{log}\", log: error}}\nprobe: {{interval: 0}}\nlimits: {{drainTimeout: 1s, relayConnections: {connections}}}\n",
            log = directory.path().join("access.jsonl").display()
        );
        fs::write(directory.path().join("sluicegate.yaml"), config)?;
        let gateway = serve(&directory).await?;
        let mut create = Command::new(beside("sluicegate")?);
        create.args([
            "session",
            "create",
            "--format",
            "json",
            "--idle-timeout",
            "0",
        ]);
        create.args(["--service", &service]);
        create
            .arg("--state-dir")
            .arg(directory.path().join("state"));
        let created = create.output().await?;
        let said = String::from_utf8_lossy(&created.stderr);
        ensure!(created.status.success(), "session create: {said}");
        Ok(Self {
            gateway,
            _origin: origin,
            bundle: serde_json::from_slice(&created.stdout)?,
            public,
            directory,
        })
    }

    /// Where the gateway is.
    pub(crate) fn public(&self) -> SocketAddr {
        self.public
    }

    /// A client over this transport; `way` is where it finds the gateway.
    pub(crate) async fn client(&self, transport: &str, way: SocketAddr) -> anyhow::Result<Client> {
        let mut up = Command::new(beside("sluicegate-relay")?);
        up.args(["up", "--json", "--transport", transport]);
        up.args(["--listen", "bench=tcp://127.0.0.1:0"]);
        up.args(["--url", &format!("https://{way}")]);
        let trust = self.directory.path().join("ca.pem");
        fs::write(&trust, self.pem())?;
        let token = self.bundle.pointer("/env/SLUICEGATE_RELAY_TOKEN");
        let token = token.and_then(Value::as_str).context("no relay token")?;
        up.arg("--ca")
            .arg(&trust)
            .env("SLUICEGATE_RELAY_TOKEN", token);
        let told = tempfile::tempdir()?;
        up.args(["--status", &status(&told)]);
        let (process, line) = start(up.env("RUST_LOG", "off"), is_listening).await?;
        let said: Value = serde_json::from_str(&line)?;
        let address = said
            .get("address")
            .and_then(Value::as_str)
            .and_then(|a| a.strip_prefix("tcp://"));
        let entry = address.context("no listener")?.parse()?;
        Ok(Client {
            process,
            entry,
            told,
        })
    }

    /// The same, once it has carried a stream: what is made once per connection is there before anything is counted.
    pub(crate) async fn warm_client(
        &self,
        transport: &str,
        way: SocketAddr,
    ) -> anyhow::Result<Client> {
        let client = self.client(transport, way).await?;
        drop(open(client.entry).await?);
        Ok(client)
    }

    fn pem(&self) -> String {
        let files = self.bundle.get("files").and_then(Value::as_array);
        let each = files.into_iter().flatten();
        each.filter_map(|file| file.get("pem")?.as_str()).collect()
    }

    /// SIGKILL, then the same once more. Answers when it took connections again.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<Instant> {
        self.gateway.child.kill().await?;
        self.gateway = serve(&self.directory).await?;
        Ok(Instant::now())
    }
}

impl Client {
    /// How many connections to the gateway it has.
    pub(crate) async fn connections(&self) -> anyhow::Result<u64> {
        let mut ask = Command::new(beside("sluicegate-relay")?);
        ask.args(["status", "--json", "--status", &status(&self.told)]);
        let told: Value = serde_json::from_slice(&ask.output().await?.stdout)?;
        let count = told.get("connections").and_then(Value::as_u64);
        count.context("no number of connections")
    }
}

fn status(told: &TempDir) -> String {
    format!("unix://{}", told.path().join("status.sock").display())
}

/// Among the events of a client.
fn is_listening(line: &str) -> bool {
    let said: Result<Value, _> = serde_json::from_str(line);
    said.is_ok_and(|said| said.get("event").is_some_and(|event| event == "listening"))
}

impl Process {
    /// CPU time so far, user and system, all threads, in seconds (proc_pid_stat(5), fields 14 and 15).
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        // The second field is the name in parentheses, which may hold anything; what follows are fields 3 and on.
        let (_, rest) = stat.rsplit_once(')').context("unreadable stat")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse);
        let ticks: Vec<f64> = ticks.collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Proportional set size, in KiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let rollup = self.proc("smaps_rollup")?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no Pss")?.parse()?)
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let id = self.child.id().context("a process has ended")?;
        Ok(fs::read_to_string(format!("/proc/{id}/{file}"))?)
    }
}

/// A stream that has carried its first byte there and back.
pub(crate) async fn open(entry: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(entry).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&[ECHO, b'!']).await?;
    timeout(PATIENCE, stream.read_exact(&mut [0])).await??;
    Ok(stream)
}

/// Bytes there and back.
pub(crate) async fn echo(
    stream: &mut TcpStream,
    bytes: &[u8],
    back: &mut [u8],
) -> anyhow::Result<()> {
    stream.write_all(bytes).await?;
    timeout(PATIENCE, stream.read_exact(back)).await??;
    ensure!(bytes == back, "other bytes came back");
    Ok(())
}

/// Starts a program and answers the first line of its standard output that is `wanted`.
async fn start(
    command: &mut Command,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<(Process, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let saying = async {
        loop {
            let line = lines.next_line().await?;
            let line = line.context("it ended before it said anything")?;
            if wanted(&line) {
                return anyhow::Ok(line);
            }
        }
    };
    let line = timeout(PATIENCE, saying).await??;
    let _said = Box::new(lines);
    Ok((Process { child, _said }, line))
}

async fn serve(directory: &TempDir) -> anyhow::Result<Process> {
    let mut serve = Command::new(beside("sluicegate")?);
    serve
        .arg("serve")
        .arg("--config")
        .arg(directory.path().join("sluicegate.yaml"));
    serve.arg("--state-dir").arg(directory.path().join("state"));
    let mut child = serve.stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stderr = child.stderr.take().context("no standard error")?;
    let mut said = BufReader::new(stderr).lines();
    // It announces its listeners, then the token file.
    let ready = async {
        while let Some(line) = said.next_line().await? {
            if line.starts_with("admin token") {
                return Ok(());
            }
        }
        bail!("the gateway ended before it listened")
    };
    timeout(PATIENCE, ready).await.context("not in time")??;
    let _said = Box::new(said);
    Ok(Process { child, _said })
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(
        path.exists(),
        "{} is missing: cargo build --release -p {name}",
        path.display()
    );
    Ok(path)
}
