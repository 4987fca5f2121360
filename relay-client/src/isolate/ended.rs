//! How a command ended, and how we end with it.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{signals::Heard, wait::exit_code};

/// Keys end a command by these: Ctrl-C and Ctrl-\.
const BY_KEYS: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];

/// The end of what was to be run, or that it did not begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    code: u8,
    key: Option<Signal>,
}

impl Ended {
    /// The exit code for a shell.
    pub fn code(self) -> u8 {
        self.code
    }

    /// To be the last thing of `main`, on the thread that held the signals back. A shell that has got the same key waits
    /// to see whether its child dies of it, and goes on with its script where that only exits: so we die of it too.
    pub fn leave(self) -> ExitCode {
        if let Some(key) = self.key {
            // Ours is not the memory that somebody wants to look into.
            let nothing = Rlimit {
                current: Some(0),
                maximum: Some(0),
            };
            let _ = setrlimit(Resource::Core, nothing);
            // Where it is ignored, this goes on.
            if raise(key).is_ok() {
                let _ = SigSet::from(key).thread_unblock();
            }
        }
        ExitCode::from(self.code)
    }

    /// With this code.
    pub(super) fn with(code: u8) -> Self {
        Self { code, key: None }
    }

    /// Before the command began, by a signal to us.
    pub(super) fn by(heard: Heard) -> Self {
        let key = BY_KEYS.into_iter().find(|key| heard.is(*key));
        Self {
            code: heard.signal.saturating_add(128),
            key: key.filter(|_| heard.from_the_terminal),
        }
    }
}

/// What the command's end is to be told by: keys that were pressed while it ran.
#[derive(Default)]
pub(super) struct Keys {
    pressed: Vec<Signal>,
}

impl Keys {
    /// A signal that we have got.
    pub(super) fn note(&mut self, heard: Heard) {
        if heard.from_the_terminal {
            let key = BY_KEYS.into_iter().find(|key| heard.is(*key));
            self.pressed.extend(key);
        }
    }

    /// Our child has ended; `by` is the signal that ended the command, `seen` whether its keys reached it past us.
    pub(super) fn end(&self, child: ExitStatus, by: Option<i32>, past_us: bool) -> Ended {
        let pressed =
            |key: &Signal| Some(*key as i32) == by && (past_us || self.pressed.contains(key));
        Ended {
            code: exit_code(child),
            key: BY_KEYS.into_iter().find(pressed),
        }
    }

    /// Was a child ended as by a key of which nothing has been heard?
    pub(super) fn misses(&self, child: ExitStatus) -> bool {
        let by = |key: &Signal| Some(*key as i32) == child.signal();
        BY_KEYS
            .into_iter()
            .any(|key| by(&key) && !self.pressed.contains(&key))
    }

    /// The same for a command that is the child.
    pub(super) fn end_of_child(&self, child: ExitStatus) -> Ended {
        self.end(child, child.signal(), false)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use nix::sys::signal::Signal;

    use super::{Ended, Heard, Keys};

    #[test]
    fn only_a_key_that_ended_it_ends_us() {
        let heard = |signal: Signal, from_the_terminal| Heard {
            signal: u8::try_from(signal as i32).unwrap_or_default(),
            from_the_terminal,
        };
        let child = ExitStatus::from_raw(130 << 8);
        let (int, quit, term) = (Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM);
        let table = [
            (heard(int, true), Some(2), false, Some(int)),
            (heard(quit, true), Some(3), false, Some(quit)),
            (heard(int, false), Some(2), false, None),
            (heard(int, true), None, false, None),
            (heard(int, true), Some(15), false, None),
            (heard(term, false), Some(2), true, Some(int)),
        ];
        for (heard, by, past_us, key) in table {
            let mut keys = Keys::default();
            keys.note(heard);
            let expected = Ended { code: 130, key };
            assert_eq!(keys.end(child, by, past_us), expected, "{heard:?} {by:?}");
        }
        assert_eq!(Ended::by(heard(term, false)), Ended::with(143));
        assert_eq!(Ended::by(heard(int, true)).key, Some(int));
    }
}
