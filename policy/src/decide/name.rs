//! The question a name server asks: may this session reach that name at all?

use super::decide;
use crate::{Grant, Host, HostName, Refusal, Target, entry::Ports, matcher::Matcher};
use std::{collections::BTreeSet, sync::Arc};

/// The port whose refusal is told where every port is refused.
const TOLD: u16 = 443;

/// May the session reach `name` on any port? Exactly where [`decide`] permits one. No permit comes of it: whoever then
/// connects is decided for, by name and port.
///
/// # Errors
/// The refusal of port 443.
pub fn decide_name(grant: &Arc<Grant>, name: &HostName) -> Result<(), Refusal> {
    let host = Host::Name(name.clone());
    let ask = |port| match Target::new(host.clone(), port) {
        Some(target) => decide(grant, &target).map(drop),
        None => Err(crate::Denial::MalformedTarget.into()),
    };
    let told = ask(TOLD);
    if told.is_ok() || telling_ports(grant, &host).any(|port| ask(port).is_ok()) {
        return Ok(());
    }
    told
}

/// One of every kind of port that the grant's entries for this host tell apart.
fn telling_ports(grant: &Grant, host: &Host) -> impl Iterator<Item = u16> {
    let egress = &grant.egress;
    let lists = [egress.allow.as_ref(), egress.bound.allow.as_ref()];
    let lists = lists.into_iter().flatten();
    let lists = lists.chain([&egress.held, &egress.deny, &egress.bound.deny]);
    let mut written = BTreeSet::from([80]);
    lists.for_each(|list: &Matcher| {
        list.visit(host, |_, ports| {
            if let Ports::One(port) = ports {
                written.insert(port);
            }
        });
    });
    let other = (1..=u16::MAX).find(|port| *port != TOLD && !written.contains(port));
    written.into_iter().chain(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::decide_name;
    use crate::{Denial, HostName, testing::grant};

    #[test]
    fn any_port_will_do() {
        let table = [
            ("allowedHosts: [a.test]", Ok(())),
            ("allowedHosts: ['a.test:5432']", Ok(())),
            ("allowedHosts: ['*.test:*']", Ok(())),
            ("allowedHosts: [b.test]", Err(Denial::HostNotAllowed)),
            ("allowedHosts: []", Err(Denial::HostNotAllowed)),
            ("defaultAction: allow", Ok(())),
            ("defaultAction: deny", Err(Denial::HostNotAllowed)),
            (
                "allowedHosts: [a.test], deniedHosts: [a.test]",
                Err(Denial::HostDenied),
            ),
            (
                "allowedHosts: [a.test], deniedHosts: ['a.test:443']",
                Ok(()),
            ),
            (
                "allowedHosts: ['a.test:443'], deniedHosts: ['a.test:443']",
                Err(Denial::HostDenied),
            ),
            (
                "defaultAction: allow, deniedHosts: ['a.test:443', 'a.test:80']",
                Ok(()),
            ),
            ("mode: report, allowedHosts: []", Ok(())),
        ];
        let name = HostName::parse("a.test").unwrap();
        for (egress, expected) in table {
            let decided = decide_name(&grant(egress), &name).map_err(|refusal| refusal.denial);
            assert_eq!(decided, expected, "{egress}");
        }
        let metadata = HostName::parse("metadata.google.internal").unwrap();
        let decided = decide_name(&grant("defaultAction: allow"), &metadata);
        assert_eq!(decided.unwrap_err().denial, Denial::MetadataAddress);
    }
}
