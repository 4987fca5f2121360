//! A policy that came with somebody else's credential, as a grant: what lies outside the ceiling is not a fault, which
//! nobody could mend, but simply not allowed.

use super::{Ceiling, EgressDocument, GrantDocument, ServiceDocument};
use crate::{
    Grant, Mode, RuleId, ServiceName,
    address::is_special_range,
    entry::Pattern,
    grant::Egress,
    matcher::{Compiled, Matcher},
    text::Faults,
};
use std::collections::BTreeMap;

impl EgressDocument {
    /// The intersection of this policy with the ceiling, always enforced. Names may resolve to whatever
    /// `ceiling.addresses` holds: such a policy cannot say so itself.
    #[must_use]
    pub fn within(
        &self,
        ceiling: &Ceiling,
        services: &BTreeMap<ServiceName, ServiceDocument>,
    ) -> Grant {
        let held = |net| is_special_range(net) && ceiling.holds_net(&net);
        let allow = self.allowed_hosts.as_ref().map(|list| {
            Matcher::new(list.iter().enumerate().map(|(index, written)| {
                let entry = written.value.clone();
                let compiled = Compiled {
                    exception: matches!(&entry.pattern, Pattern::Net(net) if held(*net)),
                    entry,
                    origin: written.origin,
                };
                let rule = format!("token.allowedHosts[{index}] \"{}\"", written.value);
                (rule, compiled)
            }))
        });
        let default = self.default_action.unwrap_or_default();
        let bound = ceiling.compile();
        let egress = Egress {
            default,
            default_rule: RuleId::new("token.defaultAction"),
            report_rule: RuleId::new("token.defaultAction"),
            allow,
            held: Matcher::default(),
            deny: Matcher::default(),
            rules: Matcher::default(),
            attributes: Vec::new(),
            exceptions: bound.addresses.clone(),
            answers: Default::default(),
            bound,
        };
        // Services are the operator's own words, and had their faults told when the configuration was read.
        let known = GrantDocument {
            services: services.clone(),
            ..GrantDocument::default()
        };
        let known = known.compile(&ceiling.of_sockets(), &mut Faults::default());
        Grant {
            egress: egress.into(),
            services: known.map(|grant| grant.services).unwrap_or_default(),
            expose: BTreeMap::new(),
            limits: Default::default(),
            mode: Mode::Enforce,
            also: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::{net::IpAddr, sync::Arc};

    use super::*;
    use crate::{Admission, Denial, Target, admit, decide, import_gestalt_claims, text};

    fn read<T>(source: &str, read: impl Fn(&text::Node, &mut Faults) -> T) -> T {
        let mut faults = Faults::default();
        let value = read(&text::parse(source, &mut faults), &mut faults);
        assert!(faults.is_clean(), "{}", faults.render(source, "test"));
        value
    }

    fn token(hosts: &[&str], ceiling: &str) -> Arc<Grant> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let ceiling = read(ceiling, Ceiling::read);
        let policy = import_gestalt_claims(&hosts, None);
        Arc::new(policy.within(&ceiling, &BTreeMap::new()))
    }

    /// `ok`, or the reason why `target`, whose name resolves to `answer`, is refused.
    fn outcome(grant: &Arc<Grant>, target: &str, answer: &str) -> &'static str {
        let target = Target::from_authority(target).unwrap();
        let answer: IpAddr = answer.parse().unwrap();
        let judged = decide(grant, &target)
            .and_then(|permit| admit(grant, &permit, &[answer], &Admission::default()));
        judged.map_or_else(|refusal| refusal.denial.reason(), |_| "ok")
    }

    const PUBLIC: &str = "93.184.216.34";

    #[test]
    fn what_both_allow_is_allowed_and_nothing_else() {
        let grant = token(
            &["*.Example.com", "db.example.org", "10.0.0.5", "10.0.0.6"],
            "{allowedHosts: ['api.example.com', 'db.example.org:5432'], deniedHosts: ['x.example.com'], addresses: ['10.0.0.5/32', '192.168.0.0/16']}",
        );
        for (target, answer, expected) in [
            ("api.example.com:443", PUBLIC, "ok"),
            // The ceiling has it on 80 and 443 only, the token on any port.
            ("api.example.com:8443", PUBLIC, "host_not_allowed"),
            ("db.example.org:5432", PUBLIC, "ok"),
            ("db.example.org:5432", "192.168.3.4", "ok"),
            ("db.example.org:5432", "10.9.9.9", "special_address"),
            ("www.example.com:443", PUBLIC, "host_not_allowed"),
            ("x.example.com:443", PUBLIC, "host_denied"),
            ("example.net:443", PUBLIC, "host_not_allowed"),
            ("10.0.0.5:22", "10.0.0.5", "ok"),
            ("10.0.0.6:22", "10.0.0.6", "address_not_allowed"),
            (
                "169.254.169.254:80",
                "169.254.169.254",
                "address_not_allowed",
            ),
        ] {
            assert_eq!(
                outcome(&grant, target, answer),
                expected,
                "{target} at {answer}"
            );
        }
    }

    #[test]
    fn a_special_address_needs_the_ceiling_even_where_names_are_unbounded() {
        let grant = token(&["127.0.0.1", "a.example.com"], "{}");
        assert_eq!(
            outcome(&grant, "127.0.0.1:80", "127.0.0.1"),
            "special_address"
        );
        assert_eq!(
            outcome(&grant, "a.example.com:80", "127.0.0.1"),
            "special_address"
        );
        assert_eq!(outcome(&grant, "a.example.com:81", PUBLIC), "ok");
    }

    #[test]
    fn a_narrowed_grant_allows_what_both_do_even_in_report_mode() {
        let mut faults = Faults::default();
        let source = "{egress: {allowedHosts: ['*.example.com', 'other.test'], mode: report}}";
        let document = read(source, GrantDocument::read);
        let session = document.compile(&Ceiling::default(), &mut faults).unwrap();
        let narrowed = Arc::new(session.narrowed(token(&["a.example.com", "127.0.0.1"], "{}")));
        assert_eq!(outcome(&narrowed, "a.example.com:443", PUBLIC), "ok");
        assert_eq!(
            outcome(&narrowed, "b.example.com:443", PUBLIC),
            "host_not_allowed"
        );
        assert_eq!(
            outcome(&narrowed, "other.test:443", PUBLIC),
            "host_not_allowed"
        );
        assert_eq!(
            outcome(&narrowed, "a.example.com:443", "127.0.0.1"),
            "special_address"
        );
        // Allowed by the token, and by a session that only reports: the token's bound is no exception to the ban.
        assert_eq!(
            outcome(&narrowed, "127.0.0.1:443", "127.0.0.1"),
            "special_address"
        );
        let refusal = decide(&narrowed, &Target::from_authority("b.test:1").unwrap());
        assert_eq!(refusal.unwrap_err().denial, Denial::HostNotAllowed);
    }
}
