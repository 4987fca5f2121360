//! Names to addresses by our own resolver: never `getaddrinfo`, no hosts file, no search domains.

mod aliases;
mod answers;

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Resolver as Hickory,
    config::{
        LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig as HickoryConfig,
        ResolverOpts,
    },
    lookup::Lookup,
    net::{DnsError, NetError, NoRecords},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};
use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{Denial, HostName, TargetPermit};
use tokio::time::Instant;

use aliases::{MOST_ALIASES, alias, circle, leads_back, too_many_aliases};
use answers::Connections;

use crate::{
    descriptors::{self, For},
    outcome::is_exhausted,
};

/// One upstream name server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameServer {
    /// UDP, and TCP for what is truncated.
    Plain(SocketAddr),
    /// DNS over TLS (RFC 7858).
    Tls {
        /// Where.
        address: SocketAddr,
        /// The name its certificate must carry.
        name: Arc<str>,
    },
    /// DNS over HTTPS (RFC 8484).
    Https {
        /// Where.
        address: SocketAddr,
        /// The name its certificate must carry.
        name: Arc<str>,
        /// The path, usually `/dns-query`.
        path: Arc<str>,
    },
}

/// How to resolve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolverConfig {
    /// Name servers; empty = those of the system.
    pub servers: Vec<NameServer>,
    /// Roots of the servers spoken to over TLS or HTTPS (PEM); `None` = the system's.
    pub ca_file: Option<PathBuf>,
    /// One resolution, all retries included.
    pub timeout: Duration,
    /// Cached answers.
    pub cache_size: u64,
    /// Floor of an answer's life, "no such name" included.
    pub min_ttl: Duration,
    /// Ceiling of a positive answer's life.
    pub max_ttl: Duration,
    /// Ceiling of a negative answer's life.
    pub negative_ttl: Duration,
    /// The operator's static answers: these names are never looked up.
    pub hosts: Arc<BTreeMap<HostName, Vec<IpAddr>>>,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            ca_file: None,
            timeout: Duration::from_secs(5),
            cache_size: 4096,
            min_ttl: Duration::ZERO,
            max_ttl: Duration::from_secs(3600),
            negative_ttl: Duration::from_secs(30),
            hosts: Arc::default(),
        }
    }
}

/// The resolver cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// A name server's transport could not be set up.
    #[error("name servers cannot be used")]
    Servers(#[source] NetError),
    /// TLS for DNS over TLS or HTTPS.
    #[error("TLS for name servers cannot be set up")]
    Tls(#[source] sluicegate_certs::CertError),
    /// `dns.caFile`.
    #[error("cannot read dns.caFile {0:?}")]
    CaFile(PathBuf, #[source] std::io::Error),
}

/// The answers of one resolution.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resolved {
    /// Addresses, IPv6 and IPv4 in turn (RFC 8305 §4).
    pub addresses: Vec<IpAddr>,
    /// Names passed through on the way (CNAME), in order.
    pub chain: Vec<String>,
}

/// Addresses of one name that may be dialled, of all that were judged: enough for any honest one, a bound for the other kind.
pub(super) const MOST_ANSWERS: usize = 64;
/// How long the other family is waited for at most, once one has answered with addresses.
const LATE: Duration = Duration::from_secs(1);

/// Resolves names. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Hickory<Connections>,
    timeout: Duration,
    hosts: Arc<BTreeMap<HostName, Vec<IpAddr>>>,
}

impl Resolver {
    /// Build from configuration. Without `servers`, the system's name servers are read from resolv.conf; none there
    /// means that every name fails, which is said once in the log.
    ///
    /// # Errors
    /// A transport that cannot be set up.
    pub fn new(config: &ResolverConfig) -> Result<Self, ResolveError> {
        let servers = if config.servers.is_empty() {
            system_servers()
        } else {
            configured(&config.servers)
        };
        let encrypted = config
            .servers
            .iter()
            .any(|s| !matches!(s, NameServer::Plain(_)));
        let hickory = HickoryConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Hickory::builder_with_config(hickory, Connections::default())
            .with_options(options(config));
        if encrypted {
            let trust = trust(config.ca_file.as_deref())?;
            let tls = tls::client(&trust, &[], None).map_err(ResolveError::Tls)?;
            builder = builder.with_tls_config(Arc::unwrap_or_clone(tls));
        }
        let inner = builder.build().map_err(ResolveError::Servers)?;
        Ok(Self {
            inner,
            timeout: config.timeout,
            hosts: config.hosts.clone(),
        })
    }

    /// Resolve a permitted target's name, A and AAAA at once. A literal or a static answer is returned as it is.
    ///
    /// # Errors
    /// The refusal, and the resolver's own words for the record.
    pub async fn resolve(&self, permit: &TargetPermit) -> Result<Resolved, (Denial, String)> {
        if let Some(answers) = permit.answers() {
            return Ok(Resolved {
                addresses: answers.to_vec(),
                chain: Vec::new(),
            });
        }
        match permit.target().host() {
            sluicegate_policy::Host::Ip(ip) => Ok(Resolved {
                addresses: vec![*ip],
                chain: Vec::new(),
            }),
            sluicegate_policy::Host::Name(name) => self.lookup(name).await,
        }
    }

    /// Resolve an operator's own name (a `tls://` service).
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub async fn lookup(&self, name: &HostName) -> Result<Resolved, (Denial, String)> {
        if let Some(fixed) = self.hosts.get(name) {
            return Ok(Resolved {
                addresses: fixed.clone(),
                chain: Vec::new(),
            });
        }
        if descriptors::are_scarce(For::Leaving) {
            return Err((Denial::ConnectionLimit, descriptors::error().to_string()));
        }
        let Ok(mut fqdn) = Name::from_ascii(name.as_str()) else {
            return Err((Denial::DnsFailed, "the name does not fit DNS".into()));
        };
        // An absolute name is never completed by a search domain.
        fqdn.set_fqdn(true);
        // hickory's own timeout counts each try; ours is the whole.
        let deadline = Instant::now() + self.timeout;
        let [six, four] = tokio::time::timeout_at(deadline, self.both(&fqdn))
            .await
            .map_err(|_| {
                (
                    Denial::DnsTimeout,
                    format!("no answer within {:?}", self.timeout),
                )
            })?;
        let nothing = |family: &Result<Lookup, NetError>| {
            family
                .as_ref()
                .is_err_and(|error| error.is_no_records_found() && !error.is_nx_domain())
        };
        if nothing(&six) && nothing(&four) {
            // Names without an address, and aliases that never end, look the same from here.
            let walked = tokio::time::timeout_at(deadline, self.walk(fqdn.clone())).await;
            if let Ok(Some(why)) = walked {
                return Err((Denial::DnsFailed, why));
            }
        }
        combine(&fqdn, six, four)
    }

    /// Both families. One that is silent, or late behind the other's addresses, is like one that fails: the other's
    /// addresses are judged without it. (RFC 8305 §3 waits 50 ms; only judged addresses are dialled, so that waiting costs
    /// a broken resolver's users time, and not waiting costs nobody anything.)
    async fn both(&self, fqdn: &Name) -> [Result<Lookup, NetError>; 2] {
        let six = self.family(fqdn, RecordType::AAAA);
        let four = self.family(fqdn, RecordType::A);
        let late = LATE.min(self.timeout / 4);
        tokio::pin!(six, four);
        tokio::select! {
            six = &mut six => {
                let four = behind(&six, four, late).await;
                [six, four]
            }
            four = &mut four => {
                let six = behind(&four, six, late).await;
                [six, four]
            }
        }
    }

    /// One family. A response code that says neither "no such name" nor "no such record" is a failure.
    async fn family(&self, fqdn: &Name, kind: RecordType) -> Result<Lookup, NetError> {
        let found = self.inner.lookup(fqdn.clone(), kind).await;
        found.map_err(|error| match &error {
            NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, .. }))
                if !matches!(
                    response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                DnsError::ResponseCode(*response_code).into()
            }
            _ => error,
        })
    }

    /// Follow the aliases of a name without addresses; what is wrong with them, if anything.
    async fn walk(&self, name: Name) -> Option<String> {
        let mut names = vec![name];
        while names.len() <= MOST_ALIASES {
            let last = names.last()?.clone();
            let found = self.inner.lookup(last.clone(), RecordType::CNAME).await;
            let next = alias(found.ok()?.answers(), &last)?.clone();
            if names.contains(&next) {
                return Some(leads_back(&next));
            }
            names.push(next);
        }
        Some(too_many_aliases())
    }
}

/// The other family's answer, which is waited for as long as there is nothing else.
async fn behind(
    first: &Result<Lookup, NetError>,
    other: impl Future<Output = Result<Lookup, NetError>>,
    late: Duration,
) -> Result<Lookup, NetError> {
    if first.is_ok() {
        tokio::time::timeout(late, other)
            .await
            .unwrap_or(Err(NetError::Timeout))
    } else {
        other.await
    }
}

fn trust(ca_file: Option<&Path>) -> Result<TrustBundle, ResolveError> {
    let Some(file) = ca_file else {
        return TrustBundle::system().map_err(ResolveError::Tls);
    };
    let pem = std::fs::read(file).map_err(|error| ResolveError::CaFile(file.into(), error))?;
    TrustBundle::empty()
        .with_pem(&pem)
        .map_err(ResolveError::Tls)
}

fn options(config: &ResolverConfig) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.ndots = 0;
    options.cache_size = config.cache_size;
    options.attempts = 2;
    options.timeout = (config.timeout / 2).max(Duration::from_millis(100));
    options.positive_min_ttl = Some(config.min_ttl);
    options.positive_max_ttl = Some(config.max_ttl);
    options.negative_min_ttl = Some(config.min_ttl.min(config.negative_ttl));
    options.negative_max_ttl = Some(config.negative_ttl);
    options
}

fn configured(servers: &[NameServer]) -> Vec<NameServerConfig> {
    servers
        .iter()
        .map(|server| {
            let (address, mut config) = match server {
                NameServer::Plain(address) => {
                    (address, NameServerConfig::udp_and_tcp(address.ip()))
                }
                NameServer::Tls { address, name } => {
                    (address, NameServerConfig::tls(address.ip(), name.clone()))
                }
                NameServer::Https {
                    address,
                    name,
                    path,
                } => (
                    address,
                    NameServerConfig::https(address.ip(), name.clone(), Some(path.clone())),
                ),
            };
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            config
        })
        .collect()
}

fn system_servers() -> Vec<NameServerConfig> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => config.name_servers().to_vec(),
        Err(error) => {
            tracing::warn!(%error, "no name servers: resolv.conf cannot be read; set dns.servers");
            Vec::new()
        }
    }
}

fn combine(
    name: &Name,
    six: Result<Lookup, NetError>,
    four: Result<Lookup, NetError>,
) -> Result<Resolved, (Denial, String)> {
    let mut resolved = Resolved::default();
    let mut families = [Vec::new(), Vec::new()];
    for (result, family) in [&six, &four].into_iter().zip(&mut families) {
        let Ok(lookup) = result else { continue };
        if let Some(again) = circle(lookup.answers(), name) {
            return Err((Denial::DnsFailed, leads_back(again)));
        }
        for record in lookup.answers() {
            match &record.data {
                RData::A(a) => family.push(IpAddr::V4(a.0)),
                RData::AAAA(a) => family.push(IpAddr::V6(a.0)),
                RData::CNAME(name) => {
                    let name = name.0.to_ascii();
                    if !resolved.chain.contains(&name) {
                        resolved.chain.push(name);
                    }
                }
                _ => {}
            }
        }
    }
    if resolved.chain.is_empty() {
        // Of an alias whose rest of the way was cached before, the cache keeps the end alone.
        let mut answers = [&six, &four]
            .into_iter()
            .flatten()
            .flat_map(|found| found.answers());
        let end = answers.find(|one| one.record_type().is_ip_addr() && one.name != *name);
        resolved.chain.extend(end.map(|one| one.name.to_ascii()));
    }
    if resolved.chain.len() > MOST_ALIASES {
        return Err((Denial::DnsFailed, too_many_aliases()));
    }
    let [sixes, fours] = families;
    resolved.addresses = interleave(sixes, fours);
    if resolved.addresses.is_empty() {
        Err(failure(six.err(), four.err()))
    } else {
        Ok(resolved)
    }
}

/// RFC 8305 §4: families in turn, IPv6 first.
fn interleave(sixes: Vec<IpAddr>, fours: Vec<IpAddr>) -> Vec<IpAddr> {
    let (mut sixes, mut fours) = (sixes.into_iter(), fours.into_iter());
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    loop {
        let pair = [sixes.next(), fours.next()];
        if pair == [None, None] {
            return all;
        }
        for address in pair.into_iter().flatten() {
            if seen.insert(address) {
                all.push(address);
            }
        }
    }
}

/// The reason of a resolution without addresses: a failure of one family outweighs the other's "no such record".
fn failure(six: Option<NetError>, four: Option<NetError>) -> (Denial, String) {
    let errors = [four, six].into_iter().flatten();
    let mut worst = (Denial::DnsNotFound, "no address records".to_owned());
    for error in errors {
        let found = match &error {
            e if e.is_nx_domain() => (Denial::DnsNotFound, "NXDOMAIN".to_owned()),
            e if e.is_no_records_found() => continue,
            NetError::Timeout => (Denial::DnsTimeout, error.to_string()),
            NetError::Io(io) if is_exhausted(io) => (Denial::ConnectionLimit, error.to_string()),
            // The library does not say that it found no descriptor.
            _ if descriptors::are_scarce(For::Leaving) => {
                (Denial::ConnectionLimit, error.to_string())
            }
            _ => (Denial::DnsFailed, error.to_string()),
        };
        if worst.0 == Denial::DnsNotFound {
            worst = found;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use std::net::IpAddr;

    use super::interleave;

    #[test]
    fn families_take_turns_and_repeats_are_dropped() {
        let ip = |s: &str| s.parse::<IpAddr>().expect("literal");
        let six = vec![ip("2001:db8::1"), ip("2001:db8::2"), ip("2001:db8::1")];
        let four = vec![ip("192.0.2.1")];
        assert_eq!(
            interleave(six, four),
            [ip("2001:db8::1"), ip("192.0.2.1"), ip("2001:db8::2")]
        );
    }
}
