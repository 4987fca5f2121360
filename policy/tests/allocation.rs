//! Deciding touches no allocator: it happens on every request of every sandbox.

#![allow(clippy::expect_used)]

use std::sync::Arc;

use allocation_counter::measure;
use sluicegate_policy::{Ceiling, Grant, GrantDocument, Target, decide, text};

fn grant(source: &str) -> Arc<Grant> {
    let mut faults = text::Faults::default();
    let document = GrantDocument::read(&text::parse(source, &mut faults), &mut faults);
    let grant = document.compile(&Ceiling::local(), &mut faults);
    assert!(faults.is_clean(), "{faults}");
    Arc::new(grant.expect("no faults, so a grant"))
}

#[test]
fn a_decision_allocates_nothing() {
    let listed = grant(
        "
egress:
  allowedHosts: [api.example.com, '*.wild.example.com', 'db.example.com:5432', '*.deep.example.com:*', '8.8.8.0/24:443']
  deniedHosts: ['*.denied.example.com', 10.0.0.0/8]
  rules: [{host: api.example.com, tls: require, ech: deny}]
",
    );
    let open = grant("egress: {defaultAction: allow, deniedHosts: [evil.example.com]}");
    let deep = format!("{}.deep.example.com:1234", vec!["a"; 60].join("."));
    let asked = [
        (&listed, "api.example.com:443"),
        (&listed, "a.b.wild.example.com:80"),
        (&listed, "db.example.com:5432"),
        (&listed, &deep),
        (&listed, "8.8.8.8:443"),
        (&open, "anything.example.org:443"),
        (&open, "[2606:4700::1111]:443"),
    ];
    for (grant, authority) in asked {
        let target = Target::from_authority(authority).expect("a target");
        let mut allowed = false;
        let count = measure(|| allowed = decide(grant, &target).is_ok());
        assert!(allowed, "{authority}");
        assert_eq!(count.count_total, 0, "{authority}: {count:?}");
    }
    // Nor does a refusal, until somebody reads it.
    let target = Target::from_authority("other.example.com:443").expect("a target");
    let mut hint = None;
    let refused = measure(|| hint = decide(&listed, &target).err().and_then(|no| no.hint));
    assert_eq!(refused.count_total, 0, "{refused:?}");
    // The counter counts.
    let hint = hint.expect("a hint");
    let read = measure(|| drop(hint.to_string()));
    assert!(read.count_total > 0, "{read:?}");
}
