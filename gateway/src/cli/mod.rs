//! The command line: one file per group of commands. Commands talk to the composition root (`serve`, `demo`, `run`) or to a
//! running gateway's admin API; exit codes are in [`failure`].

#[macro_use]
mod output;

mod ca;
mod capability;
mod check;
mod client;
mod control;
mod credential;
mod demo;
mod events;
pub mod failure;
mod keys;
mod owner;
mod policy;
mod probe;
mod provider;
mod run;
mod serve;
mod session;
mod session_create;
mod session_logs;
mod store;
mod webhook;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use client::ClientArgs;
use failure::Failure;

/// The gateway between hosted sandboxes, the services of their host, and the internet.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, propagate_version = true, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::ServeArgs),
    /// A tour on this machine: allowed, refused, relayed, revoked. Needs no internet.
    Demo(demo::DemoArgs),
    /// Run a command whose only way out is a gateway of its own, in this process.
    Run(run::RunArgs),
    /// Sessions of a running gateway.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Capabilities: the catalogue, and what sessions are bound to.
    #[command(subcommand)]
    Capability(capability::CapabilityCommand),
    /// One credential, apart from its session.
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Questions about policy.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Check a configuration file: every fault at once, with line and column.
    Check(check::CheckArgs),
    /// Runtime providers: what they advertise, and what is proved.
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Probes from elsewhere.
    #[command(subcommand)]
    Probe(probe::ProbeCommand),
    /// Placement of workloads.
    #[command(subcommand)]
    Placement(provider::PlacementCommand),
    /// Signing keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// The private CA.
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Owners of sessions: what they use of what they may.
    #[command(subcommand)]
    Owner(owner::OwnerCommand),
    /// What sessions and revocations are kept in.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Deliveries of events, and what was given up.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Lifecycle events and access records.
    Events(events::EventsArgs),
    /// One screen: readiness, providers, sessions.
    Status(control::StatusArgs),
    /// Make a running gateway apply its configuration file again.
    Reload(ClientArgs),
    /// Make a running gateway go down in order.
    Drain(ClientArgs),
}

/// Arguments → runtime → command → exit code.
pub fn run() -> ExitCode {
    // The processes that confine a command are this program again; it says so before anything else is done.
    if let Some(code) = sluicegate_relay::isolate::reenter() {
        return code;
    }
    let command = match Cli::try_parse().map(|cli| cli.command) {
        // It has signals to hold back before there are threads.
        Ok(Command::Run(args)) => return run::main(args),
        Ok(command) => command,
        Err(said) => return sluicegate_relay::standard::answer("sluicegate", &said),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(failure::FAILED, format!("cannot start: {error}")).report();
        }
    };
    match runtime.block_on(dispatch(command)) {
        // That has been said.
        Ok(_) if output::is_lost() => ExitCode::from(failure::FAILED),
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => return serve::run(args).await,
        Command::Demo(args) => return Ok(demo::run(args).await?),
        Command::Run(args) => return Ok(run::main(args)),
        Command::Session(command) => session::run(command).await?,
        Command::Capability(command) => capability::run(command).await?,
        Command::Credential(command) => credential::run(command).await?,
        Command::Owner(command) => owner::run(command).await?,
        Command::Store(command) => store::run(command).await?,
        Command::Webhook(command) => webhook::run(command).await?,
        Command::Policy(command) => policy::run(command).await?,
        Command::Check(args) => check::run(&args)?,
        Command::Provider(command) => provider::run(command).await?,
        Command::Placement(command) => provider::placement(command).await?,
        Command::Probe(command) => probe::run(command).await?,
        Command::Keys(command) => keys::run(command).await?,
        Command::Ca(command) => ca::run(&command)?,
        Command::Events(args) => events::run(args).await?,
        Command::Status(args) => control::status(&args).await?,
        Command::Reload(args) => control::reload(&args).await?,
        Command::Drain(args) => control::drain(&args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
