//! The env bundle: what a runtime puts into a sandbox's environment.

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_relay::variables::CA_FILES;

use crate::{
    auth::{Audience, Handle, Keys, Mint, ServiceClaim, mint},
    session::{Record, RegistryError},
};

/// Where sandboxes reach the gateway from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicUrl {
    /// TLS or not.
    pub tls: bool,
    /// Name or address, IPv6 in brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Default for PublicUrl {
    fn default() -> Self {
        Self {
            tls: true,
            host: "127.0.0.1".into(),
            port: 8443,
        }
    }
}

impl PublicUrl {
    /// `https://host[:port]` or `http://host[:port]`, no path. `None` where the text is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.as_str().contains('@')
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self {
            tls,
            host: authority.host().to_owned(),
            port,
        })
    }

    fn http(&self) -> String {
        format!(
            "{}://{}:{}",
            if self.tls { "https" } else { "http" },
            self.host,
            self.port
        )
    }

    fn socket(&self) -> String {
        format!(
            "{}://{}:{}",
            if self.tls { "tls" } else { "tcp" },
            self.host,
            self.port
        )
    }
}

/// The private CA, where one is in play.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaFiles {
    /// Where the bundle file stands in the sandbox (and on this machine).
    pub path: PathBuf,
    /// System roots and our CA, in PEM.
    pub bundle_pem: Arc<str>,
    /// Our CA alone, in PEM.
    pub ca_pem: Arc<str>,
}

/// What every bundle of this gateway is made of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BundleContext {
    /// A plaintext listener that sandboxes reach, where there is one: what most clients can speak to.
    pub plain_proxy: Option<SocketAddr>,
    /// Where sandboxes reach the gateway.
    pub public_url: PublicUrl,
    /// The private CA, if the public listener's certificate comes from it.
    pub ca: Option<CaFiles>,
}

/// Environment and files of one credential. Shown once; never logged.
#[derive(Clone)]
pub struct Bundle {
    /// Variables in a sensible order.
    pub env: Vec<(String, String)>,
    /// Files to write: path and PEM.
    pub files: Vec<(String, String)>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("variables", &self.env.len())
            .finish_non_exhaustive()
    }
}

/// Where the relay client's proxy is in the sandbox of a session whose credentials are bound to its key.
const SIDECAR: &str = "http://127.0.0.1:3128";

/// Tokens of a generation without `maxLifetime` end after this; its handles do not.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Make a bundle of fresh credentials for the record's generation, and for the `services` it may open now. `handle` is stored by
/// the caller.
pub(super) fn make(
    context: &BundleContext,
    keys: &Keys,
    record: &Record,
    services: &[String],
    handle: &Handle,
    now: SystemTime,
) -> Result<Bundle, RegistryError> {
    let client_key = record.key_of_client();
    let proxy = match client_key {
        // A handle proves no key: the way out is the client's own proxy.
        Some(_) => SIDECAR.to_owned(),
        None => proxy_url(context, handle),
    };
    let mut env = proxy_variables(&proxy);
    let key = record.key();
    // A pause that lasts moves the end of the generation when it is over.
    let since = record
        .lease
        .paused_at
        .and_then(|since| now.duration_since(since).ok());
    let present = since.unwrap_or_default();
    let ends_at = record.lease.ends_at.map(|end| end + present);
    let expires = ends_at.unwrap_or(now + LONGEST);
    let token_until = |audience, services, expires| {
        let asked = Mint {
            audience,
            session: &key,
            generation: record.lease.generation,
            born: record.born(),
            services,
            key: client_key,
            family: None,
            paused: record.lease.paused_total + present,
            expires,
        };
        mint(keys, asked, now)
    };
    let token_for = |audience, services| token_until(audience, services, expires);
    let token = |services| token_for(Audience::Relay, services);
    let mut put = |name: &str, value: String| env.push((name.into(), value));

    // The one for the client of ours, which asks for the next in time.
    let ends = record
        .lease
        .times
        .token_ttl
        .map_or(expires, |ttl| expires.min(now + ttl));
    let relay = token_until(Audience::Relay, None, ends)?;
    put("SLUICEGATE_RELAY_URL", context.public_url.http());
    put("SLUICEGATE_RELAY_TOKEN", relay.reveal().into());
    put("SLUICEGATE_SERVICES", services.join(","));
    // For the proxy of the relay client: the programs behind it hold no credential.
    let egress = token_for(Audience::Egress, None)?;
    put("SLUICEGATE_PROXY_TOKEN", egress.reveal().into());
    // SDKs have no key either: they use the client's sockets.
    if !services.is_empty() && client_key.is_none() {
        let socket = context.public_url.socket();
        let bare: BTreeSet<&str> = services.iter().map(|name| bare(name)).collect();
        let general = token(None)?;
        put("GESTALT_HOST_SERVICE_SOCKET", socket.clone());
        put("GESTALT_HOST_SERVICE_TOKEN", general.reveal().into());
        put(
            "GESTALT_HOST_SERVICES",
            bare.into_iter().collect::<Vec<_>>().join(","),
        );
        let mut taken = BTreeSet::new();
        for name in services {
            let variable = variable(name);
            if !taken.insert(variable.clone()) {
                tracing::warn!(service = %name, "another service has the same variable name; reach this one by the relay client");
                continue;
            }
            let claim = ServiceClaim {
                name: name.clone(),
                method_prefix: None,
                direction: None,
            };
            put(&format!("GESTALT_{variable}_SOCKET"), socket.clone());
            put(
                &format!("GESTALT_{variable}_TOKEN"),
                token(Some(vec![claim]))?.reveal().into(),
            );
        }
    }
    let mut files = Vec::new();
    if let Some(ca) = &context.ca {
        let path = ca.path.display().to_string();
        env.extend(ca_variables(&path, &ca.ca_pem));
        files.push((path, ca.bundle_pem.to_string()));
    }
    Ok(Bundle { env, files })
}

fn proxy_url(context: &BundleContext, handle: &Handle) -> String {
    let url = &context.public_url;
    let (scheme, place) = match context.plain_proxy {
        Some(address) => ("http", address.to_string()),
        None => (
            if url.tls { "https" } else { "http" },
            format!("{}:{}", url.host, url.port),
        ),
    };
    format!("{scheme}://sluicegate:{}@{place}", handle.secret.reveal())
}

fn proxy_variables(proxy: &str) -> Vec<(String, String)> {
    let names = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ];
    let mut env: Vec<_> = names
        .into_iter()
        .map(|name| (name.to_owned(), proxy.to_owned()))
        .collect();
    for name in ["NO_PROXY", "no_proxy"] {
        env.push((name.into(), "localhost,127.0.0.1,::1".into()));
    }
    env.push(("NODE_USE_ENV_PROXY".into(), "1".into()));
    env
}

fn ca_variables(path: &str, pem: &str) -> Vec<(String, String)> {
    let mut env: Vec<_> = ["SLUICEGATE_CA_FILE"]
        .into_iter()
        .chain(CA_FILES)
        .map(|name| (name.to_owned(), path.to_owned()))
        .collect();
    env.push(("UV_NATIVE_TLS".into(), "1".into()));
    env.push(("GESTALT_HOST_SERVICE_TLS_CA_PEM".into(), pem.into()));
    env
}

/// `cache:main` without its binding.
fn bare(name: &str) -> &str {
    name.split_once(':').map_or(name, |(bare, _)| bare)
}

/// `cache:main` → `CACHE_MAIN`.
fn variable(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
