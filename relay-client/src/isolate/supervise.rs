//! From a command to its exit code: plan the sandbox, start it, have it served, attend its command.

use std::{
    ffi::OsString,
    fs, io,
    net::Ipv4Addr,
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{ExitStatus, Stdio},
    thread::available_parallelism,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    process::Command,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    CANNOT_CONFINE, FAILED,
    attend::{attend, wait},
    confinement::{Confinement, IsolateError, Network, Ways, step},
    control::{self, Go, Mapping, Plan, Prepared, Refused, Unshared},
    datagrams,
    ended::Ended,
    environment::{self, Environment, Place},
    mounts,
    plan::{What, plan, socket_name, variables},
    rights,
    serving::Serving,
    signals::Listening,
    stage,
    terminal::Terminal,
    wait::exit_code,
};
use crate::{
    listen::{Address, Listen, Listener},
    proxy::Why,
    standard,
    tasks::Tasks,
};

/// Each step of the set-up takes milliseconds; a machine that is busy gets this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is being sent when the command ends goes out within this time.
const GRACE: Duration = Duration::from_millis(500);

/// What one command sends and gets is no work for all the cores of a large machine; each thread has a stack and buffers of its own.
const WORKERS: usize = 4;

/// The runtime to call [`run`] on.
///
/// # Errors
/// There are no threads to be had.
pub fn runtime() -> io::Result<Runtime> {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS))
        .enable_all()
        .build()
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
    plan.environment = variables(&confinement, &listeners).over(inherited);
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
    let (mut inner, names) = match ready {
        Ok((inner, prepared, descriptors)) => {
            for warning in &prepared.warnings {
                // Whatever the log is for: whoever runs the command has to know what does not hold.
                standard::tell(format_args!("sluicegate: warning: {warning}\n"));
            }
            let there = listeners.into_iter().zip(&prepared.listeners);
            let there = there.filter(|(_, there)| **there).map(|(one, _)| one);
            let there: Vec<_> = there.collect();
            let ipv6 = there
                .iter()
                .any(|one| matches!(one.what, What::Capture) && one.is_ipv6());
            (inner, serving.start(there, descriptors, ipv6)?)
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
    let ended = attend(&mut outer, signals, &mut inner, terminal).await?;
    // It has ended: what it had to say has been said, or there is nothing.
    if let Ok(refused) = hear::<Refused>(&mut to_outer).await {
        let name = |address| names.name(address).map(|name| name.to_string());
        for datagrams in datagrams::told(&refused, name) {
            let notice = serving.ways.notice.of(None);
            notice.refused(&datagrams, Why::Datagrams);
        }
    }
    Ok(ended)
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
    let (descriptors, command) = (confinement.descriptors, &confinement.command);
    let mut command = itself(stage::plain_arguments(descriptors, command));
    command.kill_on_drop(true);
    let environment = environment::of(std::env::vars_os(), proxy, &places, &confinement.env);
    apply(&mut command, environment);
    let mut child = command.spawn().map_err(step("this same program"))?;
    wait(&mut child, signals).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{WORKERS, runtime};

    #[test]
    fn few_threads_whatever_the_machine() {
        let workers = runtime().unwrap().metrics().num_workers();
        assert!((1..=WORKERS).contains(&workers), "{workers}");
    }
}
