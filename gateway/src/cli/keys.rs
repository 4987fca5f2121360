//! Signing keys: through the running gateway, else in its state directory.

use clap::Subcommand;
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
    /// Make a new key that signs from now on; the old ones go on verifying until their files are removed.
    Rotate(ClientArgs),
}

pub(super) async fn run(command: KeysCommand) -> Result<(), Failure> {
    let (args, rotate) = match &command {
        KeysCommand::List(args) => (args, false),
        KeysCommand::Rotate(args) => (args, true),
    };
    let body = match through_gateway(args, rotate).await {
        // A gateway that is not running reads the directory when it starts.
        Err(failure) if failure.code() == UNREACHABLE && args.admin_url.is_none() => {
            in_directory(args, rotate)?
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

async fn through_gateway(args: &ClientArgs, rotate: bool) -> Result<Value, Failure> {
    let client = Client::new(args)?;
    let (method, path) = if rotate {
        (Method::POST, "/admin/api/v1/keys:rotate")
    } else {
        (Method::GET, "/admin/api/v1/keys")
    };
    Ok(client.call(method, path, None).await?.body)
}

fn in_directory(args: &ClientArgs, rotate: bool) -> Result<Value, Failure> {
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
    if rotate {
        keys.rotate().map_err(failed)?;
    }
    Ok(json!({ "keys": keys.list() }))
}
