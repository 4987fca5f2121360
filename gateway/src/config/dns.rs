//! How names are resolved.
use super::read::{self, keep};
use ipnet::Ipv6Net;
use sluicegate_policy::{
    HostName, MixedAnswers, Nat64Prefix,
    text::{Faults, Node},
};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// How a DNS server is spoken to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DnsTransport {
    /// UDP, and TCP for what does not fit (RFC 1035, RFC 7766).
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls {
        /// The name its certificate must carry.
        name: String,
    },
    /// DNS over HTTPS (RFC 8484).
    Https {
        /// The name its certificate must carry.
        name: String,
        /// The path of its endpoint, e.g. `/dns-query`.
        path: String,
    },
}

/// One upstream resolver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsServer {
    /// Where it answers.
    pub address: SocketAddr,
    /// How.
    pub transport: DnsTransport,
}

/// The resolver's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsConfig {
    /// Upstream resolvers; `None` = the system's.
    pub servers: Option<Vec<DnsServer>>,
    /// Who signs the certificates of servers spoken to over TLS or HTTPS (PEM); `None` = the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Static answers, the operator's own: they are exempt from the private-address ban for that name.
    pub hosts: BTreeMap<HostName, Vec<IpAddr>>,
    /// What becomes of a set of answers of which some are refused.
    pub mixed_answers: MixedAnswers,
    /// One resolution, all its queries together.
    pub timeout: Duration,
    /// Names kept; 0 = no cache.
    pub cache_size: u32,
    /// Answers are kept at least this long.
    pub min_ttl: Duration,
    /// Answers are kept at most this long.
    pub max_ttl: Duration,
    /// "No such name" is kept at most this long.
    pub negative_ttl: Duration,
    /// NAT64 prefixes of this network (RFC 6052 §2.2), beside the well-known one.
    pub nat64: Vec<Ipv6Net>,
}

impl DnsConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut dns = Self::default();
        let mut fields = node.fields(faults);
        dns.servers = fields
            .take("servers")
            .map(|node| read::list(node, faults, DnsServer::read));
        dns.ca_file = fields.take("caFile").and_then(|node| {
            let encrypted = dns.servers.iter().flatten();
            if !encrypted.into_iter().any(DnsServer::is_encrypted) {
                return node.expected(
                    "a tls:// or https:// server in dns.servers beside it",
                    faults,
                );
            }
            read::path(node, faults)
        });
        dns.hosts = fields
            .take("hosts")
            .map(|node| hosts(node, faults))
            .unwrap_or_default();
        let mixed = [
            ("refuse", MixedAnswers::Refuse),
            ("filter", MixedAnswers::Filter),
        ];
        keep(
            &mut dns.mixed_answers,
            fields
                .take("mixedAnswers")
                .and_then(|node| node.choice(&mixed, faults)),
        );
        keep(
            &mut dns.timeout,
            fields
                .take("timeout")
                .and_then(|node| read::positive(node, faults)),
        );
        keep(
            &mut dns.cache_size,
            fields
                .take("cacheSize")
                .and_then(|node| read::count(node, 0, faults)),
        );
        let min_node = fields.take("minTtl");
        for (node, slot) in [
            (min_node, &mut dns.min_ttl),
            (fields.take("maxTtl"), &mut dns.max_ttl),
            (fields.take("negativeTtl"), &mut dns.negative_ttl),
        ] {
            keep(slot, node.and_then(|node| node.duration(faults)));
        }
        if let (Some(node), true) = (min_node, dns.min_ttl > dns.max_ttl) {
            faults.error(node.place(), "minTtl is above maxTtl");
        }
        dns.nat64 = fields
            .take("nat64")
            .map(|node| read::list(node, faults, nat64))
            .unwrap_or_default();
        fields.finish(faults);
        dns
    }

    /// The prefixes as address classification wants them.
    #[must_use]
    pub fn nat64_prefixes(&self) -> Vec<Nat64Prefix> {
        self.nat64
            .iter()
            .filter_map(|net| Nat64Prefix::new(net.addr(), net.prefix_len()))
            .collect()
    }
}

impl DnsServer {
    /// Is it spoken to over TLS?
    fn is_encrypted(&self) -> bool {
        !matches!(self.transport, DnsTransport::Plain)
    }

    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        match Self::parse(node.string(faults)?) {
            Some(server) => Some(server),
            None => node.expected(
                "ADDRESS[:PORT], tls://ADDRESS[:PORT][#NAME] or https://ADDRESS[:PORT]/PATH[#NAME]",
                faults,
            ),
        }
    }

    /// The address is a literal: nothing is there yet to resolve a name with.
    fn parse(text: &str) -> Option<Self> {
        let (rest, name) = match text.split_once('#') {
            Some((rest, name)) => (rest, Some(HostName::parse(name).ok()?.to_string())),
            None => (text, None),
        };
        if let Some(rest) = rest.strip_prefix("tls://") {
            let address = address(rest, 853)?;
            let name = name.unwrap_or_else(|| address.ip().to_string());
            return Some(Self {
                address,
                transport: DnsTransport::Tls { name },
            });
        }
        if let Some(rest) = rest.strip_prefix("https://") {
            let (authority, path) = rest.split_at(rest.find('/')?);
            let visible = path.len() > 1
                && path
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'{'));
            let address = address(authority, 443)?;
            let name = name.unwrap_or_else(|| address.ip().to_string());
            return visible.then(|| Self {
                address,
                transport: DnsTransport::Https {
                    name,
                    path: path.to_owned(),
                },
            });
        }
        // A name to verify means nothing where nothing is verified.
        name.is_none().then_some(())?;
        Some(Self {
            address: address(rest, 53)?,
            transport: DnsTransport::Plain,
        })
    }
}

impl fmt::Display for DnsServer {
    /// As written in the document.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            DnsTransport::Plain => write!(f, "{}", self.address),
            DnsTransport::Tls { name } => write!(f, "tls://{}{}", self.address, fragment(name)),
            DnsTransport::Https { name, path } => {
                write!(f, "https://{}{path}{}", self.address, fragment(name))
            }
        }
    }
}

/// An address as the verified name goes without saying.
fn fragment(name: &str) -> String {
    if name.parse::<IpAddr>().is_ok() {
        String::new()
    } else {
        format!("#{name}")
    }
}

/// `1.1.1.1`, `1.1.1.1:53`, `2606::1`, `[2606::1]`, `[2606::1]:53`; never port 0.
fn address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, default_port)),
        Err(_) => text
            .parse()
            .ok()
            .filter(|address: &SocketAddr| address.port() != 0),
    }
}

fn hosts(node: &Node, faults: &mut Faults) -> BTreeMap<HostName, Vec<IpAddr>> {
    let mut hosts = BTreeMap::new();
    for (key, node) in node.entries(faults) {
        let name = read::host_name(key, node, faults);
        let addresses = read::one_or_more(node, faults, read::ip_address);
        if let Some(name) = name
            && let Some(_) = hosts.insert(name, addresses)
        {
            faults.error(
                &node.key_place(),
                format!("{key:?} names the same host as an entry above"),
            );
        }
    }
    hosts
}

fn nat64(node: &Node, faults: &mut Faults) -> Option<Ipv6Net> {
    let net = read::ipv6_prefix(node, faults)?;
    if Nat64Prefix::new(net.addr(), net.prefix_len()).is_none() {
        return node.expected(
            "a prefix of length 32, 40, 48, 56, 64 or 96 (RFC 6052)",
            faults,
        );
    }
    Some(net)
}
