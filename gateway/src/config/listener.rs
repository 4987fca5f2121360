//! Where the gateway listens, and for what.
use super::read;
use capture::CaptureNodes;
pub use capture::{CaptureConfig, CaptureMode, IdentifyBy};
use ipnet::IpNet;
use sluicegate_policy::{
    HostName,
    text::{Faults, Node},
};
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

mod capture;

/// What a listener serves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ListenerKind {
    /// Sandboxes, over TLS.
    Public,
    /// Sandboxes, without TLS: loopback or a private network.
    Plain,
    /// Operators: admin API, metrics, health.
    Management,
    /// Hosts that dial what sandboxes expose, over TLS with a client certificate.
    Private,
    /// Sandboxes, by SOCKS5.
    Socks,
    /// Networks whose connections are brought here.
    Transparent,
    /// Whoever resolves a name to us.
    Sni,
}

impl ListenerKind {
    /// The word in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Plain => "plain",
            Self::Management => "management",
            Self::Private => "private",
            Self::Socks => "socks",
            Self::Transparent => "transparent",
            Self::Sni => "sni",
        }
    }
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// One listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListenerConfig {
    /// What it serves.
    pub kind: ListenerKind,
    /// Where; port 0 lets the system choose.
    pub address: SocketAddr,
    /// For `plain` and `socks`: the private network it stands in was declared.
    pub private_network: bool,
    /// For `public`: QUIC on the UDP port of the same number.
    pub quic: bool,
    /// For `management`: TLS, needed off loopback. For `socks`: TLS before the first message. For `private`: its certificate, where the private CA is not used.
    pub tls: Option<KeyFiles>,
    /// With that TLS, clients show a certificate under these roots: operators beside their token, hosts always.
    pub client_ca: Option<PathBuf>,
    /// For `private`: what dial targets' names end in.
    pub domain: Option<HostName>,
    /// Peers that say by a PROXY header for whom they speak.
    pub trusted: Vec<IpNet>,
    /// For `transparent` and `sni`: what is captured, and whose it is.
    pub capture: Option<CaptureConfig>,
}

/// What the names of dial targets end in where the configuration says nothing: no public name (RFC 6762 §3 and RFC 8375
/// take their own; this one resolves only where the host's operator makes it).
const DIAL_DOMAIN: &str = "listeners.sluicegate";

/// Every word a kind can be.
const KINDS: &[(&str, ListenerKind)] = &[
    ("public", ListenerKind::Public),
    ("plain", ListenerKind::Plain),
    ("management", ListenerKind::Management),
    ("private", ListenerKind::Private),
    ("socks", ListenerKind::Socks),
    ("transparent", ListenerKind::Transparent),
    ("sni", ListenerKind::Sni),
];

/// Read `listeners`.
pub(super) fn read(node: &Node, faults: &mut Faults) -> Vec<ListenerConfig> {
    let mut seen: Vec<SocketAddr> = Vec::new();
    let listeners = read::list(node, faults, |node, faults| {
        let listener = ListenerConfig::read(node, faults)?;
        if let Some(other) = seen.iter().find(|other| collide(**other, listener.address)) {
            let message = format!("{} is taken by the listener at {other}", listener.address);
            faults.error(node.place(), message);
        }
        seen.push(listener.address);
        Some(listener)
    });
    let private = |listener: &&ListenerConfig| listener.kind == ListenerKind::Private;
    if listeners.iter().filter(private).count() > 1 {
        faults.error(
            node.place(),
            "more than one private listener: a dial target has one place",
        );
    }
    if !listeners
        .iter()
        .any(|listener| listener.kind == ListenerKind::Management)
    {
        let hint = "add {kind: management, address: \"127.0.0.1:9443\"}".to_owned();
        faults.warn(
            node.place(),
            "no management listener: no health, no metrics",
            Some(hint),
        );
    }
    listeners
}

impl ListenerConfig {
    /// A listener of this kind, with nothing special.
    pub(super) fn plain_of(kind: ListenerKind, address: SocketAddr) -> Self {
        Self {
            kind,
            address,
            private_network: false,
            quic: kind == ListenerKind::Public,
            tls: None,
            client_ca: None,
            domain: None,
            trusted: Vec::new(),
            capture: None,
        }
    }

    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let kind_node = fields.require("kind", faults);
        let address_node = fields.require("address", faults);
        let private_node = fields.take("privateNetwork");
        let quic_node = fields.take("quic");
        let tls_node = fields.take("tls");
        let ca_node = fields.take("clientCa");
        let domain_node = fields.take("domain");
        let captures = CaptureNodes::take(&mut fields);
        fields.finish(faults);

        let kind = kind_node.and_then(|node| node.choice(KINDS, faults));
        let address = address_node.and_then(|node| read::socket_address(node, faults));
        let private_network = private_node
            .and_then(|node| node.boolean(faults))
            .unwrap_or(false);
        let quic = quic_node.and_then(|node| node.boolean(faults));
        let tls = tls_node.and_then(|node| KeyFiles::read(node, faults));
        let (tls, tls_ca) = tls.map_or((None, None), |(files, ca)| (Some(files), ca));
        let trusted = captures.trusted(kind, faults);
        // What the rest means depends on the kind; unknown, only the above can be judged.
        let kind = kind?;
        let in_clear = matches!(kind, ListenerKind::Plain | ListenerKind::Socks);
        if let (Some(node), false) = (private_node, in_clear) {
            faults.error(
                &node.key_place(),
                "only a plain or socks listener has privateNetwork",
            );
        }
        if let (Some(node), true) = (quic_node, kind != ListenerKind::Public) {
            faults.error(&node.key_place(), "only a public listener has quic");
        }
        let own_tls = matches!(
            kind,
            ListenerKind::Management | ListenerKind::Private | ListenerKind::Socks
        );
        if let (Some(node), false) = (tls_node, own_tls) {
            let hint = match kind {
                ListenerKind::Plain => "a listener with TLS is of kind public",
                _ => "the certificate of public listeners stands in the top-level tls",
            };
            faults.error_hint(
                &node.key_place(),
                format!("no tls on a {} listener", kind.as_str()),
                hint,
            );
        }
        let named = tls_ca.is_some() || ca_node.is_some();
        let (own_ca, domain) = read_private(kind, ca_node, domain_node, faults);
        if kind == ListenerKind::Private && !named {
            faults.error_hint(
                node.place(),
                "a private listener needs clientCa",
                "the PEM file of who signs the certificates of hosts",
            );
        }
        let capture = captures.read(node, kind, faults);
        let listener = Self {
            kind,
            address: address?,
            private_network,
            quic: quic.unwrap_or(kind == ListenerKind::Public),
            tls,
            client_ca: tls_ca.or(own_ca),
            domain,
            trusted,
            capture,
        };
        if let Some(node) = address_node {
            listener.judge_place(node, tls_node.is_some(), faults);
            if let Some(captured) = &listener.capture {
                capture::judge_place(captured, listener.address, node, faults);
            }
        }
        Some(listener)
    }

    /// What is not encrypted stays where nobody listens in; what governs stays on this machine.
    fn judge_place(&self, node: &Node, tls_given: bool, faults: &mut Faults) {
        let ip = self.address.ip();
        let kind = self.kind.as_str();
        match self.kind {
            ListenerKind::Plain | ListenerKind::Socks if tls_given => {}
            ListenerKind::Plain | ListenerKind::Socks if is_private(ip) && !self.private_network => faults.error_hint(
                node.place(),
                format!("{ip} is not loopback, and a {kind} listener has no TLS"),
                "add privateNetwork: true if nobody else can reach that network",
            ),
            ListenerKind::Plain | ListenerKind::Socks if !ip.is_loopback() && !is_private(ip) => faults.error_hint(
                node.place(),
                format!("{ip} is neither loopback nor one private address, and a {kind} listener has no TLS"),
                match self.kind {
                    ListenerKind::Socks => "add tls: {certificate: FILE, key: FILE}, or use a loopback or private address",
                    _ => "use kind public, or a loopback or private address",
                },
            ),
            ListenerKind::Private if !ip.is_loopback() && !is_private(ip) => faults.error_hint(
                node.place(),
                format!("{ip} is neither loopback nor one private address: sandboxes are not dialled from everywhere"),
                "use a loopback or private address",
            ),
            ListenerKind::Management if !ip.is_loopback() && !tls_given => faults.error_hint(
                node.place(),
                format!("{ip} is not loopback, and the management listener has no TLS"),
                "add tls: {certificate: FILE, key: FILE}, or use 127.0.0.1",
            ),
            _ => {}
        }
    }
}

impl KeyFiles {
    /// Read `{certificate: FILE, key: FILE, clientCa: FILE}`, the first two required.
    fn read(node: &Node, faults: &mut Faults) -> Option<(Self, Option<PathBuf>)> {
        let mut fields = node.fields(faults);
        let certificate = fields
            .require("certificate", faults)
            .and_then(|node| read::path(node, faults));
        let key = fields
            .require("key", faults)
            .and_then(|node| read::path(node, faults));
        let client_ca = fields
            .take("clientCa")
            .and_then(|node| read::path(node, faults));
        fields.finish(faults);
        let files = Self {
            certificate: certificate?,
            key: key?,
        };
        Some((files, client_ca))
    }
}

/// `clientCa` without `tls`, and `domain`.
fn read_private(
    kind: ListenerKind,
    ca_node: Option<&Node>,
    domain_node: Option<&Node>,
    faults: &mut Faults,
) -> (Option<PathBuf>, Option<HostName>) {
    let client_ca = ca_node.and_then(|node| read::path(node, faults));
    let domain = domain_node.and_then(|node| {
        let text = node.string(faults)?;
        read::host_name(text, node, faults)
    });
    if kind != ListenerKind::Private {
        for node in [ca_node, domain_node].into_iter().flatten() {
            faults.error(&node.key_place(), "only a private listener has this");
        }
        return (None, None);
    }
    let default = || HostName::parse(DIAL_DOMAIN).ok();
    (client_ca, domain.or_else(default))
}

/// An address of a private network: RFC 1918, RFC 6598 (shared address space), RFC 4193, and link-local.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Would the system refuse the second of two listeners?
fn collide(one: SocketAddr, two: SocketAddr) -> bool {
    let same_place = one.ip() == two.ip()
        || one.is_ipv4() == two.is_ipv4()
            && (one.ip().is_unspecified() || two.ip().is_unspecified());
    one.port() != 0 && one.port() == two.port() && same_place
}
