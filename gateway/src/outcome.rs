//! How a tunnel, request or stream ended.

use std::io;

use rustix::io::Errno;

/// Is it this process, or this machine, that has nothing left to work with: descriptors, memory?
pub fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    error
        .raw_os_error()
        .is_some_and(|code| exhausted.contains(&Errno::from_raw_os_error(code)))
}

/// The end of one piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Opened, and closed by one of its ends in order.
    Completed,
    /// Opened, and reset by one of its ends.
    Reset,
    /// Never opened: refused by the gateway, with a reason.
    Refused,
    /// Never opened: the upstream failed, with a reason.
    Failed,
    /// Opened, and cut by the gateway, with a reason.
    Cut,
    /// Dropped without a word: the task ended early (a forced drain, a vanished downstream).
    Abandoned,
}

impl Outcome {
    /// In records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Cut => "cut",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Who closed first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Party {
    /// The client.
    Downstream,
    /// The target or service.
    Upstream,
    /// The gateway.
    Gateway,
}

impl Party {
    /// In records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}
