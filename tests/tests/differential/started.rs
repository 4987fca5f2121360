//! Servers of others that are started for a test: where they are, and what they log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use e2e::program::{Program, Running};
use e2e::tasks::{free_port, listening, until};
use tempfile::TempDir;

/// A program that serves. It and its files go when this is dropped.
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
    _process: Running,
    _directory: TempDir,
}

impl Started {
    /// nginx by this configuration, for the directory it may write to and the address it listens on. It logs to `seen`.
    pub(crate) async fn nginx(config: impl FnOnce(&Path, SocketAddr) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, address) = (directory.path(), loopback().await);
        std::fs::write(root.join("nginx.conf"), config(root, address)).unwrap();
        let process = Program::new(outside_path("nginx"))
            .arg("-c")
            .arg(root.join("nginx.conf"))
            .arg("-p")
            .arg(root)
            .start(&root.join("said"));
        listening("nginx", address).await;
        Self {
            address,
            log: root.join("seen"),
            _process: process,
            _directory: directory,
        }
    }

    /// HAProxy by this configuration, for the address it listens on. It logs to its standard output.
    pub(crate) async fn haproxy(config: impl FnOnce(SocketAddr) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (root, address) = (directory.path(), loopback().await);
        std::fs::write(root.join("haproxy.cfg"), config(address)).unwrap();
        let log = root.join("seen");
        let process = Program::new(outside_path("haproxy"))
            .args(["-db", "-f"])
            .arg(root.join("haproxy.cfg"))
            .start(&log);
        listening("haproxy", address).await;
        Self {
            address,
            log,
            _process: process,
            _directory: directory,
        }
    }

    /// A program that says at which port it is ready, and then what it serves.
    pub(crate) async fn script(name: &str, program: Program) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("said");
        let process = program.start(&log);
        let port = until(&format!("{name} to be ready"), || {
            let said = process.said();
            let line = said.lines().find_map(|line| line.strip_prefix("ready "));
            line.and_then(|port| port.trim().parse().ok())
        })
        .await;
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            log,
            _process: process,
            _directory: directory,
        }
    }
}

pub(crate) async fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port().await))
}

/// Debian puts servers outside an ordinary user's PATH.
fn outside_path(name: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(name);
    if path.exists() {
        path
    } else {
        PathBuf::from(name)
    }
}

/// The whole lines of a log; the last one may still be on its way.
pub(crate) fn lines(log: &Path) -> Vec<String> {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let whole = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    whole.map(str::to_owned).collect()
}

/// Its workers are the user that started it.
pub(crate) fn user_of_nginx() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    }
}
