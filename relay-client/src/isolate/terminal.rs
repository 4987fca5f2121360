//! The controlling terminal, shared with the shell that started us.
//!
//! The command has a process group of its own, so that what it sends to its group stays inside. It is put in the
//! terminal's foreground when it asks for that, as the kernel tells it to: by being stopped for reading or setting the
//! terminal from the background. (Where we are not in the foreground ourselves, our group is stopped by that same
//! signal, which those who only wait ignore: `timeout` is to see its time pass.) Until then, keys that send signals are
//! for our own group, with whoever else is in it (a script around us, a pager behind us), and are passed on. When the
//! command stops for any other reason, our group stops, so that the shell has its terminal back.

use std::fs::File;

use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow, Signal, killpg},
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};

use super::{
    control::Order,
    signals::{ASKS, Heard, Listening},
};

/// A terminal, and our process group.
pub(super) struct Terminal {
    tty: File,
    own: Pid,
    lent: bool,
}

impl Terminal {
    /// Nothing where there is no terminal, or nobody who could give us its foreground.
    pub(super) fn open() -> Option<Self> {
        let own = getpgrp();
        // 0: a group whose leader is outside of our process namespace. There is no number for it.
        let tty = File::open("/dev/tty").ok().filter(|_| own.as_raw() != 0)?;
        Some(Self {
            tty,
            own,
            lent: false,
        })
    }

    fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty) == Ok(self.own)
    }

    fn give(&self, group: Pid) {
        // tcsetpgrp(3): from the background it would stop us, unless that signal is blocked.
        let stop = SigSet::from(Signal::SIGTTOU);
        if let Ok(before) = stop.thread_swap_mask(SigmaskHow::SIG_BLOCK) {
            // A terminal that is gone has no foreground.
            let _ = tcsetpgrp(&self.tty, group);
            let _ = before.thread_set_mask();
        }
    }

    /// The command has stopped. What is to be done, after we have stopped ourselves where that is due.
    pub(super) async fn stopped(&mut self, signal: u8, signals: &mut Listening) -> Vec<Order> {
        let asked = ASKS
            .into_iter()
            .find(|asks| *asks as i32 == i32::from(signal));
        let asks = asked.is_some();
        if asks && self.is_ours() {
            return self.lend();
        }
        if asks {
            // What came before we stop might end it, and who sent it does not send it again: it asks once more if it lives.
            let due = orders(signals.due());
            if !due.is_empty() {
                return [due, vec![Order::GO_ON]].concat();
            }
        }
        let had = std::mem::take(&mut self.lent);
        if had {
            self.give(self.own);
        }
        let by = asked.unwrap_or(Signal::SIGTSTP);
        let continued = signals.stop(self.own, by).await;
        if self.is_ours() && (had || asks) {
            return self.lend();
        }
        if asks && !continued {
            // No shell will ever put it in the foreground: what the kernel does with a group that is left alone so.
            return vec![Order::HANG_UP, Order::GO_ON];
        }
        // Before it goes on: else it might have stopped again when they come, as for `timeout`, which sends SIGTERM first.
        [orders(signals.due()), vec![Order::GO_ON]].concat()
    }

    /// Does the command have the foreground? Keys are past us then.
    pub(super) fn is_lent(&self) -> bool {
        self.lent
    }

    fn lend(&mut self) -> Vec<Order> {
        self.lent = true;
        vec![Order::Foreground, Order::GO_ON]
    }

    /// The command is gone. Where the foreground is a group of which nobody is left, it is ours again; a shell may have taken
    /// it already.
    pub(super) fn take_back(&self) {
        let abandoned = |group: Pid| killpg(group, None) == Err(Errno::ESRCH);
        if tcgetpgrp(&self.tty).is_ok_and(|group| group != self.own && abandoned(group)) {
            self.give(self.own);
        }
    }
}

fn orders(heard: Vec<Heard>) -> Vec<Order> {
    heard.into_iter().map(Heard::order).collect()
}
