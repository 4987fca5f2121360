//! Real programs as children: a clean environment, a deadline, and everything they said.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::process::{Child, Command};

/// A program about to run.
pub struct Program {
    name: OsString,
    command: Command,
    patience: Duration,
}

/// What a program did.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
    name: OsString,
}

impl Program {
    /// `name` from PATH, or a path. The environment holds PATH and little else: no proxy and no trust
    /// store of the machine's leaks into a test.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref().to_owned();
        let mut command = Command::new(&name);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LANG", "C.UTF-8")
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self {
            name,
            command,
            patience: Duration::from_secs(180),
        }
    }

    /// The Python of the tests' virtual environment, running `tests/clients/python/SCRIPT`.
    pub fn python(script: &str) -> Self {
        let python = tools().join("venv/bin/python");
        Self::new(present(&python)).arg(clients().join("python").join(script))
    }

    /// Node, running `tests/clients/node/SCRIPT`.
    pub fn node(script: &str) -> Self {
        present(&clients().join("node/node_modules"));
        Self::new("node").arg(clients().join("node").join(script))
    }

    /// curl of a newer Debian, which `tests/run` unpacks, by that system's own loader and with its own libraries.
    pub fn newer_curl() -> Self {
        let [loader, arguments @ ..] = newer_curl();
        Self::new(loader).args(arguments)
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// One environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Many environment variables.
    #[must_use]
    pub fn envs<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        self.command.envs(variables);
        self
    }

    /// The working directory.
    #[must_use]
    pub fn cwd(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Standard input from a file, instead of none.
    #[must_use]
    pub fn stdin(mut self, file: &Path) -> Self {
        let file = std::fs::File::open(file).unwrap();
        self.command.stdin(Stdio::from(file));
        self
    }

    /// Longer than the default three minutes.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs to the end.
    pub async fn run(mut self) -> Finished {
        let output = tokio::time::timeout(self.patience, self.command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{:?} did not end in time", self.name));
        let output = output.unwrap_or_else(|error| missing(&self.name, &error));
        Finished {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            name: self.name,
        }
    }

    /// Starts in the background, its output going to `log`.
    pub fn start(mut self, log: &Path) -> Running {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log);
        let file = file.unwrap();
        let child = self
            .command
            .stdout(Stdio::from(file.try_clone().unwrap()))
            .stderr(Stdio::from(file))
            .spawn();
        Running {
            child: child.unwrap_or_else(|error| missing(&self.name, &error)),
            log: log.to_owned(),
            name: self.name,
        }
    }
}

impl Finished {
    /// Asserts exit code 0 and answers standard output as text.
    pub fn succeeded(self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        assert!(
            self.code == Some(0),
            "{:?} exited with {:?}\n--- stdout\n{text}\n--- stderr\n{}",
            self.name,
            self.code,
            self.stderr
        );
        text
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program in the background. It is killed when dropped; its log is shown when a test fails.
pub struct Running {
    child: Child,
    log: PathBuf,
    name: OsString,
}

impl Running {
    /// Everything it said so far, both streams.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        let id = self.child.id().expect("it still runs");
        i32::try_from(id).unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit code, if it has ended (a signal reads as -1).
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap();
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end.
    pub async fn wait(&mut self, what: &str) -> i32 {
        let status = crate::tasks::within(what, self.child.wait()).await.unwrap();
        status.code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {:?} said\n{}\n---", self.name, self.said());
        }
        // Ended when this returns: its sockets and files may be the next program's.
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            let _ = self.child.start_kill();
            let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::Pid(pid), ended);
        }
    }
}

/// `tests/clients`.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Where `tests/run` puts what it installs: `target/tests`, or `$SLUICEGATE_TEST_TOOLS`.
pub fn tools() -> PathBuf {
    let chosen = std::env::var_os("SLUICEGATE_TEST_TOOLS").map(PathBuf::from);
    chosen.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tests"))
}

/// What [`Program::newer_curl`] runs: the loader, and its arguments up to the program.
pub fn newer_curl() -> [String; 4] {
    let system = present(&tools().join("curl/system/usr"));
    // By its own name: what the directories above are called is nobody's business.
    let named = |directory: &Path, part: &str| {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        let mut entries = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().contains(part)
        });
        let found = entries.next();
        found.unwrap_or_else(|| panic!("nothing named {part} in {}", directory.display()))
    };
    let libraries = named(&system.join("lib"), "-linux-gnu").path();
    let loader = named(&libraries, "ld-linux-").path();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    [
        text(&loader),
        "--library-path".to_owned(),
        text(&libraries),
        text(&system.join("bin/curl")),
    ]
}

/// A binary of this workspace: `$SLUICEGATE_BIN_DIR`, else beside the running test's own directory.
pub fn binary(name: &str) -> PathBuf {
    let directory = match std::env::var_os("SLUICEGATE_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(Path::parent).unwrap().to_owned()
        }
    };
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace --bins`, or ./tests/run, which does",
        path.display()
    );
    path
}

/// A path that `tests/run` creates.
pub fn present(path: &Path) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run ./tests/run once, which installs it",
        path.display()
    );
    path.to_owned()
}

fn missing<T>(name: &OsStr, error: &std::io::Error) -> T {
    panic!("{name:?} cannot be run ({error}): ./tests/run installs what the tests need")
}
