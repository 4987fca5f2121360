//! How a command fails: an exit code, and a message that says what to do next.

use std::{fmt, process::ExitCode};

/// Something went wrong that no other code names.
pub const FAILED: u8 = 1;
/// Bad input or usage.
pub const USAGE: u8 = 2;
/// The gateway cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// The gateway refused: not authorised, not found, not possible in this state, over quota.
pub const REFUSED: u8 = 4;

pub(super) const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 gateway not reachable, \
                                     4 refused, not found or not possible now";

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// With an exit code and a message for a person.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Tell, and give the exit code.
    pub fn report(&self) -> ExitCode {
        note!("sluicegate: {}", self.message.trim_end());
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(FAILED, format!("{error:#}"))
    }
}
