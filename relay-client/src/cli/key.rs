//! `key`: the key a session's credentials are bound to. It is made here and stays here.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use sluicegate_certs::ClientKey;
use sluicegate_relay::standard;

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
/// The file, or standard output.
pub(super) fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let key = ClientKey::load_or_create(&args.file)?;
    standard::print(format_args!("{}\n", key.thumbprint()))?;
    Ok(ExitCode::SUCCESS)
}
