//! The command line: one file per command. What several share: [`options`] (flags, file and environment, settled),
//! [`client`] (everything that runs while a command does), [`report`] (what is said on standard output), [`failure`]
//! (exit codes).

mod client;
mod failure;
mod options;
mod report;
mod up;

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    version,
    about = "Brings the host's services into a sandbox, through a Sluicegate gateway"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Listen locally and carry each connection to its host service, until told to stop.
    Up(up::UpArgs),
}

/// Arguments → runtime → command → exit code.
pub(crate) fn run() -> ExitCode {
    // clap ends the process itself: 0 for help and version, 2 for bad usage.
    let Command::Up(args) = Cli::parse().command;
    init_logging();
    // One thread: what wakes whom stays on one core, and everything that is awake is one batch (docs/performance.md).
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failure::told(&error.into()),
    };
    let code = match runtime.block_on(up::run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::told(&error),
    };
    // What the grace period left over must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// To standard error, so that standard output is only what was asked for. `RUST_LOG` chooses; `info` without it.
fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,sluicegate_relay=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
