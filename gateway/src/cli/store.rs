//! `store …`: is what is kept still what was written?

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::{FAILED, Failure, UNREACHABLE},
    output::text,
};
use crate::store::{StoreError, verify_file};

/// `store …`.
#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Verify the whole store: through the running gateway, else in its state directory. Changes nothing.
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// This file, a copy say, instead of the gateway's own.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: StoreCommand) -> Result<(), Failure> {
    let StoreCommand::Check(args) = command;
    let body = match &args.file {
        Some(file) => in_file(file.clone())?,
        None => match through_gateway(&args.client).await {
            Err(failure) if failure.code() == UNREACHABLE && args.client.admin_url.is_none() => {
                in_file(args.client.state_path()?.join("sluicegate.redb"))?
            }
            other => other?,
        },
    };
    if args.client.json {
        say!("{body:#}");
    } else {
        say!("{}", line(&body));
    }
    Ok(())
}

async fn through_gateway(args: &ClientArgs) -> Result<Value, Failure> {
    let client = Client::new(args)?;
    let path = "/admin/api/v1/store:verify";
    Ok(client.call(Method::POST, path, None).await?.body)
}

fn in_file(path: PathBuf) -> Result<Value, Failure> {
    let found = verify_file(&path);
    found.map(|verified| verified.to_json()).map_err(|error| {
        let hint = match &error {
            StoreError::Open { .. } => {
                "; where the configuration's store.path names another file, give it with --file"
            }
            _ => "",
        };
        Failure::new(FAILED, format!("{:#}{hint}", anyhow::Error::from(error)))
    })
}

fn line(body: &Value) -> String {
    format!(
        "whole: {} bytes, {} sessions, {} revocations, {} events, {} log records; verified in {} ms",
        text(body, "bytes"),
        text(body, "sessions"),
        text(body, "revocations"),
        text(body, "events"),
        text(body, "logRecords"),
        text(body, "milliseconds"),
    )
}
