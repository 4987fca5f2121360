//! Listeners for connections that know of no proxy, and balancers that speak for others.

use super::{ListenerKind, read};
use ipnet::IpNet;
use sluicegate_policy::{
    canonical_net,
    text::{Faults, Fields, Node},
};
use std::net::SocketAddr;

/// How the network brings connections to a transparent listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CaptureMode {
    /// netfilter's REDIRECT.
    #[default]
    Redirect,
    /// TPROXY.
    Tproxy,
}

/// How the session of a captured connection is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentifyBy {
    /// By its source address.
    Source,
    /// By the credential in a trusted peer's PROXY header.
    Header,
}

/// What only `transparent` and `sni` listeners have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureConfig {
    /// For `transparent`: how connections are captured.
    pub mode: CaptureMode,
    /// For `sni`: the port that targets have.
    pub target_port: u16,
    /// How their session is known.
    pub identify: IdentifyBy,
    /// The namespaces in which a source is looked for.
    pub namespaces: Vec<String>,
}

const MODES: &[(&str, CaptureMode)] = &[
    ("redirect", CaptureMode::Redirect),
    ("tproxy", CaptureMode::Tproxy),
];
const IDENTIFY: &[(&str, IdentifyBy)] = &[
    ("source", IdentifyBy::Source),
    ("header", IdentifyBy::Header),
];
/// What a TLS client dials that asks for no port.
const HTTPS: u16 = 443;

impl CaptureMode {
    /// The word in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
        }
    }
}

impl IdentifyBy {
    /// The word in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Header => "header",
        }
    }
}

/// The keys of this file, as they were found.
pub(super) struct CaptureNodes<'a> {
    capture: Option<&'a Node>,
    target_port: Option<&'a Node>,
    identify: Option<&'a Node>,
    namespaces: Option<&'a Node>,
    proxy_protocol: Option<&'a Node>,
}

impl<'a> CaptureNodes<'a> {
    pub(super) fn take(fields: &mut Fields<'a>) -> Self {
        Self {
            capture: fields.take("capture"),
            target_port: fields.take("targetPort"),
            identify: fields.take("identify"),
            namespaces: fields.take("namespaces"),
            proxy_protocol: fields.take("proxyProtocol"),
        }
    }

    /// The trusted peers; none where the key is absent.
    pub(super) fn trusted(&self, kind: Option<ListenerKind>, faults: &mut Faults) -> Vec<IpNet> {
        let Some(node) = self.proxy_protocol else {
            return Vec::new();
        };
        if let Some(kind @ (ListenerKind::Management | ListenerKind::Private)) = kind {
            let message = format!("no proxyProtocol on a {} listener", kind.as_str());
            faults.error(&node.key_place(), message);
        }
        let mut fields = node.fields(faults);
        let trusted = fields.require("trusted", faults);
        fields.finish(faults);
        trusted.map_or_else(Vec::new, |node| read::list(node, faults, network))
    }

    /// What is captured, and whose it is.
    pub(super) fn read(
        &self,
        node: &Node,
        kind: ListenerKind,
        faults: &mut Faults,
    ) -> Option<CaptureConfig> {
        let transparent = kind == ListenerKind::Transparent;
        let sni = kind == ListenerKind::Sni;
        let own = [
            (
                self.capture,
                transparent,
                "only a transparent listener has this",
            ),
            (self.target_port, sni, "only an sni listener has this"),
            (
                self.identify,
                transparent || sni,
                "only transparent and sni listeners have this",
            ),
            (
                self.namespaces,
                transparent || sni,
                "only transparent and sni listeners have this",
            ),
        ];
        for (node, allowed, message) in own {
            if let (Some(node), false) = (node, allowed) {
                faults.error(&node.key_place(), message);
            }
        }
        if !transparent && !sni {
            return None;
        }
        let mode = self.capture.and_then(|node| node.choice(MODES, faults));
        let target_port = self
            .target_port
            .and_then(|node| node.integer(1..=u64::from(u16::MAX), faults));
        let namespaces = self.namespaces.map(|node| {
            read::list(node, faults, |node, faults| {
                node.string(faults).map(str::to_owned)
            })
        });
        let identify = match self.identify {
            Some(node) => self.identify_by(node, faults)?,
            None => {
                faults.error_hint(
                    node.place(),
                    format!("a {} listener needs identify", kind.as_str()),
                    "source: by the sources of sessions; header: by a trusted peer's PROXY header",
                );
                return None;
            }
        };
        if let (Some(node), IdentifyBy::Header) = (self.namespaces, identify) {
            let message = "a credential names its session: namespaces has no meaning here";
            faults.error(&node.key_place(), message);
        }
        Some(CaptureConfig {
            mode: mode.unwrap_or_default(),
            target_port: target_port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(HTTPS),
            identify,
            namespaces: namespaces.unwrap_or_else(|| vec!["default".to_owned()]),
        })
    }

    fn identify_by(&self, node: &Node, faults: &mut Faults) -> Option<IdentifyBy> {
        let by = node.choice(IDENTIFY, faults)?;
        if by == IdentifyBy::Header && self.proxy_protocol.is_none() {
            let hint = "add proxyProtocol: {trusted: [ADDRESS]}";
            faults.error_hint(node.place(), "no peer is trusted to send a header", hint);
        }
        Some(by)
    }
}

/// An address or a range of addresses, without host bits.
fn network(node: &Node, faults: &mut Faults) -> Option<IpNet> {
    let text = node.string(faults)?;
    let range = text.parse::<IpNet>().ok();
    let range = range.filter(|range| range.trunc() == *range);
    let single = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    // A peer is known by its canonical address.
    match range.or_else(single).and_then(canonical_net) {
        Some(range) => Some(range),
        None => node.expected("an address or a range such as 10.0.0.0/8", faults),
    }
}

/// Would a TPROXY listener be told from what it captures?
pub(super) fn judge_place(
    capture: &CaptureConfig,
    address: SocketAddr,
    node: &Node,
    faults: &mut Faults,
) {
    if capture.mode == CaptureMode::Tproxy && matches!(address.port(), 80 | 443) {
        faults.error_hint(
            node.place(),
            format!(
                "connections meant for port {} could not be told from those meant for the gateway",
                address.port()
            ),
            "choose a port no target has, such as 15001",
        );
    }
}
