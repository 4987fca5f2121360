//! Smokescreen.

use super::*;

const ACL: &str = "version: v1
services:
  - name: strict
    project: a
    action: enforce
    allowed_domains: [one.example.com, \"*.bad.example.com\", very.bad.example.net]
  - name: watched
    action: report
    allowed_domains: [two.example.com]
  - {name: wide, action: open}
default:
  action: enforce
  allowed_domains: [other.example.com]
global_allow_list: [everyone.example.com]
global_deny_list: [worst.bad.example.com, \"*.bad.example.net\"]
";

#[test]
fn v149_smokescreen() {
    let denied = json!(["worst.bad.example.com:*", "*.bad.example.net:*"]);
    let (block, notes) = kept_as(System::Smokescreen, ACL, "strict");
    assert_eq!(
        block,
        json!({
            "allowedHosts": [
                "one.example.com:*", "*.bad.example.com:*", "very.bad.example.net:*", "everyone.example.com:*"
            ],
            "deniedHosts": denied,
        })
    );
    // Where the role's allow beats the global deny there, and does not here.
    let places: Vec<&str> = notes
        .iter()
        .filter_map(|note| note.split(": ").next())
        .collect();
    assert_eq!(places, ["6:40", "6:61"], "{notes:?}");
    assert!(
        notes[0].contains("that part")
            && notes[1].contains("it stays denied")
            && notes[1].contains("line 15"),
        "{notes:?}"
    );

    let (block, _) = kept_as(System::Smokescreen, ACL, "wide");
    assert_eq!(
        block,
        json!({"defaultAction": "allow", "deniedHosts": denied})
    );
    let (block, notes) = kept_as(System::Smokescreen, ACL, "somebody else");
    assert_eq!(
        block["allowedHosts"],
        json!(["other.example.com:*", "everyone.example.com:*"])
    );
    assert!(
        notes.iter().any(|note| note.contains("default rule")),
        "{notes:?}"
    );
    let found = refused(System::Smokescreen, ACL);
    assert!(
        found[0].starts_with("2:1: ") && found[0].contains("strict, watched, wide"),
        "{found:?}"
    );
}

#[test]
fn v149_smokescreen_report_does_not_lift_the_global_denies() {
    let found = refused_as(System::Smokescreen, ACL, "watched");
    assert!(
        found[0].starts_with("15:20: ") && found[0].contains("global_deny_list"),
        "{found:?}"
    );
    let without: String = ACL
        .lines()
        .filter(|line| !line.starts_with("global_deny"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        kept_as(System::Smokescreen, &without, "watched").0,
        json!({"allowedHosts": ["two.example.com:*", "everyone.example.com:*"], "mode": "report"})
    );
}

#[test]
fn v149_smokescreen_judges_its_own_files() {
    let folder = "smokescreen-acl/pkg/smokescreen/acl/v1/testdata";
    for (file, role, expected) in [
        (
            "sample_config.yaml",
            "enforce-dummy-srv",
            Ok(json!({"allowedHosts": ["example1.com:*", "example2.com:*"]})),
        ),
        (
            "sample_config.yaml",
            "open-dummy-srv",
            Ok(json!({"defaultAction": "allow"})),
        ),
        (
            "sample_config.yaml",
            "dummy-glob",
            Ok(json!({"allowedHosts": ["*.example.com:*"]})),
        ),
        (
            "sample_config.yaml",
            "unknown",
            Ok(json!({"allowedHosts": ["default.example.com:*"]})),
        ),
        (
            "no_default.yaml",
            "unknown",
            Ok(json!({"allowedHosts": []})),
        ),
        ("broken_config.yaml", "x", Err("broken")),
        (
            "contains_invalid_glob.yaml",
            "dummy-glob",
            Err("*bob.example.com"),
        ),
        (
            "contains_invalid_glob_default.yaml",
            "dummy-glob",
            Err("*bob.example.com"),
        ),
        (
            "contains_middle_glob.yaml",
            "dummy-glob",
            Err("bob.ex*ample.com"),
        ),
        (
            "unknown_action.yaml",
            "enforce-dummy-srv",
            Err("purposely_unknown_action"),
        ),
        (
            "mitm_config.yaml",
            "enforce-dummy-mitm-srv",
            Err("mitm_domains"),
        ),
    ] {
        let Some(source) = testing::corpus(&format!("{folder}/{file}")) else {
            return;
        };
        match expected {
            Ok(block) => assert_eq!(
                kept_as(System::Smokescreen, &source, role).0,
                block,
                "{file} {role}"
            ),
            Err(words) => {
                let found = refused_as(System::Smokescreen, &source, role);
                assert!(
                    found.iter().any(|fault| fault.contains(words)),
                    "{file}: {found:?}"
                );
            }
        }
    }
}
