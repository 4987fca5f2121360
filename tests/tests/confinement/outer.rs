//! A network namespace that stands for the world.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::program::{Running, binary};
use e2e::{Ca, Dns, Origin, Program, Record, Tasks, until};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Set in the process that runs inside.
const INSIDE: &str = "SLUICEGATE_TEST_OUTER";
/// Nobody but the test itself ever sends there: to see that what watches is awake.
const CONTROL: &str = "203.0.113.77";
/// The last packet of a test goes to this.
const LAST: &str = "127.9.9.9";
/// Whoever is nobody in particular.
pub(crate) const NOBODY: u32 = 65_534;

/// Everything there is.
pub(crate) struct Outer {
    pub(crate) dns: Dns,
    pub(crate) https: Origin,
    pub(crate) http: Origin,
    pub(crate) ca: Ca,
    /// Readable by everybody; the origins serve it below `/files/`.
    pub(crate) directory: TempDir,
    tap: Running,
    /// Connections and datagrams that reached what nobody may reach.
    noticed: Arc<AtomicUsize>,
    _tasks: Tasks,
}

/// Run a test in there: this same binary once more, with this one test. `name` is the test's whole path.
pub(crate) fn outer<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Arc<Outer>) -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let outer = Arc::new(Outer::build().await);
            body(outer.clone()).await;
            outer.nothing_got_out().await;
        });
        return;
    }
    // Processes of its own as well: what is seen in /proc belongs to the test.
    let mut namespaces = vec![
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
    ];
    if !is_root() {
        namespaces.extend(["--user", "--map-root-user"]);
    }
    let done = Command::new("unshare")
        .args(namespaces)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{name}: {}\n{said}\n{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Is there anybody else the test could be? Not where it is one user who is called root.
fn has_other_users() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    is_root() && map.contains("4294967295")
}

fn ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {arguments}: {said}");
}

/// Readable for every user.
pub(crate) fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Outer {
    async fn build() -> Self {
        ip("link set lo up");
        for address in ["8.8.8.8", "10.99.0.1", "169.254.169.254", CONTROL] {
            ip(&format!("address add {address}/32 dev lo"));
        }
        ip("-6 address add 2606:4700:4700::1111/128 dev lo nodad");
        // Whatever else is sent anywhere is seen as well.
        ip("route add default dev lo");
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        for name in ["tmp", "home", "bin"] {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        for name in ["sluicegate", "sluicegate-relay"] {
            let path = directory.path().join("bin").join(name);
            std::fs::copy(binary(name), &path).unwrap();
            open_to_all(&path);
        }
        let (dns, ca) = (Dns::start().await, Ca::create());
        for name in ["api.allowed.test", "plain.allowed.test", "evil.test"] {
            dns.point(name);
        }
        let root = directory.path().to_owned();
        let https = Origin::https(root.clone(), &ca, &["api.allowed.test", "evil.test"]).await;
        let http = Origin::http(root).await;
        std::fs::write(directory.path().join("ca.pem"), ca.pem()).unwrap();
        let (tasks, noticed) = (Tasks::default(), Arc::<AtomicUsize>::default());
        let watched = [
            "8.8.8.8",
            "10.99.0.1",
            "169.254.169.254",
            CONTROL,
            "2606:4700:4700::1111",
        ];
        for address in watched {
            for port in [22, 53, 80, 443, 5432] {
                watch(&tasks, &noticed, address.parse().unwrap(), port).await;
            }
        }
        let tap = tap(directory.path()).await;
        let outer = Self {
            dns,
            https,
            http,
            ca,
            directory,
            tap,
            noticed,
            _tasks: tasks,
        };
        outer.would_notice().await;
        outer
    }

    /// What is not noticed now would not be noticed later.
    async fn would_notice(&self) {
        TcpStream::connect((CONTROL, 443)).await.unwrap();
        until("the listener to notice", || {
            (self.noticed.swap(0, Ordering::SeqCst) > 0).then_some(())
        })
        .await;
        until("the capture to see it", || {
            (!self.captured(CONTROL).is_empty()).then_some(())
        })
        .await;
    }

    fn captured(&self, what: &str) -> Vec<String> {
        let said = self.tap.said();
        let lines = said.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect()
    }

    /// No listener noticed anything, and no packet went anywhere but from loopback to loopback.
    pub(crate) async fn nothing_got_out(&self) {
        // A packet of our own comes after all those before it.
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(b"end", (LAST, 9)).await.unwrap();
        until("the capture to be current", || {
            (!self.captured(LAST).is_empty()).then_some(())
        })
        .await;
        assert_eq!(self.noticed.load(Ordering::SeqCst), 0, "a listener noticed");
        let mut leaked = self.captured(" IP");
        leaked.retain(|line| !line.contains(CONTROL) && !line.contains(LAST));
        assert!(leaked.is_empty(), "packets went out: {leaked:#?}");
    }

    pub(crate) fn api(&self) -> String {
        format!("api.allowed.test:{}", self.https.port())
    }

    pub(crate) fn plain(&self) -> String {
        format!("plain.allowed.test:{}", self.http.port())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A program as an ordinary user, with a temporary directory whose leftovers can be seen.
    pub(crate) fn as_nobody(&self, program: &str) -> Program {
        let base = if has_other_users() {
            let id = NOBODY.to_string();
            Program::new("setpriv")
                .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
                .arg(program)
        } else {
            Program::new(program)
        };
        self.at_home(base)
    }

    /// The same user, without what root may do in a user namespace.
    pub(crate) fn without_rights(&self, program: &str) -> Program {
        if has_other_users() {
            return self.as_nobody(program);
        }
        let none = ["--bounding-set=-all", "--inh-caps=-all", "--", program];
        self.at_home(Program::new("setpriv").args(none))
    }

    pub(crate) fn at_home(&self, program: Program) -> Program {
        program
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("CURL_CA_BUNDLE", self.path("ca.pem"))
            .env("SSL_CERT_FILE", self.path("ca.pem"))
            .env("NODE_EXTRA_CA_CERTS", self.path("ca.pem"))
            .env("GIT_SSL_CAINFO", self.path("ca.pem"))
            .cwd(self.directory.path())
    }

    /// Flags that allow both origins.
    pub(crate) fn allowing(&self) -> Vec<String> {
        let (dns, log) = (self.dns.address.to_string(), self.text("home/access.jsonl"));
        let (api, plain) = (self.api(), self.plain());
        let flags = [
            "--dns",
            &dns,
            "--log",
            &log,
            "--allow",
            &api,
            "--allow",
            &plain,
            "--allow-address",
            "127.0.0.0/8",
        ];
        flags.map(str::to_owned).to_vec()
    }

    /// `sluicegate run FLAGS -- COMMAND` as an ordinary user.
    pub(crate) fn run(&self, flags: &[&str], command: &[&str]) -> Program {
        self.as_nobody(&self.text("bin/sluicegate"))
            .arg("run")
            .args(self.allowing())
            .args(flags)
            .arg("--")
            .args(command)
    }

    /// The same, started as `"$@"` by this script of a shell, which has its own mounts and IPC namespace and what rights the test has.
    pub(crate) fn run_within(&self, script: &str, flags: &[&str], command: &[&str]) -> Program {
        let shell = ["--ipc", "--mount", "--", "sh", "-ec", script, "sh"];
        let mut program = Program::new("unshare").args(shell);
        if has_other_users() {
            let id = NOBODY.to_string();
            program = program.args(["setpriv", "--reuid", &id, "--regid", &id]);
            program = program.args(["--clear-groups", "--"]);
        }
        self.at_home(program.arg(self.path("bin/sluicegate")))
            .arg("run")
            .args(self.allowing())
            .args(flags)
            .arg("--")
            .args(command)
    }

    /// What [`run`](Self::run) is as root, where the test is root.
    pub(crate) fn run_as_root(&self, flags: &[&str], command: &[&str]) -> Program {
        self.at_home(Program::new(self.path("bin/sluicegate")))
            .arg("run")
            .args(self.allowing())
            .args(flags)
            .arg("--")
            .args(command)
    }

    /// The access log of `run`.
    pub(crate) fn records(&self) -> Vec<Record> {
        let log = std::fs::read_to_string(self.path("home/access.jsonl"));
        Record::parse(&log.unwrap_or_default())
    }

    /// Is there a refusal of this target, for this reason?
    pub(crate) fn was_refused(&self, target: &str, reason: &str) -> bool {
        self.records()
            .iter()
            .any(|record| (record.text("target"), record.text("reason")) == (target, reason))
    }

    /// What runs have in the temporary directory: the directory of all of them is always there.
    pub(crate) fn left(&self) -> Vec<PathBuf> {
        let entries = |path: &Path| {
            let entries = std::fs::read_dir(path).unwrap().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let of_all = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("sluicegate-run-of-")
        };
        let (of_all, mut left): (Vec<_>, Vec<_>) =
            entries(&self.path("tmp")).into_iter().partition(of_all);
        left.extend(of_all.iter().flat_map(|path| entries(path)));
        left
    }

    /// Nothing of the runs that have ended is left in the temporary directory.
    pub(crate) async fn left_nothing(&self) {
        until("the temporary directory to be empty", || {
            self.left().is_empty().then_some(())
        })
        .await;
    }
}

async fn watch(tasks: &Tasks, noticed: &Arc<AtomicUsize>, address: IpAddr, port: u16) {
    let at = SocketAddr::from((address, port));
    let (tcp, udp) = (
        TcpListener::bind(at).await.unwrap(),
        UdpSocket::bind(at).await.unwrap(),
    );
    let count = noticed.clone();
    tasks.spawn(async move {
        while tcp.accept().await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let count = noticed.clone();
    tasks.spawn(async move {
        let mut buffer = [0; 2048];
        while udp.recv_from(&mut buffer).await.is_ok() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// Every packet but those from loopback to loopback, as text.
async fn tap(directory: &Path) -> Running {
    let tap = Program::new("tcpdump")
        .args(["-n", "-l", "--immediate-mode", "-i", "lo", "-Z", "root"])
        .arg("not (src net 127.0.0.0/8 and dst net 127.0.0.0/8 and not dst host 127.9.9.9) and not (ip6 src ::1 and ip6 dst ::1)")
        .start(&directory.join("tap.log"));
    until("the packet capture", || {
        tap.said().contains("listening on").then_some(())
    })
    .await;
    tap
}
