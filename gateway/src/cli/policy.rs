//! Questions about policy, answered by the function that decides: one file per command.
//!
//! `source.rs` finds the policy a command is about; `log.rs` reads access records; `yaml.rs` writes a block.

mod explain;
mod import;
mod log;
mod replay;
mod source;
mod suggest;
mod test;
mod yaml;

use clap::Subcommand;

use super::{client::ClientArgs, failure::Failure, output, session_create::GrantArgs};

/// `policy …`.
#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Would this target be reached, by which rule, and what would change it?
    Explain(Box<explain::ExplainArgs>),
    /// Hold a policy to expectations written in a file.
    Test(test::TestArgs),
    /// Decide the targets of an access log again, under another policy: what is newly denied, what newly allowed?
    Replay(Box<replay::ReplayArgs>),
    /// The smallest sensible allowlist for what an access log shows.
    Suggest(suggest::SuggestArgs),
    /// Read another system's policy document; what cannot be kept is refused.
    Import(import::ImportArgs),
}

pub(super) async fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Explain(args) => explain::run(*args).await,
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Replay(args) => replay::run(&args),
        PolicyCommand::Suggest(args) => suggest::run(&args),
        PolicyCommand::Import(args) => import::run(&args),
    }
}
