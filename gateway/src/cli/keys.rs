//! Signing keys: through the running gateway, else in its state directory.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, ClientArgs},
    failure::{FAILED, Failure, UNREACHABLE},
    output::{table, text},
};
use crate::auth::Keys;

/// `keys …`.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Keys that verify, and the one that signs.
    List(ClientArgs),
    /// Make a new key that signs from now on; the old ones go on verifying until they are retired.
    Rotate(ClientArgs),
    /// Take a key away: what it signed is good no more.
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub(super) struct RetireArgs {
    /// The key's id, as `keys list` shows it; not the one that signs.
    kid: String,
    #[command(flatten)]
    client: ClientArgs,
}

/// What is asked of the keys.
enum Asked<'a> {
    List,
    Rotate,
    Retire(&'a str),
}

pub(super) async fn run(command: KeysCommand) -> Result<(), Failure> {
    let (args, asked) = match &command {
        KeysCommand::List(args) => (args, Asked::List),
        KeysCommand::Rotate(args) => (args, Asked::Rotate),
        KeysCommand::Retire(retire) => (&retire.client, Asked::Retire(&retire.kid)),
    };
    let body = match through_gateway(args, &asked).await {
        // A gateway that is not running reads the directory when it starts.
        Err(failure) if failure.code() == UNREACHABLE && args.admin_url.is_none() => {
            in_directory(args, &asked)?
        }
        other => other?,
    };
    if args.json {
        say!("{body:#}");
        return Ok(());
    }
    let mut rows = vec![["KEY", "USE", "CREATED"].map(str::to_owned).to_vec()];
    for key in body
        .get("keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let signs = key
            .get("signing")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        rows.push(vec![
            text(key, "kid"),
            if signs { "signs" } else { "verifies" }.into(),
            text(key, "created"),
        ]);
    }
    say_whole!("{}", table(&rows));
    Ok(())
}

async fn through_gateway(args: &ClientArgs, asked: &Asked<'_>) -> Result<Value, Failure> {
    let client = Client::new(args)?;
    let keys = "/admin/api/v1/keys";
    let (method, path, body) = match asked {
        Asked::List => (Method::GET, keys.to_owned(), None),
        Asked::Rotate => (Method::POST, format!("{keys}:rotate"), None),
        Asked::Retire(kid) => {
            let body = json!({ "kid": kid });
            (Method::POST, format!("{keys}:retire"), Some(body))
        }
    };
    Ok(client.call(method, &path, body.as_ref()).await?.body)
}

fn in_directory(args: &ClientArgs, asked: &Asked<'_>) -> Result<Value, Failure> {
    let directory = args.state_path()?.join("keys");
    if !directory.is_dir() {
        let message = format!(
            "there are no keys in {}: the first start of the gateway makes them",
            directory.display()
        );
        return Err(Failure::new(UNREACHABLE, message));
    }
    let failed = |error| Failure::new(FAILED, format!("{:#}", anyhow::Error::from(error)));
    let keys = Keys::load_or_create(&directory).map_err(failed)?;
    match asked {
        Asked::List => {}
        Asked::Rotate => drop(keys.rotate().map_err(failed)?),
        Asked::Retire(kid) => keys.retire(kid).map_err(failed)?,
    }
    Ok(json!({ "keys": keys.list() }))
}
