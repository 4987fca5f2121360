//! `policy explain`: one target, and everything the decision looked at.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use http::Method;
use serde_json::{Map, Value, json};
use sluicegate_policy::{
    Target, explain_supposing,
    text::{self, Faults},
};

use super::{
    super::{
        client::Client,
        failure::{FAILED, Failure, USAGE},
    },
    ClientArgs, GrantArgs, output,
    source::{self, Alone},
};
use crate::{
    session::AskedGrant,
    trial::{Policy, supposed},
};

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
    /// What its name would resolve to.
    #[arg(long = "address", value_name = "ADDR")]
    addresses: Vec<String>,
    /// A plain request's method (GET where only a path is given).
    #[arg(long)]
    method: Option<String>,
    /// Its path, with its query.
    #[arg(long)]
    path: Option<String>,
    /// One of its fields, such as `X-HTTP-Method-Override: DELETE`: what a server may read instead of its line is judged too.
    #[arg(long = "field", value_name = "NAME: VALUE", value_parser = field)]
    fields: Vec<(String, String)>,
    /// What a tunnel would begin with.
    #[arg(long, value_name = "tls|other")]
    began: Option<String>,
    /// The server name in its ClientHello.
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// Its ClientHello is an encrypted one.
    #[arg(long)]
    ech: bool,
    #[command(flatten)]
    grant: GrantArgs,
}

fn field(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl ExplainArgs {
    /// What is asked about beside the target, as the admin API takes it.
    fn supposed(&self) -> Map<String, Value> {
        let mut supposed = Map::new();
        if !self.addresses.is_empty() {
            supposed.insert("addresses".into(), self.addresses.clone().into());
        }
        for (key, value) in [("method", &self.method), ("path", &self.path)] {
            if let Some(value) = value {
                supposed.insert(key.into(), value.as_str().into());
            }
        }
        if !self.fields.is_empty() {
            let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (name, value) in &self.fields {
                fields.entry(name).or_default().push(value);
            }
            supposed.insert("fields".into(), json!(fields));
        }
        if self.began.is_some() || self.sni.is_some() || self.ech {
            let kind = self.began.as_deref().unwrap_or("tls");
            let mut began = Map::new();
            began.insert("as".into(), kind.into());
            if let Some(sni) = &self.sni {
                began.insert("sni".into(), sni.as_str().into());
            }
            if self.ech {
                began.insert("ech".into(), true.into());
            }
            supposed.insert("began".into(), began.into());
        }
        supposed
    }
}

pub(in crate::cli) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let document = args.grant.to_document()?;
    let about = About {
        target: &args.target,
        supposed: args.supposed(),
    };
    // Rules given on the command line need no gateway, unless a provider is to bound them or a catalogue to know them.
    let elsewhere =
        args.provider.is_some() || args.session.is_some() || !args.grant.capabilities.is_empty();
    let answer = if let Some(path) = &args.policy {
        let policy = source::load(path, None, &AskedGrant::default())?;
        told(&policy, &about)?
    } else if let Some(path) = &args.config {
        let text = source::read_text(path)?;
        let asked = source::asked(document)?;
        let policy = source::from_config(&text, path, args.provider.as_deref(), &asked)?;
        told(&policy, &about)?
    } else if !args.grant.is_empty() && !elsewhere {
        let policy = Alone::local().policy(&source::asked(document)?)?;
        told(&policy, &about)?
    } else {
        ask(&args, document, about.supposed).await?
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
        ("who can", "hintFor"),
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

async fn ask(
    args: &ExplainArgs,
    mut question: Map<String, Value>,
    supposed: Map<String, Value>,
) -> Result<Value, Failure> {
    question.extend(supposed);
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

/// What is asked.
struct About<'a> {
    target: &'a str,
    supposed: Map<String, Value>,
}

fn told(policy: &Policy, about: &About<'_>) -> Result<Value, Failure> {
    let target = about.target;
    let target = Target::from_uri_authority(target, 443).map_err(|error| {
        Failure::new(
            USAGE,
            format!("{target:?}: {error}; expected HOST or HOST:PORT"),
        )
    })?;
    // By the reader that the admin API has.
    let mut faults = Faults::default();
    let source = Value::from(about.supposed.clone()).to_string();
    let node = text::parse(&source, &mut faults);
    let supposed = supposed(&mut node.fields(&mut faults), &mut faults);
    if !faults.is_clean() {
        return Err(Failure::new(USAGE, faults.to_string()));
    }
    let told = explain_supposing(&policy.grant, &target, &policy.admission, &supposed);
    serde_json::to_value(told).map_err(|error| Failure::new(FAILED, error.to_string()))
}
