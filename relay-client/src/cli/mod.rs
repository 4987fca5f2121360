//! The command line: one file per command. What several share: [`options`] (flags, file and environment, settled),
//! [`client`] (everything that runs while a command does), [`report`] (what is said on standard output), [`failure`]
//! (exit codes).

mod client;
mod doctor;
mod failure;
mod key;
mod options;
mod report;
mod run;
mod status;
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
    #[command(flatten)]
    Plain(Plain),
    /// Run a command that has no way out but the gateway.
    Run(run::RunArgs),
}

/// Those that have nothing to do before there is a runtime.
#[derive(Subcommand)]
enum Plain {
    /// Listen locally and carry each connection to its host service, until told to stop.
    Up(up::UpArgs),
    /// Try every step to the gateway and its services, and say what to change.
    Doctor(doctor::DoctorArgs),
    /// How a client that runs with --status is.
    Status(status::StatusArgs),
    /// Make the key that a session's credentials are bound to, and print its thumbprint.
    Key(key::KeyArgs),
}

impl Plain {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(args) => up::run(args).await.map(|()| ExitCode::SUCCESS),
            Self::Doctor(args) => doctor::run(args).await,
            Self::Status(args) => status::run(args).await,
            Self::Key(args) => key::run(args),
        }
    }
}

/// Arguments → runtime → command → exit code.
pub(crate) fn run() -> ExitCode {
    // The processes that confine a command are this program again; it says so before anything else is done.
    if let Some(code) = sluicegate_relay::isolate::reenter() {
        return code;
    }
    let command = match Cli::try_parse().map(|cli| cli.command) {
        Ok(Command::Plain(command)) => command,
        // It has signals to hold back before there are threads.
        Ok(Command::Run(args)) => return run::main(args),
        Err(said) => return sluicegate_relay::standard::answer("sluicegate-relay", &said),
    };
    init_logging("warn,sluicegate_relay=info");
    // One thread: what wakes whom stays on one core, and everything that is awake is one batch (docs/performance.md).
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failure::told(&error.into()),
    };
    let ran = runtime.block_on(command.run());
    let code = ran.unwrap_or_else(|error| failure::told(&error));
    // What the grace period left over must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// To standard error, so that standard output is only what was asked for. `RUST_LOG` chooses, or else the default.
fn init_logging(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        // What standard error does not take would be told there, by a panic.
        .log_internal_errors(false)
        .init();
}
