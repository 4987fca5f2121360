//! `status`: how is the client that runs here?

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use sluicegate_relay::{
    config::{ConfigError, bare_address},
    standard, status,
};

/// Exit codes: 0 connected; 1 not connected, or no client there; 2 bad flags.
#[derive(Args)]
pub(super) struct StatusArgs {
    /// Where it tells: what `up --status` was given [env: SLUICEGATE_RELAY_STATUS]
    #[arg(long, value_name = "ADDRESS")]
    status: Option<String>,
    /// Its own JSON
    #[arg(long)]
    json: bool,
}

/// Ask, and tell.
///
/// # Errors
/// Nobody is there, no address was given, or standard output takes nothing.
pub(super) async fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let variable = std::env::var("SLUICEGATE_RELAY_STATUS").ok();
    let place = args
        .status
        .clone()
        .or(variable)
        .ok_or(ConfigError::NoStatus)?;
    let address = bare_address(&place).map_err(ConfigError::Listen)?;
    let body = status::ask(&address)
        .await
        .with_context(|| format!("no client tells its status at {address}"))?;
    let told: Value = serde_json::from_slice(&body).context("what answers there is no client")?;
    let state = told
        .get("state")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let text = if args.json {
        told.to_string()
    } else {
        people(&told)
    };
    standard::print(format_args!("{text}\n"))?;
    Ok(if state == "connected" {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn people(told: &Value) -> String {
    let value = |path: &str| told.pointer(path).filter(|value| !value.is_null());
    let text = |path: &str| match value(path) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let mut lines = vec![
        format!("{:12}{}", "gateway", text("/gateway")),
        format!("{:12}{} since {}", "state", text("/state"), text("/since")),
    ];
    if value("/transport").is_some() {
        let (transport, why) = (text("/transport"), text("/why"));
        lines.push(format!("{:12}{transport}: {why}", "transport"));
    }
    if value("/reason").is_some() {
        lines.push(format!("{:12}{}", "reason", text("/reason")));
    }
    lines.push(format!(
        "{:12}{} open, {} opened, {} refused, {} failed",
        "streams",
        text("/streams/open"),
        text("/streams/opened"),
        text("/streams/refused"),
        text("/streams/failed")
    ));
    lines.push(format!(
        "{:12}{}, made {} times",
        "connections",
        text("/connections"),
        text("/connects")
    ));
    if value("/noMoreConnections").is_some() {
        let why = text("/noMoreConnections");
        lines.push(format!("{:12}{why}", "no more"));
    }
    if value("/tokenEndsInSeconds").is_some() {
        lines.push(format!(
            "{:12}ends in {} s",
            "token",
            text("/tokenEndsInSeconds")
        ));
    }
    lines.join("\n")
}
