//! The private CA's certificate.

use clap::{Args, Subcommand};

use super::{
    client::ClientArgs,
    failure::{Failure, UNREACHABLE},
};

/// `ca …`.
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Print the certificate in PEM.
    Show(ShowArgs),
}

/// `ca show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// What the CA variables of an env bundle name: the system's roots and this certificate.
    #[arg(long)]
    bundle: bool,
    /// Print the file's path instead.
    #[arg(long)]
    path: bool,
}

pub(super) fn run(command: &CaCommand) -> Result<(), Failure> {
    let CaCommand::Show(args) = command;
    let state = args.client.state_path()?;
    let candidates = if args.bundle {
        vec![state.join("ca-bundle.pem")]
    } else {
        vec![state.join("ca.pem"), state.join("ca").join("ca.pem")]
    };
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        let message = format!(
            "there is no private CA in {}: one is made at the first start without a certificate of your own",
            state.display()
        );
        return Err(Failure::new(UNREACHABLE, message));
    };
    let pem = std::fs::read_to_string(path).map_err(anyhow::Error::from)?;
    if args.client.json {
        say!("{:#}", serde_json::json!({ "path": path, "pem": pem }));
    } else if args.path {
        say!("{}", path.display());
    } else {
        say_whole!("{pem}");
    }
    Ok(())
}
