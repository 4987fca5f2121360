//! A rule below somebody else's: it binds whoever writes below it, and what asks for more is refused here, where it can be
//! named. Where the two only overlap, the decision takes the stricter one.

use super::model::{RuleDocument, Written};
use crate::{
    EchRule, HttpRule, Origin, RuleId, entry::Ports, matcher::Matcher, path, text::Faults,
};

/// What a rule says of one attribute, against what one that binds it says.
struct Attribute {
    name: &'static str,
    is_there: fn(&RuleDocument) -> bool,
    /// Does the first ask for no more than the second?
    is_within: fn(&RuleDocument, &RuleDocument) -> bool,
}

const ATTRIBUTES: [Attribute; 3] = [
    Attribute {
        name: "tls",
        is_there: |rule| rule.tls.is_some(),
        is_within: |inner, outer| inner.tls <= outer.tls,
    },
    Attribute {
        name: "ech",
        is_there: |rule| rule.ech.is_some(),
        is_within: |inner, outer| match (&inner.ech, &outer.ech) {
            (Some(inner), Some(outer)) => ech_is_within(inner, outer),
            _ => true,
        },
    },
    Attribute {
        name: "http",
        is_there: |rule| rule.http.is_some(),
        is_within: |inner, outer| match (&inner.http, &outer.http) {
            (Some(inner), Some(outer)) => http_is_within(inner, outer),
            _ => true,
        },
    },
];

/// Of each author's rules around all hosts and ports of one, the closest that has an attribute, by its place: attribute by attribute.
pub(super) type Around = [[Option<u32>; Origin::ALL.len()]; ATTRIBUTES.len()];

/// Those of the authors above.
pub(super) fn around(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    matcher: &Matcher,
) -> Around {
    let mut found = Around::default();
    if written.origin == Origin::Operator {
        return found;
    }
    let ports = written.value.host.ports.or_any();
    // The widest come first, so that the last one is the closest.
    matcher.visit_pattern(&written.value.host.pattern, |index, theirs| {
        let Some(other) = rules.get(index as usize) else {
            return;
        };
        if other.origin >= written.origin || (theirs != ports && theirs != Ports::Any) {
            return;
        }
        for (attribute, closest) in ATTRIBUTES.iter().zip(&mut found) {
            let place = closest.get_mut(other.origin as usize);
            if let Some(place) = place.filter(|_| (attribute.is_there)(&other.value)) {
                *place = Some(index);
            }
        }
    });
    found
}

/// Report each attribute that asks for more than the closest rule of an author above that is around all its hosts and ports.
pub(super) fn judge(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    matcher: &Matcher,
    named: &RuleId,
    faults: &mut Faults,
) {
    let rule = &written.value;
    let around = around(written, rules, matcher);
    let above = Origin::ALL.into_iter().filter(|by| *by < written.origin);
    for by in above {
        for (attribute, closest) in ATTRIBUTES.iter().zip(&around) {
            let index = closest.get(by as usize).copied().flatten();
            let other = index.and_then(|index| Some((index, rules.get(index as usize)?)));
            let Some((index, other)) = other.filter(|_| (attribute.is_there)(rule)) else {
                continue;
            };
            if (attribute.is_within)(rule, &other.value) {
                continue;
            }
            let (name, whose, host) = (attribute.name, by.as_str(), &other.value.host);
            faults.error_hint(
                &written.place,
                format!(
                    "{named}: {name} asks for more than rules[{index}] \"{host}\" of the {whose}'s, which binds it"
                ),
                "ask for what that one allows, or for less",
            );
        }
    }
}

fn ech_is_within(inner: &EchRule, outer: &EchRule) -> bool {
    match (inner, outer) {
        (EchRule::Deny, _) => true,
        (_, EchRule::Deny) => false,
        (EchRule::Outer, _) => true,
        (EchRule::PublicNames(names), EchRule::Outer) => names.is_empty(),
        (EchRule::PublicNames(names), EchRule::PublicNames(held)) => {
            names.iter().all(|name| held.contains(name))
        }
    }
}

/// A list that is not there asks for nothing of its own: the other one's holds.
fn http_is_within(inner: &HttpRule, outer: &HttpRule) -> bool {
    let has = |method: &String| outer.methods.contains(method);
    let covers = |path: &String| path::covered(&outer.path_prefixes, path);
    let methods = outer.methods.is_empty() || inner.methods.iter().all(has);
    let paths = outer.path_prefixes.is_empty() || inner.path_prefixes.iter().all(covers);
    methods && paths
}
