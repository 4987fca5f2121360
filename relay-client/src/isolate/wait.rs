//! What a process that only waits waits for: children, and its connection to the supervisor.

use std::{
    io::{self, Read},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::ExitStatus,
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, WaitOptions, WaitStatus},
};

/// Every signal, read instead of suffered: what the terminal sends to all is the command's business.
pub(super) struct Watch {
    signals: SignalFd,
}

/// What happened.
pub(super) enum Event {
    /// A child, or an orphan that became one.
    Ended(Pid, WaitStatus),
    /// A child was stopped, by this signal.
    Stopped(Pid, u8),
    /// A byte from the supervisor.
    Said(u8),
    /// The supervisor is gone.
    Silence,
}

impl Watch {
    /// Block all signals of this process, which has one thread.
    pub(super) fn everything() -> io::Result<Self> {
        let all = SigSet::all();
        all.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let mut children = SigSet::empty();
        children.add(Signal::SIGCHLD);
        Ok(Self {
            signals: SignalFd::with_flags(&children, flags)?,
        })
    }

    /// The next thing that happens. `supervisor` is `None` once it is known to be gone.
    pub(super) fn next(&self, supervisor: Option<&UnixStream>) -> Event {
        loop {
            // One signal may stand for several children: they are asked for until there is none.
            let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
            if let Ok(Some((pid, status))) = rustix::process::wait(options) {
                return match status.stopping_signal() {
                    Some(signal) => Event::Stopped(pid, u8::try_from(signal).unwrap_or_default()),
                    None => Event::Ended(pid, status),
                };
            }
            let mut watched = vec![PollFd::new(&self.signals, PollFlags::IN)];
            watched.extend(supervisor.map(|stream| PollFd::new(stream, PollFlags::IN)));
            // Interrupted or not: what is there is looked at below.
            let _ = poll(&mut watched, None);
            let ready = |at: usize| watched.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (signalled, spoken) = (ready(0), ready(1));
            if signalled {
                // Only that there was one matters.
                while matches!(self.signals.read_signal(), Ok(Some(_))) {}
            }
            if let (true, Some(mut supervisor)) = (spoken, supervisor) {
                let mut byte = [0];
                return match supervisor.read(&mut byte) {
                    Ok(1) => Event::Said(u8::from_ne_bytes(byte)),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    _ => Event::Silence,
                };
            }
        }
    }
}

/// An exit code for a shell: what the child said, or 128 and the signal that ended it.
pub(super) fn code_of(status: WaitStatus) -> u8 {
    exit_code(ExitStatus::from_raw(status.as_raw()))
}

/// The same for what the standard library waited for.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(super::FAILED),
    };
    u8::try_from(code & 0xff).unwrap_or(super::FAILED)
}
