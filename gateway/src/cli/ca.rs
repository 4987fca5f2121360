//! The private CA's certificate.

use std::path::PathBuf;

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
    let certificates = [state.join("ca.pem"), state.join("ca").join("ca.pem")];
    let bundle = [state.join("ca-bundle.pem")];
    let there = |paths: &[PathBuf]| paths.iter().find(|path| path.is_file()).cloned();
    let asked = if args.bundle {
        there(&bundle)
    } else {
        there(&certificates)
    };
    let Some(path) = asked else {
        let state = state.display();
        let message = if args.bundle && there(&certificates).is_some() {
            format!(
                "there is no bundle in {state}: one is made when a listener shows a certificate of the private CA, or publicUrl is https"
            )
        } else {
            format!(
                "there is no private CA in {state}: one is made at the first start without a certificate of your own"
            )
        };
        return Err(Failure::new(UNREACHABLE, message));
    };
    let pem = std::fs::read_to_string(&path).map_err(anyhow::Error::from)?;
    if args.client.json {
        say!("{:#}", serde_json::json!({ "path": path, "pem": pem }));
    } else if args.path {
        say!("{}", path.display());
    } else {
        say_whole!("{pem}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_bundle_that_is_missing_beside_its_ca_is_said_to_be_that() {
        let directory = tempfile::tempdir().unwrap();
        let asked = |bundle: bool| {
            let client = ClientArgs {
                state_dir: Some(directory.path().into()),
                ..ClientArgs::default()
            };
            let args = ShowArgs {
                client,
                bundle,
                path: true,
            };
            run(&CaCommand::Show(args)).map_err(|failure| failure.to_string())
        };
        for bundle in [false, true] {
            assert!(asked(bundle).unwrap_err().contains("no private CA"));
        }
        std::fs::write(directory.path().join("ca.pem"), "pem").unwrap();
        assert_eq!(asked(false), Ok(()));
        assert!(asked(true).unwrap_err().contains("no bundle"));
    }
}
