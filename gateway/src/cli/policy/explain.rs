//! `policy explain`: one target, and everything the decision looked at.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::{Map, Value};
use sluicegate_policy::{Target, explain};

use super::{
    super::{
        client::Client,
        failure::{FAILED, Failure, USAGE},
    },
    ClientArgs, GrantArgs, output,
    source::{self, Alone},
};
use crate::{session::AskedGrant, trial::Policy};

/// `policy explain`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExplainArgs {
    /// HOST or HOST:PORT (443 where no port is given).
    target: String,
    #[command(flatten)]
    client: ClientArgs,
    /// Ask about this session.
    #[arg(long, conflicts_with_all = ["config", "policy", "GrantArgs"])]
    session: Option<String>,
    /// The session's provider, or the provider whose defaults and ceiling apply to the rules given.
    #[arg(long)]
    provider: Option<String>,
    /// The session's namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// Ask a configuration file instead of a gateway: what sessions of the provider begin with.
    #[arg(long, value_name = "FILE", conflicts_with = "policy")]
    config: Option<PathBuf>,
    /// Ask a file that holds an `egress` block, alone.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["provider", "GrantArgs"])]
    policy: Option<PathBuf>,
    #[command(flatten)]
    grant: GrantArgs,
}

pub(in crate::cli) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let document = args.grant.to_document()?;
    // Rules given on the command line need no gateway, unless a provider is to bound them or a catalogue to know them.
    let elsewhere =
        args.provider.is_some() || args.session.is_some() || !args.grant.capabilities.is_empty();
    let answer = if let Some(path) = &args.policy {
        let policy = source::load(path, None, &AskedGrant::default())?;
        told(&policy, &args.target)?
    } else if let Some(path) = &args.config {
        let text = source::read_text(path)?;
        let asked = source::asked(document)?;
        let policy = source::from_config(&text, path, args.provider.as_deref(), &asked)?;
        told(&policy, &args.target)?
    } else if !args.grant.is_empty() && !elsewhere {
        let policy = Alone::local().policy(&source::asked(document)?)?;
        told(&policy, &args.target)?
    } else {
        ask(&args, document).await?
    };
    show(&answer, args.client.json);
    Ok(())
}

fn show(answer: &Value, json: bool) {
    if json {
        say!("{answer:#}");
        return;
    }
    let part = |key: &str| output::text(answer, key);
    say!("{}: {}", part("target"), part("outcome"));
    for (label, key) in [
        ("reason", "reason"),
        ("rule", "rule"),
        ("whose", "origin"),
        ("to change it", "hint"),
    ] {
        if part(key) != "-" {
            say!("  {label}: {}", part(key));
        }
    }
    for step in answer
        .get("steps")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        say!(
            "  - {}",
            output::printable(step.as_str().unwrap_or_default())
        );
    }
}

async fn ask(args: &ExplainArgs, mut question: Map<String, Value>) -> Result<Value, Failure> {
    question.insert("target".into(), args.target.as_str().into());
    for (key, value) in [
        ("session", &args.session),
        ("provider", &args.provider),
        ("namespace", &args.namespace),
    ] {
        if let Some(value) = value {
            question.insert(key.into(), value.as_str().into());
        }
    }
    let client = Client::new(&args.client)?;
    Ok(client
        .call(
            Method::POST,
            "/admin/api/v1/policy:explain",
            Some(&question.into()),
        )
        .await?
        .body)
}

fn told(policy: &Policy, target: &str) -> Result<Value, Failure> {
    let target = Target::from_uri_authority(target, 443).map_err(|error| {
        Failure::new(
            USAGE,
            format!("{target:?}: {error}; expected HOST or HOST:PORT"),
        )
    })?;
    serde_json::to_value(explain(&policy.grant, &target, &policy.admission))
        .map_err(|error| Failure::new(FAILED, error.to_string()))
}
