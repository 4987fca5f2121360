//! `probe agent`: the checks of the way in, made from where sandboxes are.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::{FAILED, Failure},
    output::{table, text},
};
use crate::probe::run_lent;

/// `probe …`.
#[derive(Debug, Subcommand)]
pub(super) enum ProbeCommand {
    /// Probe a gateway's public URL from this machine, and report to it (its `probe.from` is `agent`).
    Agent(AgentArgs),
}

/// `probe agent`.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Seconds between two runs, give or take a tenth.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// One run, then the end.
    #[arg(long)]
    once: bool,
    /// Dial this address instead of those the public URL's host resolves to; may be given again.
    #[arg(long, value_name = "IP")]
    resolve: Vec<IpAddr>,
}

pub(super) async fn run(command: ProbeCommand) -> Result<(), Failure> {
    let ProbeCommand::Agent(args) = command;
    loop {
        let ran = once(&args).await;
        match ran {
            Ok(()) if args.once => return Ok(()),
            Err(failure) if args.once => return Err(failure),
            Ok(()) => {}
            // A gateway that restarts, or that another agent is probing, is asked again.
            Err(failure) => note!("sluicegate: {failure}"),
        }
        let spread = getrandom::u32().unwrap_or(u32::MAX / 2);
        let factor = 0.9 + 0.2 * f64::from(spread) / f64::from(u32::MAX);
        tokio::time::sleep(Duration::from_secs(args.interval).mul_f64(factor)).await;
    }
}

async fn once(args: &AgentArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let lent = client
        .call(Method::POST, "/admin/api/v1/probe:begin", None)
        .await?;
    let report = run_lent(&lent.body, &args.resolve)
        .await
        .map_err(|error| Failure::new(FAILED, format!("{:#}", anyhow::Error::from(error))))?;
    client
        .call(Method::POST, "/admin/api/v1/probe:report", Some(&report))
        .await?;
    show(&report, args.client.json);
    Ok(())
}

fn show(report: &Value, json: bool) {
    if json {
        say!("{report}");
        return;
    }
    let mut rows = vec![["CHECK", "OUTCOME", "WHY"].map(str::to_owned).to_vec()];
    let checks = report.get("checks").and_then(Value::as_array);
    for check in checks.into_iter().flatten() {
        rows.push(vec![
            text(check, "name"),
            text(check, "outcome"),
            text(check, "reason"),
        ]);
    }
    say_whole!("{}", table(&rows));
}
