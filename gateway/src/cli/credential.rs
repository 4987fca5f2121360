//! `credential …`: one credential, apart from the session it is of.

use std::io::Read;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::json;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, USAGE},
};

/// Longer is no credential of ours.
const LONGEST: u64 = 64 * 1024;

/// `credential …`.
#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Withdraw one handle or token: what is open by it is cut, its session and its other credentials stay.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// A handle, a signed token, or a token's id; `-` reads it from standard input, where `ps` does not show it.
    // Ids are base64url, which may begin with a hyphen.
    #[arg(allow_hyphen_values = true)]
    credential: String,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: CredentialCommand) -> Result<(), Failure> {
    let CredentialCommand::Revoke(args) = command;
    let credential = match args.credential.as_str() {
        "-" => standard_input()?,
        given => given.to_owned(),
    };
    let body = json!({ "credential": credential.trim() });
    let answer = Client::new(&args.client)?
        .call(
            Method::POST,
            "/admin/api/v1/credentials:revoke",
            Some(&body),
        )
        .await?;
    if args.client.json {
        say!("{:#}", answer.body);
    } else {
        say!("revoked");
        if answer.body.get("known") == Some(&false.into()) {
            note!(
                "sluicegate: nobody has come by such a token since the gateway started: is it the right id?"
            );
        }
    }
    Ok(())
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(USAGE, format!("cannot read standard input: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::RevokeArgs;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: RevokeArgs,
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen_and_options_stay_options() {
        for line in [["revoke", "-1x_", "--json"], ["revoke", "--json", "-1x_"]] {
            let read = Line::try_parse_from(line).map(|line| line.args);
            let read = read.map(|args| (args.credential, args.client.json));
            assert_eq!(read.ok(), Some(("-1x_".to_owned(), true)));
        }
    }
}
