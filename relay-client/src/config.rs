//! What the client is to do: from flags, then a JSON file, then the session's env bundle. Pure but for reading files.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sluicegate_certs::CertError;

use crate::{
    listen::{Address, AddressError, Exposed, Listen},
    session::{Credential, is_token},
    transport::{Choice, ChoiceError, Endpoint, EndpointError, Transport},
};

mod exposed;
pub use exposed::ExposedFile;

/// Settings as they are given in one place. Later places fill what earlier ones leave open.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The gateway's public URL.
    pub url: Option<String>,
    /// Addresses of the gateway, instead of what its name stands for.
    #[serde(default)]
    pub resolve: Vec<IpAddr>,
    /// The credential. In the environment or a file only: arguments are public.
    #[serde(skip)]
    pub token: Option<String>,
    /// A file that holds the credential.
    pub token_file: Option<PathBuf>,
    /// Roots to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// A file that holds the key the credentials are bound to.
    pub key_file: Option<PathBuf>,
    /// `auto`, `quic`, `h2` or `h1`.
    pub transport: Option<String>,
    /// `NAME=unix:///path` or `NAME=tcp://127.0.0.1:PORT`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// `NAME=unix:///path` or `NAME=tcp://127.0.0.1:PORT`: a local listener the host may dial.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Names of services that get a unix socket each where `listen` is empty.
    #[serde(default)]
    pub services: Vec<String>,
    /// Where the HTTP proxy listens: `127.0.0.1:PORT`, `tcp://…` or `unix:///path`.
    pub proxy: Option<String>,
    /// The egress credential. In the environment or a file only.
    #[serde(skip)]
    pub proxy_token: Option<String>,
    /// A file that holds it.
    pub proxy_token_file: Option<PathBuf>,
    /// What listens on TCP serves every user that can reach it.
    #[serde(default, alias = "proxyAnyUid")]
    pub any_uid: bool,
    /// Where it tells how it is: `127.0.0.1:PORT` or `unix:///path`.
    pub status: Option<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("listen", &self.listen)
            .field("expose", &self.expose)
            .finish_non_exhaustive()
    }
}

/// Everything settled.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The gateway.
    pub endpoint: Endpoint,
    /// The credential.
    pub token: String,
    /// The file it was read from.
    pub token_file: Option<PathBuf>,
    /// Roots to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The key the credentials are bound to, where they are.
    pub key_file: Option<PathBuf>,
    /// Which transports may be used.
    pub transport: Choice,
    /// What to listen on.
    pub listen: Vec<Listen>,
    /// Where the sockets are for which nobody chose a place, if there are any.
    pub directory: Option<PathBuf>,
    /// On TCP, serve every user, not only our own.
    pub any_uid: bool,
    /// What the host may dial.
    pub expose: Vec<Exposed>,
    /// The HTTP proxy, where one is wanted.
    pub proxy: Option<ProxyConfig>,
    /// Where it tells how it is.
    pub status: Option<Address>,
}

impl Config {
    /// Files of its tokens that others can read, each once.
    pub fn exposed_files(&self) -> Vec<ExposedFile> {
        let proxy = self.proxy.as_ref().and_then(|one| one.token_file.as_ref());
        let proxy = proxy.filter(|path| Some(*path) != self.token_file.as_ref());
        let files = self.token_file.iter().chain(proxy);
        files.filter_map(|path| ExposedFile::at(path)).collect()
    }

    /// What serves every user that reaches it: whoever of this network namespace connects acts as this session.
    pub fn open_to_all(&self) -> Vec<&Address> {
        let places = self.listen.iter().map(|one| &one.address);
        let proxy = self.proxy.iter().map(|proxy| &proxy.address);
        let all = places.chain(proxy).chain(&self.status);
        all.filter(|address| self.any_uid && matches!(address, Address::Tcp(_)))
            .collect()
    }
}

/// The HTTP proxy of the sandbox.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Where it listens.
    pub address: Address,
    /// The egress credential.
    pub token: String,
    /// The file it was read from.
    pub token_file: Option<PathBuf>,
}

impl ProxyConfig {
    /// Its credential, which follows its file.
    pub fn credential(&self) -> Credential {
        Credential::new(&self.token, self.token_file.clone())
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("endpoint", &self.endpoint)
            .field("listen", &self.listen)
            .field("expose", &self.expose)
            .finish_non_exhaustive()
    }
}

/// What is missing or wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No URL.
    #[error(
        "no gateway URL: set SLUICEGATE_RELAY_URL (`sluicegate session create` prints it) or pass --url"
    )]
    NoUrl,
    /// No credential.
    #[error(
        "no token: set SLUICEGATE_RELAY_TOKEN (`sluicegate session create` prints it) or pass --token-file"
    )]
    NoToken,
    /// No credential for the proxy.
    #[error(
        "no token for the proxy: set SLUICEGATE_PROXY_TOKEN (`sluicegate session create` prints it) or pass --proxy-token-file"
    )]
    NoProxyToken,
    /// What is given as a credential cannot be one.
    #[error("{0} holds no token: a token is one word of letters, digits and punctuation")]
    NotAToken(String),
    /// The client's key.
    #[error("the key {}: {_1}", _0.display())]
    Key(PathBuf, #[source] CertError),
    /// Roots to trust.
    #[error("the roots to trust, {}: {_1}", _0.display())]
    Roots(PathBuf, #[source] CertError),
    /// Nothing to do.
    #[error(
        "no services: set SLUICEGATE_SERVICES, or pass --listen or --expose NAME=unix:///path, or --proxy 127.0.0.1:3128"
    )]
    NoServices,
    /// The URL.
    #[error("gateway URL: {0}")]
    Url(#[from] EndpointError),
    /// The transport.
    #[error("transport: {0}")]
    Transport(#[from] ChoiceError),
    /// QUIC without TLS.
    #[error("transport: quic needs an https:// URL")]
    QuicWithoutTls,
    /// Nobody said where.
    #[error("where? pass --status (or SLUICEGATE_RELAY_STATUS) as it was given to `up`")]
    NoStatus,
    /// A listener.
    #[error("listener: {0}")]
    Listen(#[from] AddressError),
    /// A listener to expose.
    #[error("exposed listener: {0}")]
    Expose(#[source] AddressError),
    /// A path in a sandbox that has places of its own.
    #[error(
        "{0}: in `run` the path of a unix socket is the sandbox's own choice; leave it out, or name a port"
    )]
    Placed(String),
    /// What only who makes the session can say.
    #[error(
        "--resolve {0}: static answers are the session's, and the gateway judges by them: pass --resolve {0} to `sluicegate \
         session create`"
    )]
    OfTheSession(String),
    /// One name twice.
    #[error("{0} is exposed twice")]
    ExposedTwice(String),
    /// One address twice.
    #[error("{0} is given twice")]
    Twice(Address),
    /// A file that cannot be read.
    #[error("cannot read {0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// A config file that is not one.
    #[error("{0}: {1}")]
    Json(PathBuf, #[source] serde_json::Error),
}

impl Settings {
    /// Read a JSON file.
    ///
    /// # Errors
    /// [`ConfigError::File`], [`ConfigError::Json`] with line and column.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read(path).map_err(|error| ConfigError::File(path.into(), error))?;
        serde_json::from_slice(&text).map_err(|error| ConfigError::Json(path.into(), error))
    }

    /// The session's env bundle. Empty values are absent ones.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let list = |name| -> Vec<String> {
            let text = variable(name).unwrap_or_default();
            let items = text.split(',').map(str::trim);
            items.filter(|s| !s.is_empty()).map(str::to_owned).collect()
        };
        Self {
            url: variable("SLUICEGATE_RELAY_URL"),
            resolve: Vec::new(),
            token: variable("SLUICEGATE_RELAY_TOKEN"),
            token_file: None,
            ca_file: variable("SLUICEGATE_CA_FILE").map(PathBuf::from),
            key_file: variable("SLUICEGATE_RELAY_KEY_FILE").map(PathBuf::from),
            transport: variable("SLUICEGATE_RELAY_TRANSPORT"),
            listen: Vec::new(),
            expose: list("SLUICEGATE_EXPOSE"),
            services: list("SLUICEGATE_SERVICES"),
            proxy: None,
            proxy_token: variable("SLUICEGATE_PROXY_TOKEN"),
            proxy_token_file: None,
            any_uid: false,
            status: variable("SLUICEGATE_RELAY_STATUS"),
        }
    }

    /// `self`, and from `under` what it leaves open.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        let own_token = self.token.is_some() || self.token_file.is_some();
        let own_proxy_token = self.proxy_token.is_some() || self.proxy_token_file.is_some();
        Self {
            url: self.url.or(under.url),
            resolve: if self.resolve.is_empty() {
                under.resolve
            } else {
                self.resolve
            },
            token: if own_token { self.token } else { under.token },
            token_file: if own_token {
                self.token_file
            } else {
                under.token_file
            },
            ca_file: self.ca_file.or(under.ca_file),
            key_file: self.key_file.or(under.key_file),
            transport: self.transport.or(under.transport),
            listen: if self.listen.is_empty() {
                under.listen
            } else {
                self.listen
            },
            expose: if self.expose.is_empty() {
                under.expose
            } else {
                self.expose
            },
            services: if self.services.is_empty() {
                under.services
            } else {
                self.services
            },
            proxy: self.proxy.or(under.proxy),
            proxy_token: if own_proxy_token {
                self.proxy_token
            } else {
                under.proxy_token
            },
            proxy_token_file: if own_proxy_token {
                self.proxy_token_file
            } else {
                under.proxy_token_file
            },
            any_uid: self.any_uid || under.any_uid,
            status: self.status.or(under.status),
        }
    }

    /// Settle. Sockets without a place of their own go to `directory`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn settle(self, directory: &Path) -> Result<Config, ConfigError> {
        let config = self.settle_to_look(directory)?;
        if config.listen.is_empty() && config.expose.is_empty() && config.proxy.is_none() {
            return Err(ConfigError::NoServices);
        }
        Ok(config)
    }

    /// The same where nothing is to be carried.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn settle_to_look(self, directory: &Path) -> Result<Config, ConfigError> {
        let endpoint = Endpoint::parse(&self.url.ok_or(ConfigError::NoUrl)?)?.fixed(self.resolve);
        let transport: Choice = self.transport.as_deref().unwrap_or("auto").parse()?;
        if transport == Choice::Only(Transport::Quic) && !endpoint.is_tls() {
            return Err(ConfigError::QuicWithoutTls);
        }
        let token_file = self.token_file.filter(|_| self.token.is_none());
        let token = credential(self.token, token_file.clone(), "SLUICEGATE_RELAY_TOKEN")?
            .ok_or(ConfigError::NoToken)?;
        let proxy = match &self.proxy {
            None => None,
            Some(place) => {
                let file = self.proxy_token_file.filter(|_| self.proxy_token.is_none());
                Some(ProxyConfig {
                    address: bare_address(place)?,
                    token: credential(self.proxy_token, file.clone(), "SLUICEGATE_PROXY_TOKEN")?
                        .ok_or(ConfigError::NoProxyToken)?,
                    token_file: file,
                })
            }
        };
        let placed = !self.listen.is_empty() || self.services.is_empty();
        let listen = if self.listen.is_empty() {
            let place = |service: String| Listen {
                address: socket_in(directory, &service),
                service,
            };
            self.services.into_iter().map(place).collect()
        } else {
            self.listen
                .iter()
                .map(|text| Listen::parse(text))
                .collect::<Result<Vec<_>, _>>()?
        };
        let expose = self
            .expose
            .iter()
            .map(|text| Exposed::parse(text).map_err(ConfigError::Expose))
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = std::collections::BTreeSet::new();
        if let Some(again) = expose.iter().find(|one| !names.insert(&one.listener)) {
            return Err(ConfigError::ExposedTwice(again.listener.clone()));
        }
        let chosen = |address: &Address| !matches!(address, Address::Tcp(tcp) if tcp.port() == 0);
        for (place, one) in listen.iter().enumerate() {
            if chosen(&one.address)
                && listen
                    .iter()
                    .skip(place + 1)
                    .any(|other| other.address == one.address)
            {
                return Err(ConfigError::Twice(one.address.clone()));
            }
        }
        Ok(Config {
            endpoint,
            token,
            token_file,
            ca_file: self.ca_file,
            key_file: self.key_file,
            transport,
            listen,
            directory: (!placed).then(|| directory.into()),
            any_uid: self.any_uid,
            proxy,
            expose,
            status: self.status.as_deref().map(bare_address).transpose()?,
        })
    }
}

/// A credential as it is given in this variable, or from its file; `None` where there is neither, or nothing in it.
fn credential(
    given: Option<String>,
    file: Option<PathBuf>,
    variable: &str,
) -> Result<Option<String>, ConfigError> {
    let (text, place) = match (given, file) {
        (Some(text), _) => (text, variable.to_owned()),
        (None, Some(path)) => {
            let place = path.display().to_string();
            let text = fs::read_to_string(&path).map_err(|error| ConfigError::File(path, error))?;
            (text, place)
        }
        (None, None) => return Ok(None),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if is_token(text) {
        Ok(Some(text.to_owned()))
    } else {
        Err(ConfigError::NotAToken(place))
    }
}

/// `127.0.0.1:3128` is what proxies, and what people look at, are usually given as.
///
/// # Errors
/// See [`AddressError`].
pub fn bare_address(text: &str) -> Result<Address, AddressError> {
    if text.contains("://") {
        Address::parse(text)
    } else {
        Address::parse(&format!("tcp://{text}"))
    }
}

/// A service's name has no separator but `:`, `.`, `_` and `-`; what else came in the environment is made harmless.
fn socket_in(directory: &Path, service: &str) -> Address {
    let safe: String = service
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-:".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    Address::Unix(directory.join(format!("{}.sock", safe.trim_start_matches('.'))))
}

/// `$XDG_RUNTIME_DIR/sluicegate`, else `/tmp/sluicegate-<uid>`.
pub fn default_directory(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    match variable("XDG_RUNTIME_DIR").filter(|d| Path::new(d).is_absolute()) {
        Some(directory) => Path::new(&directory).join("sluicegate"),
        None => PathBuf::from(format!(
            "/tmp/sluicegate-{}",
            rustix::process::geteuid().as_raw()
        )),
    }
}

#[cfg(test)]
mod tests;
