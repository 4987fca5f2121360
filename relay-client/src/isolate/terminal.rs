//! The terminal's foreground, given back: a shell inside makes a process group of its own the foreground, and cannot undo
//! that by the numbers it sees.

use std::io::stdin;

use nix::{
    sys::signal::{SigSet, Signal},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};

/// Gives the foreground back when dropped, where it was ours.
pub(super) struct Foreground(Option<Pid>);

impl Foreground {
    pub(super) fn note() -> Self {
        let own = getpgrp();
        // 0: a group whose leader is outside of our process namespace. There is no number to give it back by.
        let had = own.as_raw() != 0 && tcgetpgrp(stdin()) == Ok(own);
        Self(had.then_some(own))
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let Some(own) = self.0 else { return };
        // tcsetpgrp(3): from the background it would stop us, unless that signal is blocked.
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU);
        if stop.thread_block().is_ok() {
            // A terminal that is gone has no foreground.
            let _ = tcsetpgrp(stdin(), own);
            let _ = stop.thread_unblock();
        }
    }
}
