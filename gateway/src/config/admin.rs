//! Who may come in by the management listener.
use super::{WebhookConfig, read};
use sluicegate_policy::{
    Target,
    text::{Faults, Node},
};
use std::path::PathBuf;

/// Guard of the admin API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminConfig {
    /// Connections to management listeners at once.
    pub connections: u32,
    /// Requests under way at once of each credential that is bounded to a part.
    pub requests_per_credential: u32,
    /// The file with the admin token (0600); absent = `admin.token` in the state directory, generated.
    pub token_file: Option<PathBuf>,
    /// Names and addresses a `Host` field may carry, beside the listener's own and `localhost`; lower case.
    pub allowed_hosts: Vec<String>,
    /// Origins a browser may come from, beside the listener's own: `scheme://host[:port]`, lower case.
    pub allowed_origins: Vec<String>,
    /// Credentials beside the admin token.
    pub credentials: Vec<CredentialConfig>,
    /// Who is told of lifecycle events.
    pub webhooks: Vec<WebhookConfig>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            connections: 256,
            requests_per_credential: 64,
            token_file: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            credentials: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

/// What a credential may do; each includes the ones before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ScopeConfig {
    /// Look.
    Read,
    /// Act on sessions.
    Operate,
    /// Act on the gateway.
    Admin,
}

impl ScopeConfig {
    /// The word in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// Where a credential's token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenConfig {
    /// A file of mode 0600.
    File(PathBuf),
    /// Only its SHA-256 is known.
    Sha256([u8; 32]),
}

/// One credential of the admin API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialConfig {
    /// For logs and answers.
    pub name: String,
    /// Its token.
    pub token: TokenConfig,
    /// What it may do; at least one.
    pub scopes: Vec<ScopeConfig>,
    /// The namespaces it sees; `None` = all. An owner is one of a namespace: with `owner` and none written, `default`.
    pub namespaces: Option<Vec<String>>,
    /// Whose sessions it may touch; `None` = anybody's.
    pub owner: Option<String>,
}

impl CredentialConfig {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let own = fields
            .require("name", faults)
            .and_then(|node| name(node, faults));
        let (file, hash) = (fields.take("tokenFile"), fields.take("tokenSha256"));
        let token = match (file, hash) {
            (Some(node), None) => read::path(node, faults).map(TokenConfig::File),
            (None, Some(node)) => sha256(node, faults).map(TokenConfig::Sha256),
            (None, None) | (Some(_), Some(_)) => {
                faults.error(node.place(), "one of tokenFile and tokenSha256");
                None
            }
        };
        let words = [ScopeConfig::Read, ScopeConfig::Operate, ScopeConfig::Admin];
        let words = words.map(|scope| (scope.as_str(), scope));
        let scopes = fields
            .require("scopes", faults)
            .map(|node| read::list(node, faults, |node, faults| node.choice(&words, faults)));
        let namespaces = fields
            .take("namespaces")
            .map(|node| read::list(node, faults, name));
        let owner = fields.take("owner");
        // Whoever could name a new namespace would have a new quota with it.
        let namespaces = namespaces.or_else(|| owner.map(|_| vec!["default".to_owned()]));
        let owner = owner.and_then(|node| name(node, faults));
        fields.finish(faults);
        Some(Self {
            name: own?,
            token: token?,
            scopes: scopes?,
            namespaces,
            owner,
        })
    }
}

/// A name as sessions and namespaces have them.
pub(super) fn name(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    let mut bytes = text.bytes();
    let named = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.len() <= 63
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if named {
        return Some(text.into());
    }
    node.expected(
        "a letter or digit, then letters, digits, '.', '_' or '-', at most 63 in all",
        faults,
    )
}

fn sha256(node: &Node, faults: &mut Faults) -> Option<[u8; 32]> {
    let text = node.scalar(faults)?.to_ascii_lowercase();
    let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        Some(hash) => Some(hash),
        None => node.expected("the SHA-256 of the token, 64 hexadecimal digits", faults),
    }
}

impl AdminConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let usual = Self::default();
        // A sixteenth is kept back.
        let connections = fields
            .take("connections")
            .and_then(|node| read::count(node, 16, faults));
        let requests_per_credential = fields
            .take("requestsPerCredential")
            .and_then(|node| read::count(node, 1, faults));
        let token_file = fields
            .take("tokenFile")
            .and_then(|node| read::path(node, faults));
        let allowed_hosts = fields
            .take("allowedHosts")
            .map(|node| read::list(node, faults, host));
        let allowed_origins = fields
            .take("allowedOrigins")
            .map(|node| read::list(node, faults, origin));
        let credentials = fields
            .take("credentials")
            .map(|node| read::list(node, faults, CredentialConfig::read))
            .unwrap_or_default();
        let webhooks = fields
            .take("webhooks")
            .map(|node| read::list(node, faults, WebhookConfig::read))
            .unwrap_or_default();
        for (at, one) in webhooks.iter().enumerate() {
            if webhooks.iter().take(at).any(|other| other.name == one.name) {
                faults.error(
                    node.place(),
                    format!("webhook {:?} is written twice", one.name),
                );
            }
        }
        for (at, one) in credentials.iter().enumerate() {
            if credentials
                .iter()
                .take(at)
                .any(|other| other.name == one.name)
            {
                faults.error(
                    node.place(),
                    format!("credential {:?} is written twice", one.name),
                );
            }
        }
        fields.finish(faults);
        Self {
            connections: connections.unwrap_or(usual.connections),
            requests_per_credential: requests_per_credential
                .unwrap_or(usual.requests_per_credential),
            webhooks,
            credentials,
            token_file,
            allowed_hosts: allowed_hosts.unwrap_or_default(),
            allowed_origins: allowed_origins.unwrap_or_default(),
        }
    }
}

/// A host, without port: it is the name a rebinding attack would bring that matters.
fn host(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    match Target::from_uri_authority(text, 1) {
        Ok(target) if target.port() == 1 => Some(target.host().to_string()),
        _ => node.expected("a host name or address without port", faults),
    }
}

/// RFC 6454 §6.2: scheme, host, and the port where it is not the scheme's own.
fn origin(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?.to_ascii_lowercase();
    let parts = text.split_once("://").and_then(|(scheme, authority)| {
        let port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let target = Target::from_uri_authority(authority, port).ok()?;
        Some((scheme.to_owned(), port, target))
    });
    match parts {
        Some((scheme, port, target)) if target.port() == port => {
            Some(format!("{scheme}://{}", target.host()))
        }
        Some((scheme, _, target)) => Some(format!("{scheme}://{target}")),
        None => node.expected("an origin such as https://console.example.com", faults),
    }
}
