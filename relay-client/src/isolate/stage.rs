//! The two processes between the supervisor and the command: this same binary, started again with words of its own, with
//! one thread each, so that it may change its namespaces.
//!
//! ```text
//! supervisor ── outer: makes user, network, process and IPC namespaces; waits; cleans up
//!                └─ inner: first process in there; loopback, routes, a mount namespace, listeners;
//!                   │      then lets go of every right
//!                   └─ the command
//! ```
//! They talk to the supervisor over [`control`](super::control), which stands where their standard input would; the
//! command's own is handed to the inner one, and so is its environment, since variables such as LD_PRELOAD name code: they
//! have none themselves. Whichever of them ends, for whatever reason, the others
//! end: the kernel kills a process namespace with its first process, the inner process dies with the outer one, and both
//! see the supervisor's end on their connections.

use std::{
    ffi::{CStr, OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::SigSet,
};
use rustix::{
    process::{
        Gid, Pid, Signal, Uid, kill_process, kill_process_group, set_parent_process_death_signal,
    },
    termios::tcsetpgrp,
};

use super::{
    CANNOT_CONFINE, FAILED,
    control::{self, Go, Mapping, Order, Plan, Prepared, Refused, Told, Unshared, Wanted},
    datagrams, filter,
    forbidden::{Knobs, Step},
    mounts, nat, netlink, rights,
    terminal::Terminal,
    wait::{Event, Watch, code_of},
};
use crate::{descriptors, standard};

/// The word that makes this binary one of the two. No user types it.
pub(super) const WORD: &str = "__confined";
const OUTER: &str = "outer";
const INNER: &str = "inner";
/// Only the command, with its signals as they should be.
const PLAIN: &str = "plain";
/// Neither: only a place for the supervisor's own files.
const KEEP: &str = "keep";

/// What the processes are called in lists.
const NAME: &CStr = c"sluicegate-box";

/// A set-up that did not work.
struct Broken {
    code: u8,
    message: String,
}

impl Broken {
    fn at(what: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self {
            code: FAILED,
            message: format!("cannot confine the command: {what}: {error}"),
        }
    }

    fn mounts(error: io::Error) -> Self {
        let inner = error.get_ref();
        if inner.is_some_and(|inner| inner.is::<mounts::Uncovered>()) {
            return Self {
                code: CANNOT_CONFINE,
                message: format!("the command cannot be confined: {error}"),
            };
        }
        Self::at("mounts")(error)
    }

    fn exec(program: &OsStr, error: &io::Error) -> Self {
        Self {
            code: super::exec_failure(error),
            message: format!("cannot run {}: {error}", program.display()),
        }
    }

    fn forbidden(knobs: &Knobs, step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self {
            code: CANNOT_CONFINE,
            message: knobs.explain(step, &error),
        }
    }
}

/// The arguments that start the outer process.
pub(super) fn arguments(directory: &Path, command: &[OsString]) -> Vec<OsString> {
    again(OUTER, directory.as_os_str(), command)
}

/// The arguments that start the command without confinement, with so many descriptors; `None`: as many as whoever starts it.
pub(super) fn plain_arguments(descriptors: Option<u64>, command: &[OsString]) -> Vec<OsString> {
    let few = descriptors.map_or_else(String::new, |few| few.to_string());
    again(PLAIN, few.as_ref(), command)
}

/// The arguments that start what makes an [`Unnamed`](super::Unnamed).
pub(super) fn keep_arguments() -> Vec<OsString> {
    again(KEEP, OsStr::new(""), &[])
}

/// `word`: what the role needs to know.
fn again(role: &str, word: &OsStr, command: &[OsString]) -> Vec<OsString> {
    let words = [OsStr::new(WORD), role.as_ref(), word];
    words
        .into_iter()
        .chain(command.iter().map(OsString::as_os_str))
        .map(OsStr::to_owned)
        .collect()
}

/// Is this process one of the two? Then this is all of it; to be called first thing in `main`, before there are threads.
pub fn reenter() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != WORD {
        return None;
    }
    let (Some(role), Some(word)) = (words.next(), words.next()) else {
        return Some(ExitCode::from(FAILED));
    };
    let command: Vec<OsString> = words.collect();
    // Only a name: nothing depends on it.
    let _ = rustix::thread::set_name(NAME);
    let ended = match role.to_str() {
        Some(OUTER) => outer(Path::new(&word), &command),
        Some(INNER) => inner(&command),
        Some(KEEP) => keep(),
        Some(PLAIN) => Err(become_plain(&word, &command)),
        _ => return Some(ExitCode::from(FAILED)),
    };
    Some(ExitCode::from(ended.unwrap_or_else(|broken| {
        standard::tell(format_args!("sluicegate: {}\n", broken.message));
        broken.code
    })))
}

fn outer(directory: &Path, command: &[OsString]) -> Result<u8, Broken> {
    // Whatever else was open when the supervisor was started is not the command's.
    close_fds::set_fds_cloexec(3, &[]);
    let terminal = Terminal::open();
    let watch = Watch::everything().map_err(Broken::at("signals"))?;
    let supervisor = control::inherited().map_err(Broken::at("the supervisor is gone"))?;
    // Read before: inside they are nobody's until they are mapped.
    let knobs = Knobs::read();
    let own = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .map_err(Broken::forbidden(&knobs, Step::User))?;
    control::say(&supervisor, &Unshared).map_err(Broken::at("the supervisor is gone"))?;
    let mapping: Mapping =
        control::hear(&supervisor).map_err(Broken::at("the supervisor is gone"))?;
    if mapping == Mapping::Own {
        map_own(own).map_err(Broken::forbidden(&knobs, Step::Map))?;
    }
    // Not the mounts: this process stays where it can clean up.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC)
        .map_err(io::Error::from)
        .map_err(Broken::forbidden(&knobs, Step::Others))?;
    rights::carry_over_exec().map_err(Broken::forbidden(&knobs, Step::Others))?;
    let theirs = control::take_one(&supervisor).map_err(Broken::at("the supervisor is gone"))?;
    let inner = itself(again(INNER, OsStr::new(""), command))
        .stdin(Stdio::from(theirs))
        .spawn()
        .map_err(Broken::at("the first process of the sandbox"))?;
    let inner = pid_of(&inner);
    let mut supervised = true;
    loop {
        match watch.next(supervised.then_some(&supervisor)) {
            Event::Ended(pid, status) if pid == inner => {
                if supervised {
                    tell_of_datagrams(&supervisor);
                } else {
                    // Nobody else is there to do it.
                    let _ = fs::remove_dir_all(directory);
                    terminal.as_ref().inspect(|terminal| terminal.take_back());
                }
                return Ok(code_of(status));
            }
            Event::Ended(..) | Event::Stopped(..) | Event::Said(_) => {}
            Event::Silence => {
                supervised = false;
                // It ends with its whole namespace; that it is gone is told by its end.
                let _ = kill_process(inner, Signal::KILL);
            }
        }
    }
}

/// With the inner process all that could send any has ended; it has no right to ask for this itself.
fn tell_of_datagrams(supervisor: &UnixStream) {
    match datagrams::refused() {
        // If nobody hears it any more, nobody wants to know.
        Ok(refused) if refused != Refused::default() => {
            let _ = control::say(supervisor, &refused);
        }
        Ok(_) => {}
        Err(error) => standard::tell(format_args!(
            "sluicegate: which datagrams were refused is not known: {error}\n"
        )),
    }
}

/// Hand over a directory in memory, and leave nothing else of it.
fn keep() -> Result<u8, Broken> {
    let asked = control::inherited().map_err(Broken::at("the supervisor is gone"))?;
    let knobs = Knobs::read();
    let own = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .map_err(Broken::forbidden(&knobs, Step::User))?;
    map_own(own).map_err(Broken::forbidden(&knobs, Step::Map))?;
    // Not earlier: the maps are written by the files of this process, which are root's then.
    rights::keep_others_out().map_err(Broken::at("its own memory"))?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(io::Error::from)
        .map_err(Broken::forbidden(&knobs, Step::Others))?;
    let kept = mounts::unnamed().map_err(Broken::at("a directory in memory"))?;
    control::give(&asked, &[kept]).map_err(Broken::at("the supervisor is gone"))?;
    Ok(0)
}

/// This same program, however its file is called by now.
fn itself(arguments: Vec<OsString>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Our own id to itself, which needs no right: and no other.
fn map_own((uid, gid): (Uid, Gid)) -> io::Result<()> {
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    // user_namespaces(7): without a right to the group map, groups must be frozen first.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn inner(command: &[OsString]) -> Result<u8, Broken> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(io::Error::from)
        .map_err(Broken::at("the tie to its parent"))?;
    let watch = Watch::everything().map_err(Broken::at("signals"))?;
    let supervisor = control::inherited().map_err(Broken::at("the supervisor is gone"))?;
    let plan: Plan = control::hear(&supervisor).map_err(Broken::at("the plan"))?;
    let input = control::take_one(&supervisor).map_err(Broken::at("standard input"))?;
    let lacking = network(&plan)?;
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(io::Error::from)
        .map_err(Broken::forbidden(&plan.knobs, Step::Others))?;
    let mut warnings = mounts::arrange(&plan).map_err(Broken::mounts)?;
    warnings.extend(lacking);
    let (listeners, descriptors) = listen(&plan.listeners).map_err(Broken::at("a listener"))?;
    let prepared = Prepared {
        listeners,
        warnings,
    };
    control::say(&supervisor, &prepared).map_err(Broken::at("the supervisor is gone"))?;
    control::give(&supervisor, &descriptors).map_err(Broken::at("the supervisor is gone"))?;
    // From here on they are the supervisor's alone.
    drop(descriptors);
    // What the command could read in this process's memory, or make it do, is nothing it cannot do itself; still.
    rights::keep_others_out().map_err(Broken::at("its own memory"))?;
    rights::let_go().map_err(Broken::at("capabilities"))?;
    filter::apply().map_err(Broken::at("the filter of system calls"))?;
    // Opened after the right to it is the same as the command's.
    let terminal = File::open("/dev/tty").ok();
    let Go = control::hear(&supervisor).map_err(Broken::at("the supervisor is gone"))?;
    if let Some(few) = plan.descriptors {
        descriptors::lower(few).map_err(Broken::at("its descriptors"))?;
    }
    let child = start(command, plan.environment, input)?;
    loop {
        match watch.next(Some(&supervisor)) {
            // With this process the rest of its namespace ends.
            Event::Ended(pid, status) if pid == child => {
                let by = status.terminating_signal();
                if let Some(signal) = by.and_then(|signal| u8::try_from(signal).ok()) {
                    let _ = (&supervisor).write_all(&[Told::Ended(signal).byte()]);
                }
                return Ok(code_of(status));
            }
            Event::Stopped(pid, signal) if pid == child => {
                // If nobody hears it any more, that is seen next.
                let _ = (&supervisor).write_all(&[Told::Stopped(signal).byte()]);
            }
            Event::Ended(..) | Event::Stopped(..) => {}
            Event::Said(order) => obey(Order::of(order), child, terminal.as_ref()),
            Event::Silence => return Ok(FAILED),
        }
    }
}

/// The command may have ended just now, or have left its group.
fn obey(order: Order, child: Pid, terminal: Option<&File>) {
    let named = |signal: u8| Signal::from_named_raw(signal.into());
    let _ = match (order, terminal) {
        (Order::Command(signal), _) => named(signal).map(|signal| kill_process(child, signal)),
        (Order::Group(signal), _) => named(signal).map(|signal| kill_process_group(child, signal)),
        (Order::Foreground, terminal) => terminal.map(|terminal| tcsetpgrp(terminal, child)),
    };
}

/// Start the command. Its failures have the codes shells give them.
fn start(
    command: &[OsString],
    environment: Vec<(OsString, OsString)>,
    input: OwnedFd,
) -> Result<Pid, Broken> {
    let (program, mut command) = split(command)?;
    command.env_clear().envs(environment);
    command.stdin(Stdio::from(input));
    // Ours is that of whoever started the supervisor: `kill 0` is not to reach them.
    command.process_group(0);
    // A child inherits what is blocked. The first process of a namespace does not die of what arrives meanwhile.
    let spawned = unblocked(|| command.spawn()).map_err(Broken::at("signals"))?;
    spawned
        .map(|child| pid_of(&child))
        .map_err(|error| Broken::exec(program, &error))
}

/// Become the command, where nothing is confined; `few`: how many descriptors it may have, if there is anything.
fn become_plain(few: &OsStr, command: &[OsString]) -> Broken {
    let few = few.to_str().and_then(|few| few.parse().ok());
    if let Some(Err(error)) = few.map(descriptors::lower) {
        return Broken {
            code: FAILED,
            message: format!("cannot give the command its own bound on open files: {error}"),
        };
    }
    match split(command) {
        Ok((program, mut command)) => match unblocked(|| command.exec()) {
            Ok(error) => Broken::exec(program, &error),
            Err(error) => Broken::at("signals")(error),
        },
        Err(broken) => broken,
    }
}

fn split(command: &[OsString]) -> Result<(&OsString, Command), Broken> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Broken {
            code: FAILED,
            message: "there is no command".to_owned(),
        });
    };
    let mut command = Command::new(program);
    command.args(arguments);
    Ok((program, command))
}

fn unblocked<T>(run: impl FnOnce() -> T) -> io::Result<T> {
    let before = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    let ran = run();
    before.thread_set_mask()?;
    Ok(ran)
}

/// What could not be had and does no harm comes back.
fn network(plan: &Plan) -> Result<Option<String>, Broken> {
    netlink::loopback_up().map_err(Broken::at("loopback"))?;
    for address in netlink::OWN {
        match netlink::has(address) {
            // There may be no IPv6.
            Err(error) if address.is_ipv4() => return Err(Broken::at("its own address")(error)),
            _ => {}
        }
    }
    let Some(port) = plan.capture else {
        return Ok(None);
    };
    netlink::everything_is_here(false).map_err(Broken::at("routes"))?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        netlink::everything_is_here(true).map_err(Broken::at("IPv6 routes"))?;
    }
    nat::redirect_tcp(port).map_err(|error| Broken {
        code: CANNOT_CONFINE,
        message: format!(
            "the kernel cannot redirect connections ({error}): it has no nf_tables with NAT (nf_tables, nft_chain_nat, \
             nft_redir). Nothing was run. Without it: --net proxy"
        ),
    })?;
    // Nothing carries them either way.
    let refused = datagrams::refuse().err().map(|error| {
        format!(
            "a program that sends a datagram waits for its answer as long as it likes: the kernel cannot refuse them at once ({error}; \
             nft_reject_inet)"
        )
    });
    Ok(refused)
}

/// Bind what is wanted. An IPv6 address that cannot be had is left out: there may be no IPv6.
fn listen(wanted: &[Wanted]) -> io::Result<(Vec<bool>, Vec<OwnedFd>)> {
    let (mut there, mut descriptors) = (Vec::new(), Vec::new());
    for one in wanted {
        let (bound, ipv6) = match one {
            Wanted::Tcp(address) => (
                std::net::TcpListener::bind(address).map(Into::into),
                address.is_ipv6(),
            ),
            Wanted::Udp(address) => (
                std::net::UdpSocket::bind(address).map(Into::into),
                address.is_ipv6(),
            ),
            Wanted::Unix(path) => (
                std::os::unix::net::UnixListener::bind(path).map(Into::into),
                false,
            ),
        };
        there.push(bound.is_ok());
        match bound {
            Ok(descriptor) => descriptors.push(descriptor),
            Err(_) if ipv6 => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{one:?}: {error}"))),
        }
    }
    Ok((there, descriptors))
}
