//! What tests of several modules need.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::{Ceiling, Grant, GrantDocument, Target, text};
use proptest::prelude::{Strategy, prop};
use std::sync::Arc;

/// A file of the shared corpora. Absent, it fails in CI and is passed over, loudly, elsewhere.
pub(crate) fn corpus(file: &str) -> Option<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/corpora");
    match std::fs::read_to_string(format!("{path}/{file}")) {
        Ok(text) => Some(text),
        Err(error) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            panic!("{path}/{file}: {error}")
        }
        Err(error) => {
            eprintln!("NOT TESTED: corpus {path}/{file}: {error}");
            None
        }
    }
}

/// Read a document; panics on a fault.
pub(crate) fn document(source: &str) -> GrantDocument {
    let mut faults = text::Faults::default();
    let node = text::parse(source, &mut faults);
    let document = GrantDocument::read(&node, &mut faults);
    assert!(faults.is_clean(), "{faults}");
    document
}

/// Read a ceiling; panics on a fault.
pub(crate) fn ceiling(source: &str) -> Ceiling {
    let mut faults = text::Faults::default();
    let node = text::parse(source, &mut faults);
    let ceiling = Ceiling::read(&node, &mut faults);
    assert!(faults.is_clean(), "{faults}");
    ceiling
}

/// Compile within a ceiling, both as written; the faults, one per line, where there are any.
pub(crate) fn compile(source: &str, ceiling_source: &str) -> Result<Arc<Grant>, String> {
    let mut faults = text::Faults::default();
    let node = text::parse(source, &mut faults);
    let document = GrantDocument::read(&node, &mut faults);
    let grant = document.compile(&ceiling(ceiling_source), &mut faults);
    let errors: Vec<String> = faults.errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() {
        return Ok(Arc::new(grant.expect("no faults, so a grant")));
    }
    Err(errors.join("\n"))
}

/// A grant from an `egress` block as written, within the widest ceiling.
pub(crate) fn grant(egress: &str) -> Arc<Grant> {
    let widest = "addresses: [0.0.0.0/0, '::/0']";
    compile(&format!("egress: {{{egress}}}"), widest).unwrap_or_else(|faults| panic!("{faults}"))
}

/// A target; panics if it is none.
pub(crate) fn target(authority: &str) -> Target {
    Target::from_authority(authority).expect(authority)
}

const HOSTS: [&str; 9] = [
    "a.test",
    "*.a.test",
    "b.a.test",
    "*.b.a.test",
    "c.b.a.test",
    "8.8.0.0/16",
    "8.8.8.0/24",
    "8.8.8.8",
    "[2600::/16]",
];
const PORTS: [&str; 5] = ["", ":*", ":80", ":443", ":8080"];

/// Entries of lists of hosts that lie within one another, and beside.
pub(crate) fn entry() -> impl Strategy<Value = String> {
    let host = prop::sample::select(HOSTS.to_vec());
    let ports = prop::sample::select(PORTS.to_vec());
    (host, ports).prop_map(|(host, ports)| format!("{host}{ports}"))
}
