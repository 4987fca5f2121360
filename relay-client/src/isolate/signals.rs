//! Signals that were sent to the supervisor and mean the command.

use std::io;

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::sync::mpsc;

/// What is passed on.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];
/// `SI_KERNEL`: the terminal sends to everybody in the foreground, the command included.
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
        let mut set = SigSet::empty();
        PASSED_ON.into_iter().for_each(|signal| set.add(signal));
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor })
    }

    /// Read them, on a thread of its own that lives as long as the process.
    pub(super) fn listen(self) -> io::Result<Listening> {
        let (send, receive) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                while let Ok(Some(signal)) = self.descriptor.read_signal() {
                    let number = u8::try_from(signal.ssi_signo).unwrap_or_default();
                    if signal.ssi_code != BY_THE_KERNEL && send.send(number).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Listening(receive))
    }
}

/// Signals that the command has not got by itself.
pub(super) struct Listening(mpsc::UnboundedReceiver<u8>);

impl Listening {
    /// The number of the next one.
    pub(super) async fn next(&mut self) -> u8 {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}
