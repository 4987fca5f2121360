//! `key`: the key a session's credentials are bound to. It is made here and stays here.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use sluicegate_certs::ClientKey;

/// `key`.
#[derive(Args)]
pub(super) struct KeyArgs {
    /// The file; a key is made where there is none
    #[arg(long = "key", value_name = "FILE", env = "SLUICEGATE_RELAY_KEY_FILE")]
    file: PathBuf,
}

/// Print the thumbprint, for `sluicegate session create --client-key`.
///
/// # Errors
/// The file.
pub(super) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let key = ClientKey::load_or_create(&args.file)?;
    writeln!(std::io::stdout(), "{}", key.thumbprint())?;
    Ok(ExitCode::SUCCESS)
}
