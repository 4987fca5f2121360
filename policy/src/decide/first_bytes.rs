//! A tunnel's first bytes, as far as they were seen: judged when they come, and again when the policy changes.

use super::TargetPermit;
use crate::{Denial, EchRule, Host, HostName, TlsRule};
use std::net::IpAddr;

/// What is known of the bytes a tunnel began with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FirstBytes {
    /// Nobody looked.
    Unseen,
    /// TLS, by its ClientHello.
    Tls(Hello),
    /// Neither TLS nor HTTP/1.
    Other,
}

/// What a ClientHello shows of itself, as far as rules ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The server name as sent (RFC 6066 §3); `None` without the extension.
    pub sni: Option<Box<str>>,
    /// An encrypted_client_hello extension is there.
    pub ech: bool,
    /// An extension of one of its drafts is there.
    pub ech_draft: bool,
}

impl TargetPermit {
    /// Would a tunnel that began so be let through, if it were opened under this permit?
    ///
    /// # Errors
    /// `MethodNotAllowed`, `TlsRequired`, those of [`Self::judge_hello`]; `PolicyChanged` where nobody looked: it may have been
    /// anything.
    pub fn judge_began(&self, seen: &FirstBytes) -> Result<(), Denial> {
        match seen {
            _ if self.tls() == TlsRule::Opaque => Ok(()),
            FirstBytes::Unseen => Err(Denial::PolicyChanged),
            _ if self.keeps_to_requests() => Err(Denial::MethodNotAllowed),
            FirstBytes::Tls(hello) => self.judge_hello(hello),
            FirstBytes::Other if self.tls() == TlsRule::Require => Err(Denial::TlsRequired),
            FirstBytes::Other => Ok(()),
        }
    }

    /// Are methods and paths ruled, and kept to? Then nothing passes in which they cannot be seen.
    #[must_use]
    pub fn keeps_to_requests(&self) -> bool {
        self.http_rules().any(|(_, lifted, _)| !lifted)
    }

    /// May the outer name of an encrypted hello be this one? By every rule that has a word of ECH, and by one at least.
    fn is_public_name(&self, sni: &HostName) -> bool {
        let names = |rule: &EchRule| match rule {
            EchRule::PublicNames(names) => names.contains(sni),
            EchRule::Outer | EchRule::Deny => false,
        };
        self.ech().next().is_some() && self.ech().all(names)
    }

    /// SNI = target (RFC 6066 §3), and ECH as the rule says.
    ///
    /// # Errors
    /// `EchDenied`, `SniMissing`, `SniMismatch`.
    pub fn judge_hello(&self, hello: &Hello) -> Result<(), Denial> {
        let encrypted = hello.ech || hello.ech_draft;
        if encrypted && self.ech().any(|rule| *rule == EchRule::Deny) {
            return Err(Denial::EchDenied);
        }
        match (self.target().host(), hello.sni.as_deref()) {
            // RFC 6066 §3 gives literals no SNI.
            (Host::Ip(_), None) => Ok(()),
            (Host::Name(_), None) => Err(Denial::SniMissing),
            (Host::Ip(ip), Some(sni)) => {
                let literal = sni.trim_start_matches('[').trim_end_matches(']');
                if literal.parse::<IpAddr>() == Ok(*ip) {
                    Ok(())
                } else {
                    Err(Denial::SniMismatch)
                }
            }
            (Host::Name(name), Some(sni)) => {
                // An IP literal or a malformed name is no host name: a mismatch either way.
                let sni = HostName::parse(sni).map_err(|_| Denial::SniMismatch)?;
                if sni == *name || (hello.ech && self.is_public_name(&sni)) {
                    Ok(())
                } else {
                    Err(Denial::SniMismatch)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{FirstBytes, Hello};
    use crate::{
        decide,
        testing::{grant, target},
    };

    fn tls(sni: Option<&str>, ech: bool) -> FirstBytes {
        FirstBytes::Tls(Hello {
            sni: sni.map(Into::into),
            ech,
            ech_draft: false,
        })
    }

    #[test]
    fn an_open_tunnel_stays_exactly_where_a_new_one_would_pass() {
        let own = tls(Some("A.test."), false);
        let encrypted = tls(Some("a.test"), true);
        let public = tls(Some("front.test"), true);
        let unencrypted = tls(Some("front.test"), false);
        let nameless = tls(None, false);
        let (unseen, other) = (FirstBytes::Unseen, FirstBytes::Other);
        let all = [
            &own,
            &encrypted,
            &public,
            &unencrypted,
            &nameless,
            &other,
            &unseen,
        ];
        for (mode, rule, expected) in [
            ("enforce", "tls: require", &[&own, &encrypted][..]),
            ("enforce", "tls: auto", &[&own, &encrypted, &other]),
            ("enforce", "tls: opaque", &all),
            ("enforce", "ech: deny", &[&own, &other]),
            (
                "enforce",
                "ech: {publicNames: [b.test, front.test]}",
                &[&own, &encrypted, &public, &other],
            ),
            (
                "enforce",
                "ech: {publicNames: [b.test]}",
                &[&own, &encrypted, &other],
            ),
            ("enforce", "http: {methods: [GET]}", &[]),
            (
                "report",
                "http: {methods: [GET]}",
                &[&own, &encrypted, &other],
            ),
            // The name is not the author's to wave through.
            ("report", "tls: require", &[&own, &encrypted]),
        ] {
            let grant = grant(&format!(
                "mode: {mode}, allowedHosts: ['a.test:80'], rules: [{{host: 'a.test:80', {rule}}}]"
            ));
            let permit = decide(&grant, &target("a.test:80")).unwrap();
            for seen in all {
                let stays = permit.judge_began(seen).is_ok();
                assert_eq!(stays, expected.contains(&seen), "{mode} {rule} {seen:?}");
            }
        }
    }
}
