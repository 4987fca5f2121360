//! `doctor`: why does it not work?

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use sluicegate_relay::{
    doctor::{Check, Wanted, examine},
    standard,
};

use super::options::{Options, tls};

/// Exit codes: 0 everything works; 1 something failed; 2 bad flags, file or environment.
#[derive(Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    options: Options,
    /// A target the proxy must let pass, HOST:PORT
    #[arg(long, value_name = "HOST:PORT", value_parser = canary)]
    canary: Option<(String, u16)>,
    /// Report as one JSON object on standard output
    #[arg(long)]
    json: bool,
}

fn canary(text: &str) -> Result<(String, u16), String> {
    let form = || format!("{text:?} is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) if port > 0 && !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(form()),
    }
}

/// Try every step, and say what to change.
///
/// # Errors
/// Settings, trust, standard output.
pub(super) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = args.options.settle_to_look()?;
    let tls = tls(&config)?;
    let wanted = Wanted {
        canary: args.canary.clone(),
    };
    let checks = examine(&config, &tls, &wanted).await;
    let good = !checks.iter().any(Check::is_failed);
    let gateway = config.endpoint.to_string();
    let text = if args.json {
        let checks: Vec<_> = checks.iter().map(Check::json).collect();
        json!({"gateway": gateway, "ok": good, "checks": checks}).to_string()
    } else {
        let lines = checks.iter().map(Check::to_string);
        let head = format!("gateway  {gateway}");
        std::iter::once(head)
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n")
    };
    standard::print(format_args!("{text}\n"))?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
