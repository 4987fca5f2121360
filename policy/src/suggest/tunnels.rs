//! What a rule must say of a target's first bytes, so that what was seen in tunnels passes.

use super::exactly;
use crate::{
    FirstBytes, Hello, Host, HostName, Target, TlsRule,
    entry::{Entry, Ports},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, net::IpAddr};

/// What tunnels to one target began with.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TunnelUse {
    /// Neither TLS nor HTTP.
    other: bool,
    /// What no rule lets pass that looks at it.
    unseen: bool,
    /// Outer names of encrypted hellos that were not the target.
    public_names: BTreeSet<HostName>,
}

impl TunnelUse {
    /// One tunnel to `target`.
    pub fn add(&mut self, target: &Target, began: &FirstBytes) {
        let hello = match began {
            FirstBytes::Unseen => return self.unseen = true,
            FirstBytes::Other => return self.other = true,
            FirstBytes::Tls(hello) => hello,
        };
        let name = hello.sni.as_deref().map(HostName::parse);
        match (names(target.host(), hello), name) {
            (true, _) => {}
            (false, Some(Ok(name))) if hello.ech && matches!(target.host(), Host::Name(_)) => {
                self.public_names.insert(name);
            }
            (false, _) => self.unseen = true,
        }
    }

    /// The rule it takes, where the port's default does not let it pass.
    #[must_use]
    pub fn rule(&self, target: &Target) -> Option<Value> {
        let mut rule = Map::new();
        if self.unseen {
            rule.insert("tls".to_owned(), json!("opaque"));
        } else {
            if self.other && TlsRule::default_for(target.port()) == TlsRule::Require {
                rule.insert("tls".to_owned(), json!("auto"));
            }
            let names: Vec<&str> = self.public_names.iter().map(HostName::as_str).collect();
            if !names.is_empty() {
                rule.insert("ech".to_owned(), json!({ "publicNames": names }));
            }
        }
        if rule.is_empty() {
            return None;
        }
        let entry = Entry {
            pattern: exactly(target.host()),
            ports: Ports::One(target.port()),
        };
        rule.insert("host".to_owned(), json!(entry.to_string()));
        Some(rule.into())
    }
}

/// Does the hello name the target, or an address by no name (RFC 6066 §3)?
fn names(host: &Host, hello: &Hello) -> bool {
    match (host, hello.sni.as_deref()) {
        (Host::Ip(_), None) => true,
        (Host::Name(_), None) => false,
        (Host::Ip(own), Some(sni)) => {
            let literal = sni.trim_start_matches('[').trim_end_matches(']');
            literal.parse::<IpAddr>() == Ok(*own)
        }
        (Host::Name(own), Some(sni)) => HostName::parse(sni).as_ref() == Ok(own),
    }
}
