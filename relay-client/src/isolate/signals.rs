//! Signals that were sent to the supervisor and mean the command.

use std::{collections::VecDeque, io, time::Duration};

use nix::{
    sys::{
        signal::{SigSet, Signal, killpg, raise},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tokio::{sync::mpsc, time::timeout};

use super::{control::Order, ended::Ended};

/// What is passed on.
const PASSED_ON: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];
/// What ends a program that has nothing to say to it.
const END: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];
/// What the kernel stops those by who use a terminal from the background. We stop by them ourselves, where the command did.
pub(super) const ASKS: [Signal; 2] = [Signal::SIGTTIN, Signal::SIGTTOU];
/// Who was stopped is told of SIGCONT before it goes on; the thread that hears of it needs no longer than this.
const SOON: Duration = Duration::from_secs(1);
/// `SI_KERNEL`: the terminal sends to everybody in the foreground.
const BY_THE_KERNEL: i32 = 0x80;

/// They are read, not suffered. To be held before there are threads: each inherits what its maker blocks.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Hold them back from now on.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn hold() -> io::Result<Self> {
        let set: SigSet = PASSED_ON.into_iter().collect();
        set.thread_block()?;
        ASKS.into_iter().collect::<SigSet>().thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// Read them, on a thread of its own that lives as long as the process.
    ///
    /// # Errors
    /// Out of threads.
    pub fn listen(self) -> io::Result<Listening> {
        let (send, receive) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                while let Ok(Some(signal)) = self.descriptor.read_signal() {
                    let heard = Heard {
                        signal: u8::try_from(signal.ssi_signo).unwrap_or_default(),
                        from_the_terminal: signal.ssi_code == BY_THE_KERNEL,
                    };
                    if send.send(heard).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Listening {
            heard: receive,
            kept: VecDeque::new(),
        })
    }
}

/// A signal that was sent to us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Heard {
    pub(super) signal: u8,
    /// By a key, or a window's new size: to all of our group.
    pub(super) from_the_terminal: bool,
}

impl Heard {
    pub(super) fn is(self, signal: Signal) -> bool {
        i32::from(self.signal) == signal as i32
    }

    /// What it means for the command.
    pub(super) fn order(self) -> Order {
        let to_all = self.from_the_terminal || self.is(Signal::SIGCONT) || self.is(Signal::SIGTSTP);
        if to_all {
            Order::Group(self.signal)
        } else {
            Order::Command(self.signal)
        }
    }
}

/// Signals that the command has not got by itself.
#[derive(Debug)]
pub struct Listening {
    heard: mpsc::UnboundedReceiver<Heard>,
    /// Heard while something else was waited for.
    kept: VecDeque<Heard>,
}

impl Listening {
    /// The next one.
    pub(super) async fn next(&mut self) -> Heard {
        if let Some(kept) = self.kept.pop_front() {
            return kept;
        }
        match self.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }

    /// Until one comes that ends us, as long as there is no command that it could be for. The others are kept for that.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let Some(heard) = self.heard.recv().await else {
                return std::future::pending().await;
            };
            if END.into_iter().any(|end| heard.is(end)) {
                return Ended::by(heard);
            }
            if heard.is(Signal::SIGTSTP) {
                stop_alone(Signal::SIGTSTP);
            } else if !heard.is(Signal::SIGCONT) {
                self.kept.push_back(heard);
            }
        }
    }

    /// Those that have come, but for stops.
    pub(super) fn due(&mut self) -> Vec<Heard> {
        self.gather();
        self.forget_stops();
        self.kept.drain(..).collect()
    }

    fn gather(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.kept.push_back(heard);
        }
    }

    /// Stop our process group and ourselves by this signal, until somebody continues us. False where that did not happen:
    /// nobody is there who could, so that the kernel does not stop us (signal(7), orphaned process groups).
    pub(super) async fn stop(&mut self, group: Pid, by: Signal) -> bool {
        self.gather();
        self.forget_stops();
        // A group that is not there needs no stop.
        let _ = killpg(group, by);
        stop_alone(by);
        let continued = async {
            while let Some(heard) = self.heard.recv().await {
                if heard.is(Signal::SIGCONT) {
                    return true;
                }
                self.kept.push_back(heard);
            }
            false
        };
        let continued = timeout(SOON, continued).await.unwrap_or(false);
        // What we have sent our group, ourselves among it, is not for the command.
        self.forget_stops();
        continued
    }

    /// Whatever was to be stopped before goes on now, or is stopped already.
    fn forget_stops(&mut self) {
        self.kept
            .retain(|heard| !heard.is(Signal::SIGTSTP) && !heard.is(Signal::SIGCONT));
    }
}

/// Stop this process by a signal that all its threads hold back. It is stopped when this returns, and has gone on.
pub(super) fn stop_alone(by: Signal) {
    let stop = SigSet::from(by);
    // To this thread, which is the only one that lets it through: else another one might take it somewhat later.
    if raise(by).is_ok() && stop.thread_unblock().is_ok() {
        let _ = stop.thread_block();
    }
}
