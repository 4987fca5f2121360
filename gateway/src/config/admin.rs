//! Who may come in by the management listener.
use super::read;
use sluicegate_policy::{
    Target,
    text::{Faults, Node},
};
use std::path::PathBuf;

/// Guard of the admin API.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AdminConfig {
    /// The file with the admin token (0600); absent = `admin.token` in the state directory, generated.
    pub token_file: Option<PathBuf>,
    /// Names and addresses a `Host` field may carry, beside the listener's own and `localhost`; lower case.
    pub allowed_hosts: Vec<String>,
    /// Origins a browser may come from, beside the listener's own: `scheme://host[:port]`, lower case.
    pub allowed_origins: Vec<String>,
}

impl AdminConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut fields = node.fields(faults);
        let token_file = fields
            .take("tokenFile")
            .and_then(|node| read::path(node, faults));
        let allowed_hosts = fields
            .take("allowedHosts")
            .map(|node| read::list(node, faults, host));
        let allowed_origins = fields
            .take("allowedOrigins")
            .map(|node| read::list(node, faults, origin));
        fields.finish(faults);
        Self {
            token_file,
            allowed_hosts: allowed_hosts.unwrap_or_default(),
            allowed_origins: allowed_origins.unwrap_or_default(),
        }
    }
}

/// A host, without port: it is the name a rebinding attack would bring that matters.
fn host(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?;
    match Target::from_uri_authority(text, 1) {
        Ok(target) if target.port() == 1 => Some(target.host().to_string()),
        _ => node.expected("a host name or address without port", faults),
    }
}

/// RFC 6454 §6.2: scheme, host, and the port where it is not the scheme's own.
fn origin(node: &Node, faults: &mut Faults) -> Option<String> {
    let text = node.string(faults)?.to_ascii_lowercase();
    let parts = text.split_once("://").and_then(|(scheme, authority)| {
        let port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let target = Target::from_uri_authority(authority, port).ok()?;
        Some((scheme.to_owned(), port, target))
    });
    match parts {
        Some((scheme, port, target)) if target.port() == port => {
            Some(format!("{scheme}://{}", target.host()))
        }
        Some((scheme, _, target)) => Some(format!("{scheme}://{target}")),
        None => node.expected("an origin such as https://console.example.com", faults),
    }
}
