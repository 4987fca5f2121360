//! The identity public listeners show.
use super::{KeyFiles, read};
use sluicegate_policy::text::{Faults, Node};
use std::net::IpAddr;

/// An own certificate, or names for the one the private authority issues.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsConfig {
    /// Own chain and key; absent = the private authority issues a leaf.
    pub files: Option<KeyFiles>,
    /// Further names and addresses for that leaf, beside the public URL's and the listeners'.
    pub names: Vec<String>,
}

impl TlsConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let certificate_node = fields.take("certificate");
        let key_node = fields.take("key");
        let names_node = fields.take("names");
        fields.finish(faults);
        let certificate = certificate_node.and_then(|node| read::path(node, faults));
        let key = key_node.and_then(|node| read::path(node, faults));
        match (certificate_node, key_node) {
            (Some(node), None) => faults.error(&node.key_place(), "certificate without its key"),
            (None, Some(node)) => faults.error(&node.key_place(), "key without its certificate"),
            _ => {}
        }
        let names = names_node
            .map(|node| read::list(node, faults, name))
            .unwrap_or_default();
        if let (Some(node), Some(_)) = (names_node, certificate_node) {
            faults.warn(
                &node.key_place(),
                "names has no effect beside an own certificate",
                None,
            );
        }
        let files = certificate
            .zip(key)
            .map(|(certificate, key)| KeyFiles { certificate, key });
        Self { files, names }
    }
}

/// A DNS name, `*.` and a DNS name, or an IP literal; as a certificate writes it.
fn name(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let (wildcard, rest) = match text.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let name = read::host_name(rest, node, faults)?;
    Some(format!("{wildcard}{name}"))
}
