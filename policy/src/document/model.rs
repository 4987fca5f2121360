//! What documents say, with the places where they say it.

use crate::{
    Action, Dial, EchRule, HostName, HttpRule, MethodPrefix, Mode, Origin, ProxyProtocol,
    ServiceHttp, ServiceName, ServiceUrl, TlsRule, entry::Entry, text::Place,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// A value, where it was written, and in whose document. Two are equal where the values are.
#[derive(Clone, Debug)]
pub(crate) struct Written<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    pub(crate) origin: Origin,
}

impl<T> Written<T> {
    /// In a document that stands alone, until it is laid over another.
    pub(crate) fn new(value: T, place: Place) -> Self {
        let origin = Origin::default();
        Self {
            value,
            place,
            origin,
        }
    }
}

impl<T: PartialEq> PartialEq for Written<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The `egress` block, as written (defaultAction, allowedHosts, deniedHosts, allowedAddresses, rules, mode, hosts).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EgressDocument {
    pub(crate) default_action: Option<Action>,
    /// Absent and empty differ: an empty list denies everything.
    pub(crate) allowed_hosts: Option<Vec<Written<Entry>>>,
    pub(crate) denied_hosts: Vec<Written<Entry>>,
    pub(crate) allowed_addresses: Vec<Written<IpNet>>,
    pub(crate) rules: Vec<Written<RuleDocument>>,
    /// Static answers.
    pub(crate) hosts: BTreeMap<HostName, Written<Vec<IpAddr>>>,
    pub(crate) mode: Option<Written<Mode>>,
}

/// One entry of `rules`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RuleDocument {
    pub(crate) host: Entry,
    pub(crate) tls: Option<TlsRule>,
    pub(crate) ech: Option<EchRule>,
    pub(crate) http: Option<HttpRule>,
}

/// One host service, as written: a URL string or `{url, health, halfCloseTimeout, idleTimeout, peerUid, proxyProtocol, http, grpc}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceDocument {
    /// Where it listens; absent where only its name is given, and a document laid under this one is to know it.
    pub url: Option<ServiceUrl>,
    /// How its health is asked for; absent = by connecting.
    pub health: Option<crate::Health>,
    /// How long the other half may stay open once one is closed.
    pub half_close_timeout: Option<Duration>,
    /// How long a stream may be silent.
    pub idle_timeout: Option<Duration>,
    /// The uid that must own the other end of a unix socket.
    pub peer_uid: Option<u32>,
    /// Whether a PROXY header is sent first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What it accepts over HTTP.
    pub http: Option<ServiceHttp>,
    /// The gRPC methods it may be asked for (`grpc: {methodPrefix}`).
    pub grpc_method_prefix: Option<MethodPrefix>,
    pub(crate) place: Ignored,
}

/// One listener the sandbox may expose, as written: `unix`, `tcp`, `tls`, or `{dial, port, peerUid, patience,
/// halfCloseTimeout, idleTimeout}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExposeDocument {
    /// Where the host dials it.
    pub dial: Dial,
    /// The loopback port of a `tcp` one; absent = the system chooses.
    pub port: Option<u16>,
    /// A uid that may dial a `unix` one beside the gateway's own.
    pub peer_uid: Option<u32>,
    /// How long a dial waits for the sandbox; absent = a second.
    pub patience: Option<Duration>,
    /// How long the other half may stay open once one is closed.
    pub half_close_timeout: Option<Duration>,
    /// How long a stream may be silent.
    pub idle_timeout: Option<Duration>,
    pub(crate) place: Ignored,
}

/// A place that does not count when documents are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored(pub(crate) Place);

impl PartialEq for Ignored {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Limits, as written: `{tunnels, tunnelsPerDestination, opensPerSecond, bytes, bandwidth}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsDocument {
    /// The limits; absent = the gateway's own.
    pub limits: crate::Limits,
}

/// What a session (or capability, or provider default) asks for: egress, services, exposed listeners, limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrantDocument {
    /// Names and addresses.
    pub egress: EgressDocument,
    /// Host services by name.
    pub services: BTreeMap<ServiceName, ServiceDocument>,
    /// Listeners of the sandbox its host may dial, by name.
    pub expose: BTreeMap<ServiceName, ExposeDocument>,
    /// Limits.
    pub limits: LimitsDocument,
}
