//! Sessions of a running gateway.

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use crate::session::Observation;

use super::{
    client::{Client, ClientArgs},
    failure::{FAILED, Failure, REFUSED, USAGE},
    output::{table, text},
    session_create::{self, CreateArgs, Format, show_bundle},
    session_logs,
};

/// `session …`.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Create a session, start it and print its env bundle.
    Create(Box<CreateArgs>),
    /// All sessions.
    List(ListArgs),
    /// One session, with its grant.
    Show(OneArgs),
    /// Begin a generation (or get a fresh credential for the one that runs) and print its env bundle.
    Start(StartArgs),
    /// Refuse new tunnels until it is resumed.
    Pause(OneArgs),
    /// Go on with the same credentials.
    Resume(OneArgs),
    /// Extend a running session.
    Keepalive(KeepaliveArgs),
    /// Revoke its credentials and cut its tunnels; it can be started again.
    #[command(visible_alias = "reset")]
    Revoke(OneArgs),
    /// What its runtime logged.
    Logs(session_logs::LogsArgs),
    /// Its events and access records, as they happen.
    Watch(session_logs::WatchArgs),
    /// Tell what became of its sandbox, as its runtime would.
    Observe(ObserveArgs),
    /// End it for good.
    Stop(OneArgs),
}

/// `session list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Only of this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Only of this namespace.
    #[arg(long)]
    namespace: Option<String>,
}

/// A command on one session.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
}

/// Which session.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The session's id.
    pub(super) id: String,
    /// Its provider, where the id alone is ambiguous. Of several namespaces of it none is guessed.
    #[arg(long)]
    pub(super) provider: Option<String>,
    /// Its namespace, likewise.
    #[arg(long)]
    pub(super) namespace: Option<String>,
}

/// `session start`.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
    /// Wait so long for a place in its scope.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Env)]
    format: Format,
}

/// `session observe`.
#[derive(Debug, Args)]
pub(super) struct ObserveArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
    /// What the sandbox is.
    #[arg(value_parser = Observation::STATES)]
    state: String,
    /// Why.
    #[arg(long, value_parser = Observation::REASONS)]
    reason: Option<String>,
    /// Of which generation; absent: the present one.
    #[arg(long)]
    generation: Option<u64>,
}

/// `session keepalive`.
#[derive(Debug, Args)]
pub(super) struct KeepaliveArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    which: Which,
    /// Seconds from now, at least.
    #[arg(long, value_name = "SECONDS")]
    extend: Option<u64>,
}

pub(super) async fn run(command: SessionCommand) -> Result<(), Failure> {
    match command {
        SessionCommand::Create(args) => session_create::run(*args).await,
        SessionCommand::List(args) => list(args).await,
        SessionCommand::Show(args) => show(args).await,
        SessionCommand::Start(args) => {
            let client = Client::new(&args.client)?;
            let path = session_path(&client, &args.which, ":start").await?;
            let path = format!("{path}&wait={}", args.wait.unwrap_or_default());
            let body = client.call(Method::POST, &path, None).await?.body;
            show_bundle(
                &body,
                if args.client.json {
                    Format::Json
                } else {
                    args.format
                },
                false,
            )
        }
        SessionCommand::Pause(args) => told(args, "pause").await,
        SessionCommand::Resume(args) => told(args, "resume").await,
        SessionCommand::Revoke(args) => told(args, "reset").await,
        SessionCommand::Stop(args) => told(args, "stop").await,
        SessionCommand::Logs(args) => session_logs::logs(args).await,
        SessionCommand::Watch(args) => session_logs::watch(args).await,
        SessionCommand::Observe(args) => {
            let client = Client::new(&args.client)?;
            let body = json!({ "state": args.state });
            let mut body = body.as_object().cloned().unwrap_or_default();
            if let Some(reason) = args.reason {
                body.insert("reason".into(), reason.into());
            }
            if let Some(generation) = args.generation {
                body.insert("generation".into(), generation.into());
            }
            let reply = act(&client, &args.which, "observe", Some(&body.into())).await?;
            tell(&args.client, &reply);
            Ok(())
        }
        SessionCommand::Keepalive(args) => {
            let client = Client::new(&args.client)?;
            let body = args
                .extend
                .map(|seconds| json!({ "extendSeconds": seconds }));
            let reply = act(&client, &args.which, "keepalive", body.as_ref()).await?;
            tell(&args.client, &reply);
            Ok(())
        }
    }
}

/// An action whose answer is the session's new state.
async fn told(args: OneArgs, action: &str) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let body = act(&client, &args.which, action, None).await?;
    tell(&args.client, &body);
    Ok(())
}

fn tell(args: &ClientArgs, body: &Value) {
    if args.json {
        say!("{body:#}");
        return;
    }
    let session = body.get("session").cloned().unwrap_or_default();
    say!(
        "session {} is {}, generation {}, expires {}",
        text(&session, "id"),
        text(&session, "state"),
        text(&session, "generation"),
        text(&session, "expiresAt"),
    );
}

async fn act(
    client: &Client,
    which: &Which,
    action: &str,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    let path = session_path(client, which, &format!(":{action}")).await?;
    Ok(client.call(Method::POST, &path, body).await?.body)
}

async fn show(args: OneArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let path = session_path(&client, &args.which, "").await?;
    let body = client.call(Method::GET, &path, None).await?.body;
    let session = body.get("session").cloned().unwrap_or_default();
    if args.client.json {
        say!("{session:#}");
        return Ok(());
    }
    for (key, value) in session.as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Object(_) => say!("{key}:\n{}", indented(value)),
            _ => say!("{key}: {}", text(&session, key)),
        }
    }
    Ok(())
}

fn indented(value: &Value) -> String {
    format!("{value:#}")
        .lines()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut query = Vec::new();
    for (key, value) in [("provider", &args.provider), ("namespace", &args.namespace)] {
        if let Some(value) = value {
            query.push(format!("{key}={}", path_part(value)));
        }
    }
    let body = every(&client, query).await?;
    if args.client.json {
        say!("{body:#}");
        return Ok(());
    }
    let columns = [
        "id",
        "provider",
        "namespace",
        "state",
        "generation",
        "expiresAt",
    ];
    let mut rows = vec![
        [
            "ID",
            "PROVIDER",
            "NAMESPACE",
            "STATE",
            "GENERATION",
            "EXPIRES",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for session in sessions(&body) {
        rows.push(columns.map(|column| text(session, column)).to_vec());
    }
    say_whole!("{}", table(&rows));
    Ok(())
}

/// `{sessions}` of every page.
async fn every(client: &Client, query: Vec<String>) -> Result<Value, Failure> {
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut query = query.clone();
        query.extend(next.map(|cursor| format!("after={}", path_part(&cursor))));
        let path = format!("/admin/api/v1/sessions?{}", query.join("&"));
        let mut body = client.call(Method::GET, &path, None).await?.body;
        next = body.get("next").and_then(Value::as_str).map(str::to_owned);
        if let Some(Value::Array(page)) = body.get_mut("sessions") {
            all.append(page);
        }
        if next.is_none() {
            return Ok(serde_json::json!({ "sessions": all }));
        }
    }
}

fn sessions(body: &Value) -> impl Iterator<Item = &Value> {
    body.get("sessions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The session's path with `below` behind it.
pub(super) async fn session_path(
    client: &Client,
    which: &Which,
    below: &str,
) -> Result<String, Failure> {
    let (provider, namespace) = find(client, which).await?;
    Ok(format!(
        "/admin/api/v1/runtime/providers/{}/sessions/{}{below}?namespace={}",
        path_part(&provider),
        path_part(&which.id),
        path_part(&namespace)
    ))
}

/// Provider and namespace of the session meant, asked of the gateway where the flags leave either open: one that is only
/// guessed may be somebody else's of the same id.
pub(super) async fn find(client: &Client, which: &Which) -> Result<(String, String), Failure> {
    if let (Some(provider), Some(namespace)) = (&which.provider, &which.namespace) {
        return Ok((provider.clone(), namespace.clone()));
    }
    let mut query = vec![format!("id={}", path_part(&which.id))];
    if let Some(namespace) = &which.namespace {
        query.push(format!("namespace={}", path_part(namespace)));
    }
    let body = every(client, query).await?;
    let one = only(&body, which)?;
    Ok((text(one, "provider"), text(one, "namespace")))
}

/// The one session of a list that is meant.
fn only<'a>(body: &'a Value, which: &Which) -> Result<&'a Value, Failure> {
    let is = |session: &Value, key: &str, asked: Option<&String>| {
        asked.is_none_or(|asked| *asked == text(session, key))
    };
    let meant = |session: &&Value| {
        text(session, "id") == which.id
            && is(session, "provider", which.provider.as_ref())
            && is(session, "namespace", which.namespace.as_ref())
    };
    let found: Vec<&Value> = sessions(body).filter(meant).collect();
    match found.as_slice() {
        [] => {
            let of = which.provider.as_ref();
            let of = of.map_or_else(String::new, |name| format!(" of provider {name:?}"));
            let message = format!(
                "there is no session {:?}{of}; see: sluicegate session list",
                which.id
            );
            Err(Failure::new(REFUSED, message))
        }
        [one] => Ok(one),
        several => {
            // What would tell them apart, and was not said.
            let flags = match (&which.provider, &which.namespace) {
                (Some(_), _) => "--namespace",
                (None, Some(_)) => "--provider",
                (None, None) => "--provider or --namespace",
            };
            let whose: Vec<String> = several
                .iter()
                .map(|one| format!("{}/{}", text(one, "namespace"), text(one, "provider")))
                .collect();
            let message = format!(
                "{} sessions are called {:?} ({}): add {flags}",
                several.len(),
                which.id,
                whose.join(", ")
            );
            Err(Failure::new(USAGE, message))
        }
    }
}

/// The provider the gateway marks as default.
pub(super) async fn default_provider(client: &Client) -> Result<String, Failure> {
    let body = client
        .call(Method::GET, "/admin/api/v1/runtime/providers", None)
        .await?
        .body;
    let marked = |provider: &&Value| provider.get("default").and_then(Value::as_bool) == Some(true);
    let found = body
        .as_array()
        .and_then(|all| all.iter().find(marked))
        .map(|provider| text(provider, "name"));
    found.ok_or_else(|| {
        Failure::new(
            FAILED,
            "the gateway has no default provider: add --provider",
        )
    })
}

/// A name as one path segment or query value.
pub(super) fn path_part(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{REFUSED, USAGE, Which, only, text};

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(super::path_part("a-b.c_1"), "a-b.c_1");
        assert_eq!(super::path_part("../x?y:z"), "..%2Fx%3Fy%3Az");
    }

    #[test]
    fn a_provider_alone_chooses_no_namespace() {
        let session = |namespace: &str, provider: &str| json!({ "id": "s1", "namespace": namespace, "provider": provider });
        let list = json!({ "sessions": [
            session("acme", "main"),
            session("default", "main"),
            session("default", "spare"),
        ]});
        let asked = |provider: Option<&str>, namespace: Option<&str>| {
            let which = Which {
                id: "s1".to_owned(),
                provider: provider.map(str::to_owned),
                namespace: namespace.map(str::to_owned),
            };
            let found = only(&list, &which).map(|one| text(one, "namespace"));
            found.map_err(|failure| failure.code())
        };
        assert_eq!(asked(None, None), Err(USAGE));
        assert_eq!(asked(Some("main"), None), Err(USAGE));
        assert_eq!(asked(None, Some("default")), Err(USAGE));
        assert_eq!(asked(Some("spare"), None), Ok("default".to_owned()));
        assert_eq!(asked(None, Some("acme")), Ok("acme".to_owned()));
        assert_eq!(asked(Some("main"), Some("acme")), Ok("acme".to_owned()));
        assert_eq!(asked(Some("gone"), None), Err(REFUSED));
    }
}
