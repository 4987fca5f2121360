//! What is supposed of an open beside its target, where somebody asks what would become of it.

use super::{FirstBytes, Hello};
use crate::text::{Faults, Fields, Node};
use std::net::IpAddr;

/// Most addresses: each is judged, and more than enough for any name.
const MOST_ADDRESSES: usize = 1000;

/// What is supposed; what is not said is not asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Supposed {
    /// What its name resolves to.
    pub addresses: Option<Vec<IpAddr>>,
    /// A plain request: its method and path as sent, then each other pair of them that a server may read in it. Empty = not asked about.
    pub requests: Vec<(String, String)>,
    /// What a tunnel to it begins with.
    pub began: Option<FirstBytes>,
}

impl Supposed {
    /// Take `addresses` and `began` out of a larger mapping; the caller finishes it, and knows of requests.
    pub fn take(fields: &mut Fields<'_>, faults: &mut Faults) -> Self {
        let addresses = fields.take("addresses").map(|node| {
            let items = node.list(faults);
            if items.len() > MOST_ADDRESSES {
                faults.error(
                    node.place(),
                    format!("more than {MOST_ADDRESSES} addresses"),
                );
            }
            let items = items.iter().take(MOST_ADDRESSES);
            items.filter_map(|item| address(item, faults)).collect()
        });
        let began = fields.take("began");
        Self {
            addresses,
            requests: Vec::new(),
            began: began.and_then(|node| FirstBytes::read(node, faults)),
        }
    }
}

impl FirstBytes {
    /// Read `{as: tls, sni?, ech?, echDraft?}` or `{as: other}`, as access records have it.
    pub fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mut fields = node.fields(faults);
        let kinds = [("tls", true), ("other", false)];
        let tls = fields
            .require("as", faults)
            .and_then(|node| node.choice(&kinds, faults));
        let sni = fields.take("sni").and_then(|node| node.scalar(faults));
        let mut flag = |key, faults: &mut Faults| {
            let node: Option<&Node> = fields.take(key);
            node.and_then(|node| node.boolean(faults))
                .unwrap_or_default()
        };
        let (ech, ech_draft) = (flag("ech", faults), flag("echDraft", faults));
        fields.finish(faults);
        if tls == Some(false) && (sni.is_some() || ech || ech_draft) {
            faults.error(node.place(), "what is no TLS has neither sni nor ech");
        }
        Some(if tls? {
            Self::Tls(Hello {
                sni: sni.map(Into::into),
                ech,
                ech_draft,
            })
        } else {
            Self::Other
        })
    }
}

fn address(node: &Node, faults: &mut Faults) -> Option<IpAddr> {
    match node.scalar(faults)?.parse() {
        Ok(address) => Some(address),
        Err(_) => node.expected("an IP address", faults),
    }
}
