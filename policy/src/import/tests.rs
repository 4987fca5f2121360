//! The rows about other systems' documents, one named test each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::testing;
use serde_json::{Value, json};

mod docker;
mod dreadnode;
mod gestalt;
mod gondolin;
mod just_bash;
mod smokescreen;

fn choices(role: &str) -> Choices {
    Choices {
        role: (!role.is_empty()).then(|| role.to_owned()),
        widen: false,
    }
}

/// The imported block and the notes, each with its place.
fn kept_as(system: System, source: &str, role: &str) -> (Value, Vec<String>) {
    let imported =
        import(system, source, &choices(role)).unwrap_or_else(|f| panic!("{source}: {f}"));
    let notes = imported.notes.iter().map(ToString::to_string).collect();
    let block = imported.document.egress.to_value();
    // What is imported is loaded, within a ceiling that holds what needs one.
    let document = json!({ "egress": block }).to_string();
    testing::compile(&document, "addresses: [0.0.0.0/0, '::/0']").unwrap();
    (block, notes)
}

fn kept(system: System, source: &str) -> Value {
    kept_as(system, source, "").0
}

fn refused_as(system: System, source: &str, role: &str) -> Vec<String> {
    match import(system, source, &choices(role)) {
        Err(faults) => faults.errors.iter().map(ToString::to_string).collect(),
        Ok(imported) => panic!("{source}: taken as {}", imported.document.to_json()),
    }
}

fn refused(system: System, source: &str) -> Vec<String> {
    refused_as(system, source, "")
}

#[test]
fn every_fault_is_told_at_once_and_a_private_address_is_noted() {
    let found = refused(
        System::Gondolin,
        "allowedHosts: ['a*.test', 'b*.test']\nunheard: 1\n",
    );
    assert_eq!(found.len(), 3, "{found:?}");
    let (_, notes) = kept_as(
        System::Dreadnode,
        "allow: [10.20.0.0/16, 203.0.114.1]\n",
        "",
    );
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("1:9: ") && notes[0].contains("ceiling.addresses"),
        "{notes:?}"
    );
}
