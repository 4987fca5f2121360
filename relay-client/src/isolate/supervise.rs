//! From a command to its exit code: start the sandbox, serve what stands in it, pass on signals, wait.

use std::{
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, UdpSocket, UnixListener, UnixStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    CANNOT_CONFINE, FAILED,
    capture::{self, Capture},
    control::{self, Go, Hidden, Mapping, Plan, Prepared, Told, Unshared, Wanted},
    dns::Server,
    ended::{Ended, Keys},
    environment::{self, Environment, Place},
    forbidden::Knobs,
    hidden, mounts,
    names::Names,
    rights,
    signals::{Listening, stop_alone},
    stage,
    terminal::Terminal,
    trust,
    wait::exit_code,
};
use crate::{
    forward::forward,
    listen::{Address, Listen, Listener},
    proxy::{self, Notice, Proxy},
    session::{Credential, Session},
    tasks::Tasks,
};

/// Each step of the set-up takes milliseconds; a machine that is busy gets this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is being sent when the command ends goes out within this time.
const GRACE: Duration = Duration::from_millis(500);
/// A signal to all of a group has reached each of them within this time.
const KEY: Duration = Duration::from_millis(200);
/// Where the proxy is, in a namespace that has nothing else.
const PROXY: u16 = 3128;
/// Where captured connections arrive.
const CAPTURE: u16 = 3127;
/// What is the sandbox's own stands there.
const INSIDE: &str = "/run/sluicegate-run";
const DNS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::LOCALHOST];

/// How much of a network the command gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// Loopback, and the host services that were asked for.
    None,
    /// And the HTTP proxy.
    Proxy,
    /// And names, and every TCP connection is carried to the gateway.
    #[default]
    Transparent,
}

/// What is to be run, and how.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// Its network.
    pub network: Network,
    /// Host services, and where they are to be found inside.
    pub services: Vec<Service>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// The file system is read-only …
    pub read_only: bool,
    /// … but for this.
    pub writable: Vec<PathBuf>,
    /// Files and directories it does not get to see.
    pub hide: Vec<PathBuf>,
    /// No namespaces at all: the variables are a request, and nothing keeps the command from ignoring them.
    pub unconfined: bool,
}

/// One host service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// A loopback address in the sandbox; `None` for a unix socket.
    pub address: Option<SocketAddr>,
}

/// How to the gateway.
#[derive(Clone, Debug)]
pub struct Ways {
    /// What carries streams to services, and the way out.
    pub session: Session,
    /// The egress credential; empty where the network is none.
    pub token: Credential,
    /// Who hears of requests to the proxy that no gateway does.
    pub notice: Notice,
}

/// What confines the command failed.
#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    /// A step of the set-up.
    #[error("{0}: {1}")]
    Step(&'static str, #[source] io::Error),
    /// A path that is not UTF-8, or does not exist.
    #[error("{0}: {1}")]
    Path(PathBuf, #[source] io::Error),
    /// A listener outside, for a command that is not confined.
    #[error(transparent)]
    Listen(#[from] crate::listen::ListenError),
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> IsolateError {
    move |error| IsolateError::Step(what, error)
}

/// Run the command to its end; the code is the command's own, or one of this module's.
///
/// # Errors
/// See [`IsolateError`].
pub async fn run(
    confinement: Confinement,
    ways: Ways,
    mut signals: Listening,
    directory: &Path,
) -> Result<Ended, IsolateError> {
    let mut terminal = Terminal::open();
    let serving = Serving {
        ways,
        tasks: Tasks::default(),
        stop: CancellationToken::new(),
    };
    let ended = if confinement.unconfined {
        unconfined(confinement, &serving, &mut signals, directory).await
    } else {
        let terminal = terminal.as_mut();
        confined(confinement, &serving, &mut signals, terminal, directory).await
    };
    terminal.inspect(Terminal::take_back);
    serving.stop.cancel();
    serving.tasks.end(GRACE).await;
    ended
}

/// What serves the listeners.
struct Serving {
    ways: Ways,
    tasks: Tasks,
    stop: CancellationToken,
}

async fn confined(
    confinement: Confinement,
    serving: &Serving,
    signals: &mut Listening,
    terminal: Option<&mut Terminal>,
    directory: &Path,
) -> Result<Ended, IsolateError> {
    let (listeners, mut plan) = plan(&confinement, directory)?;
    let (mut to_outer, theirs) =
        connection().map_err(step("a connection to what confines the command"))?;
    let mut inherited: Vec<_> = std::env::vars_os().collect();
    if plan.read_only {
        let temporary = plan.directory.join(mounts::TEMPORARY);
        inherited.retain(|(name, _)| name != "TMPDIR");
        inherited.push(("TMPDIR".into(), temporary.into()));
    }
    plan.environment = environment(&confinement, &listeners).over(inherited);
    let mut command = itself(stage::arguments(directory, &confinement.command));
    // Nobody's: some variables name code (LD_PRELOAD), and what is the command's begins inside.
    command.env_clear();
    command.stdin(Stdio::from(theirs));
    let mut outer = command.spawn().map_err(step("this same program"))?;
    // With it goes our copy of the other end: the outer process alone has it now.
    drop(command);
    let pid = outer.id();
    // The outer process sees our end by its connection, the inner one by its own. Where the set-up fails, the outer one must
    // not do so before the inner one has said why.
    let ready = tokio::select! {
        ready = prepare(&mut to_outer, pid, &plan) => ready,
        // It has said why.
        ended = outer.wait() => return Ok(ended.map_or(Ended::with(FAILED), before_the_command)),
        ended = signals.ended() => {
            // The inner one goes with it.
            let _ = outer.kill().await;
            return Ok(ended);
        }
    };
    let mut inner = match ready {
        Ok((inner, prepared, descriptors)) => {
            for warning in &prepared.warnings {
                tracing::warn!("{warning}");
            }
            let there = listeners.into_iter().zip(&prepared.listeners);
            let there = there.filter(|(_, there)| **there).map(|(one, _)| one);
            let there: Vec<_> = there.collect();
            let ipv6 = there
                .iter()
                .any(|one| matches!(one.what, What::Capture) && one.is_ipv6());
            serving.start(there, descriptors, ipv6)?;
            inner
        }
        Err(error) => {
            // It hears that nobody waits for it any more. What it says of itself is better than what was seen of it.
            drop(to_outer);
            return match timeout(PATIENCE, outer.wait()).await {
                Ok(Ok(ended)) => Ok(before_the_command(ended)),
                _ => Err(error),
            };
        }
    };
    let go = control::encode(&Go).map_err(step("to begin"))?;
    inner.write_all(&go).await.map_err(step("to begin"))?;
    attend(&mut outer, signals, &mut inner, terminal).await
}

/// This same program, however its file is called by now.
pub(super) fn itself(arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

/// An end before the command began is never a success.
pub(super) fn before_the_command(status: ExitStatus) -> Ended {
    Ended::with(match exit_code(status) {
        CANNOT_CONFINE => CANNOT_CONFINE,
        _ => FAILED,
    })
}

/// A listener, what serves it, and where it stands.
struct Standing {
    what: What,
    wanted: Wanted,
}

impl Standing {
    fn is_ipv6(&self) -> bool {
        matches!(self.wanted, Wanted::Tcp(SocketAddr::V6(_)))
    }
}

enum What {
    Proxy,
    Capture,
    NamesUdp,
    NamesTcp,
    Service(String),
}

/// What stands in the sandbox, and the rest of the plan.
fn plan(confinement: &Confinement, outside: &Path) -> Result<(Vec<Standing>, Plan), IsolateError> {
    // A path that no command of an ordinary user can lead elsewhere while its own is set up: the directories above
    // `outside` may be the user's, to rename.
    let of_all = outside.parent().unwrap_or(outside);
    let (private, directory) = if Path::new("/run").is_dir() {
        (Path::new(INSIDE), Path::new(INSIDE))
    } else {
        (of_all, outside)
    };
    let mut standing = Vec::new();
    let mut put = |what, wanted| standing.push(Standing { what, wanted });
    if confinement.network != Network::None {
        put(
            What::Proxy,
            Wanted::Tcp((Ipv4Addr::LOCALHOST, PROXY).into()),
        );
    }
    let transparent = confinement.network == Network::Transparent;
    if transparent {
        for address in DNS {
            put(What::NamesUdp, Wanted::Udp((address, 53).into()));
            put(What::NamesTcp, Wanted::Tcp((address, 53).into()));
        }
        put(
            What::Capture,
            Wanted::Tcp((Ipv4Addr::LOCALHOST, CAPTURE).into()),
        );
        put(
            What::Capture,
            Wanted::Tcp((Ipv6Addr::LOCALHOST, CAPTURE).into()),
        );
    }
    for (place, service) in confinement.services.iter().enumerate() {
        let wanted = match service.address {
            Some(address) => Wanted::Tcp(address),
            None => Wanted::Unix(directory.join(socket_name(&service.name, place))),
        };
        put(What::Service(service.name.clone()), wanted);
    }
    let real = |path: &PathBuf| {
        let refused = |error| IsolateError::Path(path.clone(), error);
        let real = fs::canonicalize(path).map_err(refused)?;
        if real.starts_with("/run") && !real.starts_with("/run/media") {
            return Err(refused(io::Error::other(
                "it is below /run, which is covered",
            )));
        }
        Ok(real)
    };
    let writable: Result<Vec<_>, _> = confinement.writable.iter().map(real).collect();
    let writable = writable?;
    let hide = [&confinement.hide[..], &[of_all.to_owned()]].concat();
    let hidden = hidden::find(&hide, &writable, |name| std::env::var_os(name));
    let mut hidden = hidden.map_err(step("what listens"))?;
    // Its place is taken by a file system of the sandbox's own.
    let mut files = files(transparent);
    files.extend(trust::kept(&hidden, |name| std::env::var(name).ok()));
    hidden.retain(|one| match one {
        Hidden::Directory(path) | Hidden::File(path) => !path.starts_with(private),
    });
    let plan = Plan {
        knobs: Knobs::read(),
        private: private.to_owned(),
        directory: directory.to_owned(),
        capture: transparent.then_some(CAPTURE),
        listeners: standing.iter().map(|one| one.wanted.clone()).collect(),
        files,
        hidden,
        read_only: confinement.read_only,
        writable,
        environment: Vec::new(),
    };
    Ok((standing, plan))
}

/// `cache:main` → `cache_main.sock`. Two that would be alike are told apart by their place.
fn socket_name(service: &str, place: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if service.chars().all(plain) {
        return format!("{service}.sock");
    }
    let safe = |c| if plain(c) { c } else { '_' };
    let safe: String = service.chars().map(safe).collect();
    format!("{safe}.{place}.sock")
}

/// The resolver's files: our name server, and no names but this machine's own.
fn files(transparent: bool) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let hosts = format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.0.1 {host}\n"
    );
    if let Ok(path) = fs::canonicalize("/etc/hosts") {
        files.push((path, hosts));
    }
    let conf = if transparent {
        "nameserver 127.0.0.53\noptions edns0 timeout:5 attempts:2\n"
    } else {
        "# There are no names here.\nnameserver 127.0.0.53\noptions timeout:1 attempts:1\n"
    };
    if let Ok(path) = fs::canonicalize("/etc/resolv.conf") {
        files.push((path, conf.to_owned()));
    }
    files
}

fn environment(confinement: &Confinement, listeners: &[Standing]) -> Environment {
    let proxy = listeners
        .iter()
        .find_map(|one| match (&one.what, &one.wanted) {
            (What::Proxy, Wanted::Tcp(address)) => Some(*address),
            _ => None,
        });
    let services = listeners.iter().filter_map(|one| {
        let What::Service(service) = &one.what else {
            return None;
        };
        let address = match &one.wanted {
            Wanted::Unix(path) => Address::Unix(path.clone()),
            Wanted::Tcp(address) | Wanted::Udp(address) => Address::Tcp(*address),
        };
        Some(Place {
            service: service.clone(),
            address,
        })
    });
    let services: Vec<_> = services.collect();
    environment::of(std::env::vars_os(), proxy, &services, &confinement.env)
}

fn apply(command: &mut Command, environment: Environment) {
    for name in environment.remove {
        command.env_remove(name);
    }
    command.envs(environment.set);
}

/// A connection, and the end of it that is for another process: whoever else there is has no way to either.
fn connection() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

async fn give(stream: &UnixStream, descriptor: OwnedFd) -> io::Result<()> {
    let descriptor = [descriptor];
    let given = || control::give(stream, &descriptor);
    stream.async_io(Interest::WRITABLE, given).await
}

/// The outer process is led to the inner one, which brings the listeners.
async fn prepare(
    to_outer: &mut UnixStream,
    outer: Option<u32>,
    plan: &Plan,
) -> Result<(UnixStream, Prepared, Vec<OwnedFd>), IsolateError> {
    let prepared = async {
        let Unshared = hear(to_outer).await?;
        let mapping = map(outer)?;
        to_outer.write_all(&control::encode(&mapping)?).await?;
        let (mut inner, theirs) = connection()?;
        give(to_outer, theirs).await?;
        inner.write_all(&control::encode(plan)?).await?;
        give(&inner, io::stdin().as_fd().try_clone_to_owned()?).await?;
        let prepared: Prepared = hear(&mut inner).await?;
        let expected = prepared.listeners.iter().filter(|there| **there).count();
        let mut descriptors = Vec::new();
        while descriptors.len() < expected {
            inner.readable().await?;
            let taken = inner.try_io(Interest::READABLE, || {
                control::take(&inner, &mut descriptors)
            });
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => taken?,
            }
        }
        io::Result::Ok((inner, prepared, descriptors))
    };
    match timeout(PATIENCE, prepared).await {
        Ok(prepared) => prepared.map_err(step("to confine the command")),
        Err(_) => Err(step("to confine the command")(
            io::ErrorKind::TimedOut.into(),
        )),
    }
}

async fn hear<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut bytes = vec![0; control::sane(length)?];
    stream.read_exact(&mut bytes).await?;
    control::decode(&bytes)
}

/// Where we may, the ids of the new user namespace are all of ours, as they are.
fn map(outer: Option<u32>) -> io::Result<Mapping> {
    let Some(pid) = outer.filter(|_| rights::may_map_ids()) else {
        return Ok(Mapping::Own);
    };
    for kind in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{kind}"))?;
        let same = own.lines().filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let (first, count) = (columns.next()?, columns.nth(1)?);
            Some(format!("{first} {first} {count}\n"))
        });
        fs::write(format!("/proc/{pid}/{kind}"), same.collect::<String>())?;
    }
    Ok(Mapping::Written)
}

impl Serving {
    fn start(
        &self,
        listeners: Vec<Standing>,
        descriptors: Vec<OwnedFd>,
        ipv6: bool,
    ) -> Result<(), IsolateError> {
        let names = Names::new(self.ways.session.clone(), self.ways.token.clone());
        let server = Server {
            names: names.clone(),
            ipv6,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        let capture = Capture {
            session: self.ways.session.clone(),
            token: self.ways.token.clone(),
            names,
            places: capture::places(),
            notice: self.ways.notice.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        for (one, descriptor) in listeners.into_iter().zip(descriptors) {
            let adopted = adopt(one.wanted, descriptor).map_err(step("a listener"))?;
            match (one.what, adopted) {
                (What::NamesUdp, Adopted::Udp(socket)) => {
                    self.tasks.spawn(server.clone().serve_udp(socket));
                }
                (What::NamesTcp, Adopted::Stream(Listener::Tcp(listener))) => {
                    self.tasks.spawn(server.clone().serve_tcp(listener));
                }
                (What::Capture, Adopted::Stream(Listener::Tcp(listener))) => {
                    self.tasks.spawn(capture.clone().serve(listener));
                }
                (What::Proxy, Adopted::Stream(listener)) => self.proxy(listener, true),
                (What::Service(name), Adopted::Stream(listener)) => {
                    self.service(&name, listener, true)
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `any_uid`: whoever reaches it is in the sandbox.
    fn proxy(&self, listener: Listener, any_uid: bool) {
        let proxy = Proxy {
            session: self.ways.session.clone(),
            token: self.ways.token.clone(),
            any_uid,
            notice: self.ways.notice.clone(),
            tasks: self.tasks.clone(),
        };
        self.tasks
            .spawn(proxy::serve(listener, proxy, self.stop.clone()));
    }

    fn service(&self, name: &str, listener: Listener, any_uid: bool) {
        self.tasks.spawn(forward(
            listener,
            name.into(),
            self.ways.session.clone(),
            any_uid,
            self.tasks.clone(),
            self.stop.clone(),
        ));
    }
}

enum Adopted {
    Stream(Listener),
    Udp(UdpSocket),
}

/// A listener that was made in the sandbox. Accepting on it, and all that is accepted, is in there; this process is not.
fn adopt(wanted: Wanted, descriptor: OwnedFd) -> io::Result<Adopted> {
    Ok(match wanted {
        Wanted::Tcp(_) => {
            let listener = std::net::TcpListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Adopted::Stream(Listener::Tcp(TcpListener::from_std(listener)?))
        }
        Wanted::Udp(_) => {
            let socket = std::net::UdpSocket::from(descriptor);
            socket.set_nonblocking(true)?;
            Adopted::Udp(UdpSocket::from_std(socket)?)
        }
        Wanted::Unix(path) => {
            let listener = std::os::unix::net::UnixListener::from(descriptor);
            listener.set_nonblocking(true)?;
            Adopted::Stream(Listener::Inside(UnixListener::from_std(listener)?, path))
        }
    })
}

/// Until the command ends: signals to us are passed on to it, and when it stops, so do we.
async fn attend(
    outer: &mut Child,
    signals: &mut Listening,
    inner: &mut UnixStream,
    mut terminal: Option<&mut Terminal>,
) -> Result<Ended, IsolateError> {
    let mut keys = Keys::default();
    let mut ended_by = None;
    loop {
        // What it says comes before its end.
        let orders = tokio::select! {
            heard = signals.next() => {
                keys.note(heard);
                vec![heard.order()]
            }
            told = told(inner) => match (told, &mut terminal) {
                (Some(Told::Stopped(signal)), Some(terminal)) => terminal.stopped(signal, signals).await,
                // Without a terminal nobody waits for it to stop: it stays so until it is told to go on.
                (Some(Told::Stopped(_)), None) => Vec::new(),
                (Some(Told::Ended(signal)), _) => {
                    ended_by = Some(signal.into());
                    Vec::new()
                }
                (None, _) => break,
            },
        };
        for order in orders {
            // It may have ended just now.
            let _ = inner.write_all(&[order.byte()]).await;
        }
    }
    // Nobody is left who could say anything, nor go on.
    let ended = outer.wait().await.map_err(step("the command's end"))?;
    let past_us = terminal.is_some_and(|terminal| terminal.is_lent());
    Ok(keys.end(ended, ended_by, past_us))
}

/// The next thing; `None` where that was all.
async fn told(inner: &mut UnixStream) -> Option<Told> {
    let byte = inner.read_u8().await.ok()?;
    Some(Told::of(byte))
}

/// The same for a command that is our own child, in our own group: it has what the terminal sends.
async fn wait(child: &mut Child, signals: &mut Listening) -> Result<Ended, IsolateError> {
    let mut keys = Keys::default();
    loop {
        tokio::select! {
            ended = child.wait() => {
                let ended = ended.map_err(step("the command's end"))?;
                // A key that has ended it is ours as well, and may be heard of a moment later.
                if keys.misses(ended)
                    && let Ok(heard) = timeout(KEY, signals.next()).await
                {
                    keys.note(heard);
                }
                return Ok(keys.end_of_child(ended));
            }
            heard = signals.next() => {
                keys.note(heard);
                if !heard.from_the_terminal {
                    send(child, heard.signal);
                }
                if heard.is(Signal::SIGTSTP) {
                    stop_alone(Signal::SIGTSTP);
                }
            }
        }
    }
}

fn send(child: &Child, signal: u8) {
    let pid = child.id().and_then(|id| id.try_into().ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::from_named_raw(signal.into());
    if let (Some(pid), Some(signal)) = (pid, signal) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The command as a plain child, with variables that ask it to use the proxy.
async fn unconfined(
    confinement: Confinement,
    serving: &Serving,
    signals: &mut Listening,
    directory: &Path,
) -> Result<Ended, IsolateError> {
    let anywhere = || Address::Tcp((Ipv4Addr::LOCALHOST, 0).into());
    let mut proxy = None;
    if confinement.network != Network::None {
        let listener = Listener::bind(&anywhere()).await?;
        if let Address::Tcp(address) = listener.address().map_err(step("the proxy"))? {
            proxy = Some(address);
        }
        serving.proxy(listener, false);
    }
    let mut places = Vec::new();
    for (place, service) in confinement.services.iter().enumerate() {
        let wanted = match service.address {
            // The number is the host's own: another is taken.
            Some(_) => anywhere(),
            None => Address::Unix(directory.join(socket_name(&service.name, place))),
        };
        let listen = Listen {
            service: service.name.clone(),
            address: wanted,
        };
        let listener = Listener::bind(&listen.address).await?;
        places.push(Place {
            service: listen.service,
            address: listener.address().map_err(step("a service"))?,
        });
        serving.service(&service.name, listener, false);
    }
    let mut command = itself(stage::plain_arguments(&confinement.command));
    command.kill_on_drop(true);
    let environment = environment::of(std::env::vars_os(), proxy, &places, &confinement.env);
    apply(&mut command, environment);
    let mut child = command.spawn().map_err(step("this same program"))?;
    wait(&mut child, signals).await
}
