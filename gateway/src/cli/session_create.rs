//! `session create`: flags to a request, an answer to an env bundle.

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, REFUSED, USAGE},
    output::{dotenv, export, text, variables},
    session::{default_provider, path_part},
};

/// What to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// `export K='V'`, for `eval "$(…)"`.
    Env,
    /// The gateway's whole answer.
    Json,
    /// `K="V"`.
    Dotenv,
}

/// Flags that describe a grant.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct GrantArgs {
    /// A host the session may reach: `api.example.com`, `*.example.com`, `db.example.com:5432`.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) allow: Vec<String>,
    /// A host it may not, whatever else says so.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) deny: Vec<String>,
    /// A private address or range that allowed names may resolve to.
    #[arg(long, value_name = "CIDR")]
    pub(super) allow_address: Vec<String>,
    /// A fixed answer for a name.
    #[arg(long, value_name = "NAME=ADDR")]
    pub(super) resolve: Vec<String>,
    /// What happens to hosts nothing names, where no --allow is given.
    #[arg(long, value_name = "allow|deny")]
    pub(super) default_action: Option<String>,
    /// A host service: `cache=unix:///run/cache.sock`, or only the name of one the configuration knows.
    #[arg(long = "service", value_name = "NAME[=URL]")]
    pub(super) services: Vec<String>,
    /// A listener of the sandbox that the host may dial, and how: `plugin` (a unix socket), `db=tcp`, `web=tls`.
    #[arg(long = "expose", value_name = "NAME[=unix|tcp|tls]")]
    pub(super) expose: Vec<String>,
    /// A capability of the catalogue to bind it to.
    #[arg(long = "capability", value_name = "NAME")]
    pub(super) capabilities: Vec<String>,
}

impl GrantArgs {
    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_empty()
            && self.deny.is_empty()
            && self.allow_address.is_empty()
            && self.resolve.is_empty()
            && self.default_action.is_none()
            && self.services.is_empty()
            && self.expose.is_empty()
            && self.capabilities.is_empty()
    }

    /// `{egress?, services?, expose?, capabilities?}`. A list that no flag fills stays absent, which is not the same as empty.
    pub(super) fn to_document(&self) -> Result<Map<String, Value>, Failure> {
        let mut egress = Map::new();
        for (key, list) in [
            ("allowedHosts", &self.allow),
            ("deniedHosts", &self.deny),
            ("allowedAddresses", &self.allow_address),
        ] {
            if !list.is_empty() {
                egress.insert(key.into(), list.clone().into());
            }
        }
        if let Some(action) = &self.default_action {
            egress.insert("defaultAction".into(), action.as_str().into());
        }
        let mut hosts: Map<String, Value> = Map::new();
        for entry in &self.resolve {
            let (name, address) = pair(entry, "--resolve", "NAME=ADDR")?;
            let answers = hosts.entry(name).or_insert_with(|| json!([]));
            if let Some(list) = answers.as_array_mut() {
                list.push(address.into());
            }
        }
        if !hosts.is_empty() {
            egress.insert("hosts".into(), hosts.into());
        }
        let mut services = Map::new();
        for entry in &self.services {
            match entry.split_once('=') {
                None => services.insert(entry.clone(), json!({})),
                Some(_) => {
                    let (name, url) = pair(entry, "--service", "NAME=URL")?;
                    services.insert(name.into(), url.into())
                }
            };
        }
        let mut expose = Map::new();
        for entry in &self.expose {
            let (name, dial) = match entry.contains('=') {
                true => pair(entry, "--expose", "NAME=unix|tcp|tls")?,
                false => (entry.as_str(), "unix"),
            };
            expose.insert(name.into(), dial.into());
        }
        let mut document = Map::new();
        let parts = [
            ("egress", egress),
            ("services", services),
            ("expose", expose),
        ];
        for (key, part) in parts {
            if !part.is_empty() {
                document.insert(key.into(), part.into());
            }
        }
        if !self.capabilities.is_empty() {
            document.insert("capabilities".into(), self.capabilities.clone().into());
        }
        Ok(document)
    }
}

fn pair<'a>(entry: &'a str, flag: &str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    let parts = entry
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty());
    parts.ok_or_else(|| Failure::new(USAGE, format!("{flag} {entry:?}: expected {form}")))
}

/// `session create`.
#[derive(Clone, Debug, Args)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    grant: GrantArgs,
    /// The provider; the gateway's default where absent.
    #[arg(long)]
    provider: Option<String>,
    /// The namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// An id of your own: the same command again then gives the same session.
    #[arg(long)]
    id: Option<String>,
    /// How long the session runs without keepalive, e.g. 30m.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// How long it may be idle; 0 = for ever.
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<String>,
    /// How long its credentials live at most.
    #[arg(long, value_name = "DURATION")]
    max_lifetime: Option<String>,
    /// What becomes of it then.
    #[arg(long, value_name = "reset|pause|stop")]
    on_expiry: Option<String>,
    /// What a pause does to open tunnels.
    #[arg(long, value_name = "close|hold")]
    on_pause: Option<String>,
    /// A label; the provider may bound how many sessions of one scope run at once.
    #[arg(long)]
    scope: Option<String>,
    /// Whose session it is, within its namespace.
    #[arg(long)]
    owner: Option<String>,
    /// Wait so long for a place in the scope.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: Option<u64>,
    /// An address or range its credentials may come from.
    #[arg(long = "source", value_name = "CIDR")]
    sources: Vec<String>,
    /// The key its credentials are bound to, as `sluicegate-relay key` prints it.
    #[arg(long, value_name = "THUMBPRINT")]
    client_key: Option<String>,
    /// Create it idle, without credentials.
    #[arg(long)]
    no_start: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Format::Env)]
    format: Format,
}

impl CreateArgs {
    fn to_request(&self) -> Result<Value, Failure> {
        let mut request = self.grant.to_document()?;
        let texts = [
            ("id", &self.id),
            ("namespace", &self.namespace),
            ("ttl", &self.ttl),
            ("idleTimeout", &self.idle_timeout),
            ("maxLifetime", &self.max_lifetime),
            ("onExpiry", &self.on_expiry),
            ("onPause", &self.on_pause),
            ("scope", &self.scope),
            ("owner", &self.owner),
            ("clientKey", &self.client_key),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                request.insert(key.into(), value.as_str().into());
            }
        }
        if !self.sources.is_empty() {
            request.insert("sources".into(), self.sources.clone().into());
        }
        if self.no_start {
            request.insert("start".into(), false.into());
        }
        Ok(request.into())
    }
}

pub(super) async fn run(args: CreateArgs) -> Result<(), Failure> {
    let request = args.to_request()?;
    let client = Client::new(&args.client)?;
    let provider = match &args.provider {
        Some(provider) => provider.clone(),
        None => default_provider(&client).await?,
    };
    let path = format!(
        "/admin/api/v1/runtime/providers/{}/sessions?wait={}",
        path_part(&provider),
        args.wait.unwrap_or_default(),
    );
    let reply = client.call(Method::POST, &path, Some(&request)).await?;
    let again = reply.status == http::StatusCode::OK;
    show_bundle(
        &reply.body,
        if args.client.json {
            Format::Json
        } else {
            args.format
        },
        again,
    )
}

/// The bundle on standard output and nothing else; what a person wants to know on standard error.
///
/// # Errors
/// The start waits for a place: there is no bundle yet.
pub(super) fn show_bundle(body: &Value, format: Format, again: bool) -> Result<(), Failure> {
    let queued = body.pointer("/session/queued/position");
    if let (Some(position), false) = (queued, format == Format::Json) {
        let id = text(body.get("session").unwrap_or(&Value::Null), "id");
        let message = format!(
            "session {id} waits for a place in its scope, position {position}: sluicegate session start {id} --wait 60"
        );
        return Err(Failure::new(REFUSED, message));
    }
    match format {
        Format::Env => say_whole!("{}", export(&variables(body))),
        Format::Dotenv => say_whole!("{}", dotenv(&variables(body))),
        Format::Json => say!("{body:#}"),
    }
    if format == Format::Json {
        return Ok(());
    }
    let session = body.get("session").cloned().unwrap_or_default();
    let was = if again { " (as before)" } else { "" };
    note!(
        "session {} of provider {} is {}{was}, generation {}, expires {}",
        text(&session, "id"),
        text(&session, "provider"),
        text(&session, "state"),
        text(&session, "generation"),
        text(&session, "expiresAt"),
    );
    let targets = session.get("dialTargets").and_then(Value::as_object);
    for (name, target) in targets.into_iter().flatten() {
        note!("dial {name} at {}", target.as_str().unwrap_or_default());
    }
    let errors = session.get("dialErrors").and_then(Value::as_object);
    for (name, error) in errors.into_iter().flatten() {
        note!(
            "{name} cannot be dialled: {}",
            error.as_str().unwrap_or_default()
        );
    }
    if body.get("stale").and_then(Value::as_bool) == Some(true) {
        note!(
            "changed since the generation began, use the new bundle: {}",
            text(body, "staleBindings")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    #[test]
    fn flags_become_the_document_of_the_api() {
        let args = GrantArgs {
            allow: vec!["api.example.com".into()],
            resolve: vec!["a.test=127.0.0.1".into(), "a.test=::1".into()],
            services: vec!["cache".into(), "db=tcp://127.0.0.1:5432".into()],
            expose: vec!["plugin".into(), "web=tls".into()],
            capabilities: vec!["data".into()],
            ..GrantArgs::default()
        };
        let expected = json!({
            "egress": { "allowedHosts": ["api.example.com"], "hosts": { "a.test": ["127.0.0.1", "::1"] } },
            "services": { "cache": {}, "db": "tcp://127.0.0.1:5432" },
            "expose": { "plugin": "unix", "web": "tls" },
            "capabilities": ["data"],
        });
        assert_eq!(Value::from(args.to_document().unwrap()), expected);
        assert!(
            GrantArgs::default().to_document().unwrap().is_empty(),
            "absent stays absent"
        );
    }

    #[test]
    fn half_a_pair_is_bad_usage() {
        for (resolve, service) in [
            ("a.test", None),
            ("=1.2.3.4", None),
            ("a.test=", None),
            ("a=b", Some("db=")),
        ] {
            let services = service.map(str::to_owned).into_iter().collect();
            let args = GrantArgs {
                resolve: vec![resolve.into()],
                services,
                ..GrantArgs::default()
            };
            assert_eq!(
                args.to_document().unwrap_err().code(),
                USAGE,
                "{resolve} {service:?}"
            );
        }
    }
}
