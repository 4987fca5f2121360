//! Providers and placement, as a running gateway has proved them.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, REFUSED, USAGE},
    output::{table, text},
    session_create::GrantArgs,
};

/// `provider …`.
#[derive(Debug, Subcommand)]
pub(super) enum ProviderCommand {
    /// Providers, advertised → effective, and what falls short.
    List(ClientArgs),
    /// Probe now, then every check with what it found, and what falls short.
    Check(ClientArgs),
}

/// `placement …`.
#[derive(Debug, Subcommand)]
pub(super) enum PlacementCommand {
    /// Is a workload placeable with a provider? Exit code 4 where it is not.
    Check(PlacementArgs),
}

/// A workload, as a session would ask for it.
#[derive(Debug, Args)]
pub(super) struct PlacementArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The provider; the gateway's default where absent.
    #[arg(long)]
    provider: Option<String>,
    #[command(flatten)]
    grant: GrantArgs,
    /// It brings no provider that is to be executed there.
    #[arg(long)]
    not_executable: bool,
    /// Probe first.
    #[arg(long)]
    probe: bool,
}

const PROVIDERS: &str = "/admin/api/v1/runtime/providers";

pub(super) async fn run(command: ProviderCommand) -> Result<(), Failure> {
    let (args, check) = match &command {
        ProviderCommand::List(args) => (args, false),
        ProviderCommand::Check(args) => (args, true),
    };
    let query = if check { "?probe=now" } else { "" };
    let path = format!("{PROVIDERS}{query}");
    let body = Client::new(args)?
        .call(Method::GET, &path, None)
        .await?
        .body;
    if args.json {
        say!("{body:#}");
        return Ok(());
    }
    let providers = body.as_array().map(Vec::as_slice).unwrap_or_default();
    say_whole!("{}", summary(providers));
    if let (true, Some(first)) = (check, providers.first()) {
        say!();
        say_whole!("{}", checks(providers));
        say!("{}", rests_on(first));
    }
    Ok(())
}

/// How many runs were made for this answer.
fn rests_on(provider: &Value) -> String {
    let probed = provider.get("probed").cloned().unwrap_or_default();
    let settled = probed.get("settled").and_then(Value::as_bool);
    let agreed = match settled {
        Some(false) => "; findings did not agree, and the states are those from before",
        Some(true) | None => "",
    };
    format!("runs: {}{agreed}", text(&probed, "runs"))
}

/// Advertised → effective of each provider, and below them why.
pub(super) fn summary(providers: &[Value]) -> String {
    let mut rows = vec![
        [
            "PROVIDER",
            "DEFAULT",
            "SESSIONS",
            "PLUGINS",
            "HOST SERVICES",
            "EGRESS",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for provider in providers {
        rows.push(vec![
            text(provider, "name"),
            text(provider, "default"),
            text(provider, "sessionCount"),
            shift(provider, "canHostPlugins"),
            shift(provider, "hostServiceAccess"),
            shift(provider, "egressMode"),
        ]);
    }
    let mut out = table(&rows);
    for provider in providers {
        out.push_str(&error(provider));
        let shortfalls = provider.get("shortfalls").and_then(Value::as_array);
        for short in shortfalls.into_iter().flatten() {
            out.push_str(&format!(
                "{}: {}: {}{}{}\n",
                text(provider, "name"),
                text(short, "field"),
                text(short, "reason"),
                since(short),
                setting(short),
            ));
        }
    }
    out
}

/// Why no session can be made of it, whatever is proved; nothing where one can.
fn error(provider: &Value) -> String {
    if provider.get("error").is_none_or(Value::is_null) {
        return String::new();
    }
    let loaded = provider.get("loaded").and_then(Value::as_bool);
    let what = match loaded {
        Some(false) => "not loaded: ",
        Some(true) | None => "",
    };
    format!(
        "{}: {what}{}\n",
        text(provider, "name"),
        text(provider, "error")
    )
}

/// `advertised → effective`; `?` while that is not known.
fn shift(provider: &Value, field: &str) -> String {
    let profile = |which: &str| provider.get("profile")?.get(which)?.get(field);
    let word = |value: Option<&Value>, missing: &str| match value {
        Some(Value::String(word)) => word.clone(),
        Some(Value::Null) | None => missing.to_owned(),
        Some(other) => other.to_string(),
    };
    let advertised = word(profile("advertised"), "-");
    format!("{advertised} → {}", word(profile("effective"), "?"))
}

fn since(value: &Value) -> String {
    let seconds = value.get("since").and_then(Value::as_u64);
    seconds.map_or_else(String::new, |seconds| {
        let at = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        format!(" (since {})", crate::clock::rfc3339(at))
    })
}

fn setting(value: &Value) -> String {
    match text(value, "setting").as_str() {
        "-" => String::new(),
        setting => format!("; see {setting}"),
    }
}

/// Each check once, with the providers that rest on it where not all do.
fn checks(providers: &[Value]) -> String {
    let mut found: Vec<(&Value, Vec<String>)> = Vec::new();
    for provider in providers {
        let checks = provider.get("checks").and_then(Value::as_array);
        for check in checks.into_iter().flatten() {
            let name = text(provider, "name");
            match found.iter_mut().find(|(known, _)| *known == check) {
                Some((_, of)) => of.push(name),
                None => found.push((check, vec![name])),
            }
        }
    }
    let mut rows = vec![
        ["CHECK", "STATE", "LAST", "AGE", "MS", "WHY"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (check, of) in found {
        let last = check.get("last").cloned().unwrap_or_default();
        let name = text(check, "name");
        rows.push(vec![
            if of.len() == providers.len() {
                name
            } else {
                format!("{name} ({})", of.join(", "))
            },
            text(check, "state"),
            text(&last, "outcome"),
            format!("{}s", text(&last, "ageSeconds")),
            text(&last, "milliseconds"),
            match text(&last, "reason").as_str() {
                "-" => String::new(),
                reason => reason.to_owned(),
            },
        ]);
    }
    table(&rows)
}

pub(super) async fn placement(command: PlacementCommand) -> Result<(), Failure> {
    let PlacementCommand::Check(args) = command;
    let client = Client::new(&args.client)?;
    let provider = match &args.provider {
        Some(name) => name.clone(),
        None => default_provider(&client).await?,
    };
    let query = if args.probe { "?probe=now" } else { "" };
    let path = format!("{PROVIDERS}/{provider}/placements:check{query}");
    let body = client
        .call(Method::POST, &path, Some(&workload(&args)?))
        .await?
        .body;
    if args.client.json {
        say!("{body:#}");
    }
    if body.get("placeable").and_then(Value::as_bool) == Some(true) {
        if !args.client.json {
            say!("placeable with {provider}");
        }
        return Ok(());
    }
    let why = format!("not placeable with {provider}: {}", text(&body, "reason"));
    Err(Failure::new(REFUSED, why))
}

fn workload(args: &PlacementArgs) -> Result<Value, Failure> {
    let mut workload = args.grant.to_document()?;
    workload.insert("executable".into(), (!args.not_executable).into());
    Ok(workload.into())
}

async fn default_provider(client: &Client) -> Result<String, Failure> {
    let body = client.call(Method::GET, PROVIDERS, None).await?.body;
    let all = body.as_array().map(Vec::as_slice).unwrap_or_default();
    let marked = all
        .iter()
        .find(|p| p.get("default").and_then(Value::as_bool) == Some(true));
    let name = marked.and_then(|p| p.get("name")).and_then(Value::as_str);
    name.map(str::to_owned).ok_or_else(|| {
        Failure::new(
            USAGE,
            "no provider is the default one: name one with --provider",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_falls_short_is_said_with_its_setting() {
        let provider = json!({
            "name": "modal", "default": true, "sessionCount": 2,
            "profile": {
                "advertised": {"canHostPlugins": true, "hostServiceAccess": "none", "egressMode": "cidr"},
                "effective": {"canHostPlugins": true, "hostServiceAccess": "relay", "egressMode": "cidr"},
            },
            "shortfalls": [{"field": "egressMode", "reason": "nothing keeps it in", "since": 0, "setting": "confinement: gateway-only"}],
        });
        assert_eq!(
            summary(&[provider]),
            "PROVIDER  DEFAULT  SESSIONS  PLUGINS      HOST SERVICES  EGRESS\n\
             modal     true     2         true → true  none → relay   cidr → cidr\n\
             modal: egressMode: nothing keeps it in (since 1970-01-01T00:00:00.000Z); see confinement: gateway-only\n"
        );
        let unknown = json!({"name": "x", "profile": {"advertised": {"egressMode": "cidr"}, "effective": null}});
        assert!(summary(&[unknown]).contains("cidr → ?"));
    }

    #[test]
    fn why_no_session_can_be_made_of_a_provider_is_said() {
        let with = |loaded: bool, error: Value| {
            summary(&[json!({"name": "x", "loaded": loaded, "error": error})])
        };
        let own = "tcp://127.0.0.1:9443 is the gateway itself";
        let said = with(false, own.into());
        assert!(
            said.ends_with(&format!("\nx: not loaded: {own}\n")),
            "{said}"
        );
        let unreadable = "the session store cannot be read";
        let said = with(true, unreadable.into());
        assert!(said.ends_with(&format!("\nx: {unreadable}\n")), "{said}");
        assert_eq!(with(true, Value::Null).lines().count(), 2);
    }

    #[test]
    fn each_check_is_shown_once_with_the_providers_that_rest_on_it() {
        let check = |name: &str, outcome: &str| {
            let last =
                json!({"outcome": outcome, "reason": null, "ageSeconds": 1, "milliseconds": 2});
            json!({"name": name, "state": "works", "last": last})
        };
        let provider = |name: &str, checks: Vec<Value>| json!({"name": name, "checks": checks});
        let (reach, cache) = (check("reach", "pass"), check("service:cache", "pass"));
        let shown = checks(&[
            provider("a", vec![reach.clone(), cache.clone()]),
            provider("b", vec![reach.clone(), check("service:cache", "fail")]),
            provider("c", vec![reach, cache]),
        ]);
        let names = shown.lines().map(|line| {
            let words: Vec<&str> = line.split("  ").collect();
            words.first().map(|name| name.trim()).unwrap_or_default()
        });
        let names: Vec<&str> = names.collect();
        assert_eq!(
            names,
            [
                "CHECK",
                "reach",
                "service:cache (a, c)",
                "service:cache (b)"
            ]
        );
    }
}
