//! Capabilities: the catalogue, and those of a session.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, USAGE},
    output::{table, text},
    session::{Which, session_path},
};

/// `capability …`.
#[derive(Debug, Subcommand)]
pub(super) enum CapabilityCommand {
    /// The catalogue; with a session's id, the capabilities it is bound to.
    List(ListArgs),
    /// Bind a capability to a session.
    Install(InstallArgs),
    /// Let a binding count again.
    Enable(OneArgs),
    /// Keep a binding, without effect.
    Disable(OneArgs),
    /// Change what a session takes of a capability.
    Update(InstallArgs),
    /// Take a capability away from a session.
    Uninstall(OneArgs),
    /// The merged grant of a session, and where each entry comes from.
    Resolved(ResolvedArgs),
}

/// `capability list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The session; absent: the catalogue.
    session: Option<String>,
    /// Its provider, where the id alone is ambiguous.
    #[arg(long)]
    provider: Option<String>,
    /// Its namespace, likewise.
    #[arg(long)]
    namespace: Option<String>,
}

/// A command on one binding.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
    /// The capability.
    capability: String,
}

/// `capability install`, `capability update`.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Keep it without effect until it is enabled.
    #[arg(long)]
    disabled: bool,
    /// Only these of its services.
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// A smaller limit: tunnels, opensPerSecond, bytes or bandwidth.
    #[arg(long = "limit", value_name = "KEY=VALUE")]
    limits: Vec<String>,
}

/// `capability resolved`.
#[derive(Debug, Args)]
pub(super) struct ResolvedArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
}

pub(super) async fn run(command: CapabilityCommand) -> Result<(), Failure> {
    match command {
        CapabilityCommand::List(args) => list(args).await,
        CapabilityCommand::Install(args) => install(args, "").await,
        CapabilityCommand::Update(args) => install(args, ":update").await,
        CapabilityCommand::Enable(args) => act(&args, Method::POST, ":enable", None).await,
        CapabilityCommand::Disable(args) => act(&args, Method::POST, ":disable", None).await,
        CapabilityCommand::Uninstall(args) => act(&args, Method::DELETE, "", None).await,
        CapabilityCommand::Resolved(args) => resolved(args).await,
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let path = match args.session {
        None => "/admin/api/v1/capabilities".to_owned(),
        Some(id) => {
            let which = Which {
                id,
                provider: args.provider,
                namespace: args.namespace,
            };
            session_path(&client, &which, "/capabilities").await?
        }
    };
    let body = client.call(Method::GET, &path, None).await?.body;
    if args.client.json {
        say!("{body:#}");
        return Ok(());
    }
    show(&body);
    Ok(())
}

fn show(body: &Value) {
    let mut rows = vec![
        [
            "CAPABILITY",
            "ENABLED",
            "SERVICES",
            "EXPOSES",
            "DESCRIPTION",
        ]
        .map(str::to_owned),
    ];
    let all = body.get("capabilities").and_then(Value::as_array);
    for capability in all.into_iter().flatten() {
        let names = |key: &str| match capability.get(key) {
            Some(Value::Object(map)) => map.keys().cloned().collect::<Vec<_>>().join(","),
            Some(Value::Array(_)) => text(capability, key),
            _ => "-".to_owned(),
        };
        rows.push([
            text(capability, "name"),
            text(capability, "enabled"),
            names("services"),
            names("expose"),
            text(capability, "description"),
        ]);
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    say_whole!("{}", table(&rows));
}

async fn install(args: InstallArgs, action: &str) -> Result<(), Failure> {
    let mut body = Map::new();
    if args.disabled {
        body.insert("enabled".into(), false.into());
    }
    if !args.services.is_empty() {
        body.insert("services".into(), args.services.clone().into());
    }
    if !args.limits.is_empty() {
        let mut limits = Map::new();
        for limit in &args.limits {
            let (key, value) = limit.split_once('=').ok_or_else(|| {
                Failure::new(USAGE, format!("--limit {limit:?}: expected KEY=VALUE"))
            })?;
            let value = value
                .parse::<u64>()
                .map_or_else(|_| value.into(), Value::from);
            limits.insert(key.into(), value);
        }
        body.insert("limits".into(), limits.into());
    }
    act(&args.one, Method::POST, action, Some(&json!(body))).await
}

async fn act(
    args: &OneArgs,
    method: Method,
    action: &str,
    body: Option<&Value>,
) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let name = super::session::path_part(&args.capability);
    let below = format!("/capabilities/{name}{action}");
    let path = session_path(&client, &args.which, &below).await?;
    let body = client.call(method, &path, body).await?.body;
    if args.client.json {
        say!("{body:#}");
        return Ok(());
    }
    let session = body.get("session").cloned().unwrap_or_default();
    say!(
        "session {} is {}, policy generation {}",
        text(&session, "id"),
        text(&session, "state"),
        text(&session, "policyGeneration"),
    );
    show(&session);
    Ok(())
}

async fn resolved(args: ResolvedArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let path = session_path(&client, &args.which, "/resolved").await?;
    let body = client.call(Method::GET, &path, None).await?.body;
    let resolved = body.get("resolved").cloned().unwrap_or_default();
    if args.client.json {
        say!("{resolved:#}");
        return Ok(());
    }
    say!("policy generation {}", text(&resolved, "policyGeneration"));
    let mut rows = vec![["ENTRY", "VALUE", "FROM"].map(str::to_owned).to_vec()];
    for part in ["egress", "services", "expose", "limits", "secrets"] {
        if let Some(value) = resolved.get(part) {
            entries(part, value, &mut rows);
        }
    }
    say_whole!("{}", table(&rows));
    Ok(())
}

/// Every `{value, from}` (or `{name, from}`) below, one row each.
fn entries(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let from = value.get("from").and_then(Value::as_array);
    if let Some(from) = from {
        let from: Vec<&str> = from.iter().filter_map(Value::as_str).collect();
        let shown = ["value", "name"]
            .into_iter()
            .find(|key| value.get(key).is_some());
        rows.push(vec![
            path.to_owned(),
            shown.map(|key| text(value, key)).unwrap_or_default(),
            from.join(", "),
        ]);
        return;
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                entries(&format!("{path}.{key}"), value, rows);
            }
        }
        Value::Array(items) => {
            for item in items {
                entries(path, item, rows);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn every_entry_is_a_row_with_its_origin() {
        let mut rows = Vec::new();
        let egress = json!({
            "allowedHosts": [{"value": "a.test", "from": ["provider", "session"]}],
            "hosts": {"db.test": {"value": ["127.0.0.1"], "from": ["session"]}},
            "mode": {"value": "enforce", "from": ["capability:x"]},
        });
        super::entries("egress", &egress, &mut rows);
        let expected = [
            ["egress.allowedHosts", "a.test", "provider, session"],
            ["egress.hosts.db.test", "[\"127.0.0.1\"]", "session"],
            ["egress.mode", "enforce", "capability:x"],
        ];
        assert_eq!(rows, expected.map(|row| row.map(str::to_owned).to_vec()));
    }
}
