//! The compiled grant of one session: rules, services, limits.

mod in_force;

use crate::{
    Action, AddressClass, Denial, EchRule, Expose, HostName, HttpRule, MethodPrefix, Mode, Origin,
    RuleId, ServiceName, ServiceUrl, SocketEntry, Term, TlsRule, address::canonical, classify,
    matcher::Matcher,
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub(crate) use in_force::InForce;

/// Limits of one session; absent = the gateway's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Tunnels and streams open at once.
    pub tunnels: Option<u32>,
    /// Of these, how many to one destination: one host and port, or one host service.
    pub tunnels_per_destination: Option<u32>,
    /// Opens per second.
    pub opens_per_second: Option<u32>,
    /// Bytes, both ways together, over the generation's life.
    pub bytes: Option<u64>,
    /// Bytes per second, each way.
    pub bandwidth: Option<u64>,
}

/// How a host service is told who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyProtocol {
    /// The binary header of the PROXY protocol, version 2.
    V2,
}

/// What an HTTP-aware host service accepts. Empty lists = anything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServiceHttp {
    /// Names accepted in the Host field.
    pub hosts: Vec<HostName>,
    /// Origins accepted in the Origin field, e.g. `https://app.example.com`.
    pub origins: Vec<String>,
    /// Methods and path prefixes.
    pub rule: HttpRule,
    /// Fields each request goes up with, whatever the client sent under these names; names in lower case.
    pub set_headers: BTreeMap<String, String>,
}

/// One host service, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Where it listens.
    pub url: ServiceUrl,
    /// How its health is asked for.
    pub health: crate::Health,
    /// How long a stream may be silent once one half is closed, where that is less than `idle_timeout`; absent = as that.
    pub half_close_timeout: Option<Duration>,
    /// How long a stream may be silent; absent = the gateway's own.
    pub idle_timeout: Option<Duration>,
    /// The uid that must own the other end of a unix socket.
    pub peer_uid: Option<u32>,
    /// Whether a PROXY header is sent first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What it accepts over HTTP, where it speaks that.
    pub http: Option<ServiceHttp>,
    /// The gRPC methods it may be asked for.
    pub grpc_method_prefix: Option<MethodPrefix>,
    /// What it must turn out to be when it is dialled.
    pub within: Within,
}

impl Service {
    /// In what a stream of the one, open since before, is not what a stream of the other would be: the first such term. How its
    /// health is asked for concerns no stream, and one keeps the timers it began with.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Option<Term> {
        let Self {
            url,
            health: _,
            half_close_timeout: _,
            idle_timeout: _,
            peer_uid,
            proxy_protocol,
            http,
            grpc_method_prefix,
            within,
        } = self;
        Term::first_other([
            (Term::Url, *url == other.url),
            (Term::PeerUid, *peer_uid == other.peer_uid),
            (Term::ProxyProtocol, *proxy_protocol == other.proxy_protocol),
            (Term::Http, *http == other.http),
            (Term::Grpc, *grpc_method_prefix == other.grpc_method_prefix),
            (Term::Ceiling, *within == other.within),
        ])
    }
}

/// What a host service must turn out to be when it is dialled: a path leads where links lead, a name where it resolves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Within {
    /// The unix sockets it may be; `None` = any.
    pub sockets: Option<Arc<[SocketEntry]>>,
    /// The special-purpose addresses its name may resolve to; `None` = any.
    pub addresses: Option<Arc<[IpNet]>>,
}

impl Within {
    /// May the service be at this address? A public one always; one of special purpose where it is listed, a metadata
    /// address where it is listed alone.
    ///
    /// # Errors
    /// `SpecialAddress`, `MetadataAddress`.
    pub fn admits(&self, address: IpAddr) -> Result<(), Denial> {
        let Some(addresses) = &self.addresses else {
            return Ok(());
        };
        let address = canonical(address);
        match classify(address, &[]) {
            AddressClass::Global => Ok(()),
            AddressClass::Metadata if is_named(addresses, address) => Ok(()),
            AddressClass::Metadata => Err(Denial::MetadataAddress),
            AddressClass::Special { .. } => {
                let held = addresses.iter().any(|net| net.contains(&address));
                held.then_some(()).ok_or(Denial::SpecialAddress)
            }
        }
    }
}

/// Everything one session may reach, compiled. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct Grant {
    pub(crate) egress: Arc<Egress>,
    pub(crate) services: BTreeMap<ServiceName, Arc<Service>>,
    pub(crate) expose: BTreeMap<ServiceName, Expose>,
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
    /// What must allow a target, and admit its addresses, too.
    pub(crate) also: Option<Arc<Grant>>,
}

impl Grant {
    /// Names and addresses of the services, in order of name. Used for the env bundle (names) only.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceName, &ServiceUrl)> {
        self.services
            .iter()
            .map(|(name, service)| (name, &service.url))
    }

    /// One service. Looking at it is no right to it: only a permit opens one.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name).map(Arc::as_ref)
    }

    /// Bound where a service may lead when it is dialled, beside what bounds it already.
    pub fn bound_service(&mut self, name: &ServiceName, within: Within) {
        if let Some(service) = self.services.get_mut(name) {
            let own = &mut Arc::make_mut(service).within;
            own.sockets = within.sockets.or_else(|| own.sockets.take());
            own.addresses = within.addresses.or_else(|| own.addresses.take());
        }
    }

    /// Listeners of the sandbox its host may dial, in order of name.
    pub fn exposed(&self) -> impl Iterator<Item = (&ServiceName, &Expose)> {
        self.expose.iter()
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Enforce or report.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// This grant, narrowed: a target is allowed where `by` allows it too, whatever the mode, and nothing of the sandbox
    /// is exposed. Services stay: what bounds those is the credential (`ServiceBound`).
    #[must_use]
    pub fn narrowed(&self, by: Arc<Self>) -> Self {
        Self {
            egress: self.egress.clone(),
            services: self.services.clone(),
            expose: BTreeMap::new(),
            limits: self.limits,
            mode: self.mode,
            also: Some(by),
        }
    }

    /// Does the session need a proxy that judges names? True where `allowedHosts` names anything or the default is deny.
    #[must_use]
    pub fn needs_hostname_egress(&self) -> bool {
        let named = self
            .egress
            .allow
            .as_ref()
            .is_some_and(|allow| !allow.entries().is_empty());
        named || self.egress.default == Action::Deny
    }
}

/// Attributes of one `rules[]` entry.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) origin: Origin,
    /// What its `http` refuses passes all the same, and is told: report mode takes it back.
    pub(crate) lifted: bool,
    pub(crate) tls: Option<TlsRule>,
    pub(crate) ech: Option<EchRule>,
    pub(crate) http: Option<HttpRule>,
}

/// The names, ranges and exceptions of one session.
#[derive(Debug)]
pub(crate) struct Egress {
    pub(crate) default: Action,
    /// The rule named where the default decided.
    pub(crate) default_rule: RuleId,
    /// The rule named where report mode let through what no rule names.
    pub(crate) report_rule: RuleId,
    /// `None` where `allowedHosts` is absent; an empty one denies everything.
    pub(crate) allow: Option<Matcher>,
    /// `deniedHosts` that report mode does not lift: those of whoever stands above its author.
    pub(crate) held: Matcher,
    /// The others.
    pub(crate) deny: Matcher,
    /// Attributes by host; entry `i` belongs to `attributes[i]`.
    pub(crate) rules: Matcher,
    pub(crate) attributes: Vec<Attributes>,
    /// `allowedAddresses`: for names that resolve there.
    pub(crate) exceptions: Vec<IpNet>,
    /// Static answers, each its own exception.
    pub(crate) answers: HashMap<HostName, Box<[IpAddr]>>,
    pub(crate) bound: Bound,
}

/// The operator's bound, which neither a default of allow nor report mode lifts.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    pub(crate) allow: Option<Matcher>,
    pub(crate) deny: Matcher,
    pub(crate) addresses: Vec<IpNet>,
}

impl Bound {
    /// Is this very address named, not only a range around it?
    pub(crate) fn names(&self, address: IpAddr) -> bool {
        is_named(&self.addresses, address)
    }

    /// May a session except an address of this class? A metadata address has to be named alone.
    pub(crate) fn holds(&self, address: IpAddr, class: AddressClass) -> bool {
        match class {
            AddressClass::Metadata => self.names(address),
            _ => self.addresses.iter().any(|net| net.contains(&address)),
        }
    }
}

/// Is this very address in the list, not only a range around it?
pub(crate) fn is_named(nets: &[IpNet], address: IpAddr) -> bool {
    nets.contains(&IpNet::from(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::{Service, Term};
    use crate::{ServiceName, testing::compile};

    fn service(text: &str) -> Service {
        let source = format!("services: {{one: {{{text}}}}}");
        let grant = compile(&source, "addresses: [127.0.0.0/8]").unwrap();
        let name = ServiceName::parse("one").unwrap();
        grant.service(&name).unwrap().clone()
    }

    #[test]
    fn what_no_stream_is_judged_by_makes_no_other_service() {
        let before = service("url: 'tcp://127.0.0.1:1'");
        for (text, term) in [
            ("url: 'tcp://127.0.0.1:1', health: none", None),
            ("url: 'tcp://127.0.0.1:1', idleTimeout: 1h", None),
            ("url: 'tcp://127.0.0.1:1', halfCloseTimeout: 1h", None),
            ("url: 'tcp://127.0.0.1:2'", Some("url")),
            (
                "url: 'tcp://127.0.0.1:1', proxyProtocol: v2",
                Some("proxyProtocol"),
            ),
            (
                "url: 'tcp://127.0.0.1:1', http: {methods: [GET]}",
                Some("http"),
            ),
            (
                "url: 'tcp://127.0.0.1:1', grpc: {methodPrefix: /a.B/}",
                Some("grpc"),
            ),
        ] {
            let differs = before.differs_in(&service(text)).map(Term::as_str);
            assert_eq!(differs, term, "{text}");
        }
    }
}
