//! The operator's own proxy as the way out.
use super::read;
use sluicegate_policy::{
    Ceiling, Grant, GrantDocument, Target,
    text::{self, Faults, Node},
};
use std::path::PathBuf;

/// What the proxy speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyScheme {
    /// `http`: CONNECT in the clear.
    Http,
    /// `https`: CONNECT inside TLS.
    Https,
    /// `socks5`.
    Socks5,
}

/// What the proxy is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProxyAsk {
    /// The judged address.
    #[default]
    Address,
    /// The name.
    Name,
}

/// The operator's proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamProxyConfig {
    /// What it speaks.
    pub scheme: ProxyScheme,
    /// Where it is.
    pub target: Target,
    /// The file with `user:password` (0600).
    pub credential_file: Option<PathBuf>,
    /// PEM roots its certificate may chain to, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What it is asked for.
    pub ask: ProxyAsk,
    /// Targets and addresses it is not asked for, in the grammar of `allowedHosts`.
    pub bypass: Vec<String>,
}

const ASK: &[(&str, ProxyAsk)] = &[("address", ProxyAsk::Address), ("name", ProxyAsk::Name)];

impl ProxyAsk {
    /// The word in the document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
        }
    }
}

impl ProxyScheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }
}

/// What no proxy is asked for unless something else is written: to one elsewhere, loopback would mean that machine's own.
#[must_use]
pub fn bypass() -> Vec<String> {
    ["127.0.0.0/8:*", "[::1]:*"].map(str::to_owned).to_vec()
}

impl UpstreamProxyConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let url = fields
            .require("url", faults)
            .and_then(|node| url(node, faults));
        let credential_file = fields
            .take("credentialFile")
            .and_then(|node| read::path(node, faults));
        let ca_node = fields.take("caFile");
        let ask = fields.take("ask").and_then(|node| node.choice(ASK, faults));
        let bypass_node = fields.take("bypass");
        fields.finish(faults);
        let ca_file = ca_node.and_then(|node| read::path(node, faults));
        let listed = bypass_node.map(|node| {
            let items = node.list(faults).iter();
            let texts = items.filter_map(|item| item.string(faults).map(str::to_owned));
            texts.collect()
        });
        let (scheme, target) = url?;
        if let (Some(node), true) = (ca_node, scheme != ProxyScheme::Https) {
            let message = "only an https proxy shows a certificate";
            faults.error(&node.key_place(), message);
        }
        let proxy = Self {
            scheme,
            target,
            credential_file,
            ca_file,
            ask: ask.unwrap_or_default(),
            bypass: listed.unwrap_or_else(bypass),
        };
        let mut found = Faults::default();
        proxy.bypass_grant(&mut found);
        for fault in found.errors {
            faults.error(bypass_node.map_or(node.place(), Node::place), fault.message);
        }
        Some(proxy)
    }

    /// `scheme://HOST:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.target)
    }

    /// What it may be dialled at: the operator names it, so its address may be a private one.
    pub fn grant(&self, faults: &mut Faults) -> Option<Grant> {
        grant(&[self.target.to_string()], faults)
    }

    /// What is reached without it; `None` where nothing is.
    pub fn bypass_grant(&self, faults: &mut Faults) -> Option<Grant> {
        (!self.bypass.is_empty())
            .then(|| grant(&self.bypass, faults))
            .flatten()
    }
}

fn grant(hosts: &[String], faults: &mut Faults) -> Option<Grant> {
    let everywhere = ["0.0.0.0/0", "::/0"];
    let ceiling = serde_json::json!({ "addresses": everywhere }).to_string();
    let ceiling = Ceiling::read(&text::parse(&ceiling, faults), faults);
    let egress = serde_json::json!({ "allowedHosts": hosts, "allowedAddresses": everywhere });
    let document = serde_json::json!({ "egress": egress }).to_string();
    let document = GrantDocument::read(&text::parse(&document, faults), faults);
    document.compile(&ceiling, faults)
}

fn url(node: &Node, faults: &mut Faults) -> Option<(ProxyScheme, Target)> {
    let text = node.string(faults)?;
    let parsed = text.split_once("://").and_then(|(scheme, rest)| {
        let (scheme, port) = match scheme {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            "socks5" => (ProxyScheme::Socks5, 1080),
            _ => return None,
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let target = Target::from_uri_authority(authority, port).ok()?;
        Some((scheme, target))
    });
    if parsed.is_none() && text.contains('@') {
        let hint = "put user:password into credentialFile";
        faults.error_hint(node.place(), "a credential does not stand in a URL", hint);
        return None;
    }
    match parsed {
        Some(parsed) => Some(parsed),
        None => node.expected(
            "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT",
            faults,
        ),
    }
}
