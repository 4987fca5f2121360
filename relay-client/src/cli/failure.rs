//! Failures and exit codes: 0 done, or stopped by SIGTERM or SIGINT; 1 failed; 2 bad flags, file or environment; 3 cannot
//! listen.

use std::process::ExitCode;

use sluicegate_relay::{config::ConfigError, listen::ListenError, standard};

/// Bad flags, file or environment: nothing was started.
pub(super) const CONFIG: u8 = 2;
/// A listener could not be bound.
const LISTEN: u8 = 3;

/// Say what went wrong, with a code of the caller's.
pub(super) fn with_code(code: u8, error: &anyhow::Error) -> ExitCode {
    standard::tell(format_args!("sluicegate-relay: {}\n", chain(error)));
    ExitCode::from(code)
}

/// Say what went wrong, and the code that says it to scripts.
pub(super) fn told(error: &anyhow::Error) -> ExitCode {
    let code = if error.is::<ListenError>() {
        LISTEN
    } else if error.is::<ConfigError>() {
        CONFIG
    } else {
        1
    };
    with_code(code, error)
}

/// The error and its causes, each said once: some name their cause themselves.
fn chain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}
