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
    /// A plain request's method and path, as sent.
    pub request: Option<(String, String)>,
    /// What a tunnel to it begins with.
    pub began: Option<FirstBytes>,
}

impl Supposed {
    /// Take `addresses`, `method`, `path` and `began` out of a larger mapping; the caller finishes it.
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
        let mut word = |key, faults: &mut Faults| {
            let node: Option<&Node> = fields.take(key);
            node.and_then(|node| node.scalar(faults)).map(str::to_owned)
        };
        let (method, path) = (word("method", faults), word("path", faults));
        let asked = method.is_some() || path.is_some();
        let began = fields.take("began");
        Self {
            addresses,
            request: asked.then(|| {
                let method = method.unwrap_or_else(|| "GET".to_owned());
                (method, path.unwrap_or_else(|| "/".to_owned()))
            }),
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
