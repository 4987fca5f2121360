//! `rules[]`: attributes for what `allowedHosts` already names, refused where they cannot be enforced.

use super::{
    model::{RuleDocument, Written},
    within,
};
use crate::{
    Action, EchRule, HttpRule, Origin, TlsRule,
    entry::{Entry, Ports},
    grant::Attributes,
    matcher::{Compiled, Matcher},
    text::Faults,
};

/// The rules as a matcher, and their attributes by index. `reports`: whose report mode it is, if any.
pub(super) fn compile_rules(
    rules: &[Written<RuleDocument>],
    allowed: Option<&[Written<Entry>]>,
    default: Action,
    reports: Option<Origin>,
    faults: &mut Faults,
) -> (Matcher, Vec<Attributes>) {
    let mut compiled = Vec::with_capacity(rules.len());
    let mut attributes = Vec::with_capacity(rules.len());
    for (index, written) in rules.iter().enumerate() {
        let rule = &written.value;
        let named = format!("rules[{index}] \"{}\"", rule.host);
        let ports = ports_in_play(rule, allowed, default);
        if ports.is_empty() {
            faults.error_hint(
                &written.place,
                format!("{named} is for a host that allowedHosts does not name"),
                format!("add \"{}\" to egress.allowedHosts", rule.host),
            );
        }
        judge_http(written, rules, &ports, &named, faults);
        judge_ech(written, rules, &named, faults);
        judge_conflicts(written, rules, index, &named, faults);
        within::judge(written, rules, &named, faults);
        let entry = Entry {
            pattern: rule.host.pattern.clone(),
            ports: rule.host.ports.or_any(),
        };
        let origin = written.origin;
        let one = Compiled {
            entry,
            exception: false,
            origin,
        };
        compiled.push((named, one));
        attributes.push(Attributes {
            origin,
            lifted: reports.is_some_and(|by| origin >= by),
            tls: rule.tls,
            ech: rule.ech.clone(),
            http: rule.http.clone(),
        });
    }
    (Matcher::new(compiled.into_iter()), attributes)
}

/// The ports on which the rule would apply: its own, as far as they are allowed; none written = all that are allowed.
fn ports_in_play(
    rule: &RuleDocument,
    allowed: Option<&[Written<Entry>]>,
    default: Action,
) -> Vec<Ports> {
    let own = rule.host.ports.or_any();
    let Some(allowed) = allowed else {
        return if default == Action::Allow {
            vec![own]
        } else {
            Vec::new()
        };
    };
    let covering = allowed.iter().filter(|entry| {
        // Either may be the wider one: a rule for one name below a pattern, or for a pattern around one name.
        let outer = &entry.value;
        outer.contains_hosts(&rule.host.pattern) || rule.host.contains_hosts(&outer.pattern)
    });
    covering
        .filter_map(|entry| match (own, entry.value.ports) {
            (Ports::Any, theirs) => Some(theirs),
            (Ports::One(port), theirs) => theirs.covers(port).then_some(own),
            (Ports::Web, _) => None,
        })
        .collect()
}

/// Methods and paths cannot be seen inside TLS, nor promised of bytes nobody looks at.
fn judge_http(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    ports: &[Ports],
    named: &str,
    faults: &mut Faults,
) {
    let rule = &written.value;
    if rule
        .http
        .as_ref()
        .is_none_or(|http| *http == HttpRule::default())
    {
        return;
    }
    // A rule beside or below this one may set `tls` for the same hosts.
    let tls = |wanted: TlsRule| {
        rules.iter().map(|other| &other.value).any(|other| {
            let meets = other.host.meets(&rule.host);
            let (a, b) = (other.host.ports.or_any(), rule.host.ports.or_any());
            other.tls == Some(wanted) && meets && (a == b || a == Ports::Any || b == Ports::Any)
        })
    };
    let why = if tls(TlsRule::Require) {
        "inside the TLS that tls: require asks for"
    } else if tls(TlsRule::Opaque) {
        "in an opaque tunnel"
    } else if ports.iter().any(|ports| ports.covers(443)) {
        "inside TLS on port 443"
    } else {
        return;
    };
    faults.error_hint(
        &written.place,
        format!("{named}: http cannot be enforced {why}, and nothing is intercepted"),
        format!(
            "name the plain HTTP port alone: host: \"{}:80\"",
            Entry {
                ports: Ports::Web,
                ..rule.host.clone()
            }
        ),
    );
}

/// An encrypted hello cannot be told from other bytes where nobody looks at them. (One host below a pattern may be opaque.)
fn judge_ech(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    named: &str,
    faults: &mut Faults,
) {
    let rule = &written.value;
    let asks = rule
        .ech
        .as_ref()
        .is_some_and(|ech| *ech != EchRule::default());
    let ports = rule.host.ports.or_any();
    let around = rules.iter().map(|other| &other.value).filter(|other| {
        let theirs = other.host.ports.or_any();
        other.tls.is_some()
            && other.host.contains_hosts(&rule.host.pattern)
            && (theirs == ports || theirs == Ports::Any)
    });
    let closest = around.max_by_key(|other| other.host.closeness());
    if asks && closest.is_some_and(|other| other.tls == Some(TlsRule::Opaque)) {
        let message = format!("{named}: ech cannot be enforced in an opaque tunnel");
        faults.error_hint(&written.place, message, "write tls: auto or tls: require");
    }
    // Whoever is laid over this author opens no way around it. What he says of tls beside it holds by itself.
    let laid_over = rules.iter().filter(|other| {
        let theirs = other.value.host.ports.or_any();
        other.origin > written.origin
            && other.value.tls == Some(TlsRule::Opaque)
            && other.value.host.meets(&rule.host)
            && (theirs == ports || theirs == Ports::Any || ports == Ports::Any)
    });
    for other in laid_over.filter(|_| asks && rule.tls.is_none()) {
        let message = format!(
            "\"{}\": tls: opaque would lift the ech of {named}, which binds it",
            other.value.host
        );
        faults.error_hint(&other.place, message, "leave tls: opaque out");
    }
}

/// Two rules of one author for one host and port that say different things: nobody could tell which holds.
fn judge_conflicts(
    written: &Written<RuleDocument>,
    rules: &[Written<RuleDocument>],
    index: usize,
    named: &str,
    faults: &mut Faults,
) {
    let rule = &written.value;
    for (earlier, other) in rules.iter().take(index).enumerate() {
        let theirs = other.origin != written.origin;
        let other = &other.value;
        if theirs || other.host != rule.host {
            continue;
        }
        let differ = [
            (
                "tls",
                other.tls.is_some() && rule.tls.is_some() && other.tls != rule.tls,
            ),
            (
                "ech",
                other.ech.is_some() && rule.ech.is_some() && other.ech != rule.ech,
            ),
            (
                "http",
                other.http.is_some() && rule.http.is_some() && other.http != rule.http,
            ),
        ];
        for (key, _) in differ.iter().filter(|(_, differs)| *differs) {
            let message = format!("{named} and rules[{earlier}] say different things of {key}");
            faults.error_hint(&written.place, message, "say it once");
        }
    }
}
