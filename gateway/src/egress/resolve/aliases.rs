//! Aliases (CNAME) on the way to an address: how many there may be, and that they lead somewhere.

use hickory_resolver::proto::rr::{Name, RData, Record};

/// Aliases on the way to an address. Honest chains have two or three.
pub(super) const MOST_ALIASES: usize = 8;

/// What `name` is an alias of.
pub(super) fn alias<'r>(records: &'r [Record], name: &Name) -> Option<&'r Name> {
    records.iter().find_map(|record| match &record.data {
        RData::CNAME(next) if record.name == *name => Some(&next.0),
        _ => None,
    })
}

/// The alias by which the aliases of `name` lead back to where they have been. An address may stand beside it all the same,
/// and whoever gave such an answer did not mean it.
pub(super) fn circle<'r>(records: &'r [Record], name: &'r Name) -> Option<&'r Name> {
    let mut names = vec![name];
    while let Some(next) = alias(records, names.last()?) {
        if names.contains(&next) {
            return Some(next);
        }
        names.push(next);
    }
    None
}

pub(super) fn leads_back(name: &Name) -> String {
    format!("the alias {} leads back to itself", name.to_ascii())
}

pub(super) fn too_many_aliases() -> String {
    format!("more than {MOST_ALIASES} aliases")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use hickory_resolver::proto::rr::{
        Name, RData, Record,
        rdata::{A, CNAME},
    };

    use super::circle;

    #[test]
    fn a_circle_of_aliases_is_seen_whatever_stands_beside_it() {
        let name = |text: &str| Name::from_ascii(text).expect("name");
        let alias =
            |from: &str, to: &str| Record::from_rdata(name(from), 0, RData::CNAME(CNAME(name(to))));
        let address = |of: &str| {
            let a = RData::A(A(std::net::Ipv4Addr::LOCALHOST));
            Record::from_rdata(name(of), 0, a)
        };
        for (records, again) in [
            (vec![address("a.test.")], None),
            (vec![alias("a.test.", "b.test."), address("b.test.")], None),
            (
                vec![alias("a.test.", "A.test."), address("a.test.")],
                Some("A.test."),
            ),
            (
                vec![
                    address("a.test."),
                    alias("b.test.", "a.test."),
                    alias("a.test.", "b.test."),
                ],
                Some("a.test."),
            ),
            (
                vec![
                    alias("a.test.", "b.test."),
                    alias("b.test.", "c.test."),
                    alias("c.test.", "b.test."),
                    address("b.test."),
                ],
                Some("b.test."),
            ),
            // Not on the way from the name that was asked for.
            (vec![address("a.test."), alias("x.test.", "x.test.")], None),
        ] {
            let asked = name("a.test.");
            let found = circle(&records, &asked).map(Name::to_ascii);
            assert_eq!(found.as_deref(), again, "{records:?}");
        }
    }
}
