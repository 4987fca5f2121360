//! Gestalt.

use super::*;

#[test]
fn v144_gestalt() {
    let gestalt = |source| kept(System::Gestalt, source);
    assert_eq!(
        gestalt("allowedHosts: [API.Example.com, '*.slack.com', 203.0.113.7, '2001:4860::8888']\n"),
        json!({"allowedHosts": ["api.example.com:*", "*.slack.com:*", "203.0.113.7:*", "[2001:4860::8888]:*"]})
    );
    for source in [
        "allowedHosts: []\ndefaultAction: deny\n",
        "egress: {defaultAction: deny}\n",
    ] {
        assert_eq!(gestalt(source), json!({"defaultAction": "deny"}));
    }
    assert_eq!(
        gestalt("{allowed_hosts: [], default_action: allow}"),
        json!({"defaultAction": "allow"})
    );
    // A list that names anything decides alone.
    let (block, notes) = kept_as(
        System::Gestalt,
        "allowedHosts: [a.test]\ndefaultAction: allow\n",
        "",
    );
    assert_eq!(block, json!({"allowedHosts": ["a.test:*"]}));
    assert!(
        notes[0].starts_with("2:1: ") && notes[0].contains("ignored"),
        "{notes:?}"
    );
    // Unset, everything would be allowed: that must be written out.
    for (source, place) in [
        ("allowedHosts: []\n", "1:15"),
        ("{}\n", "1:1"),
        ("egress: {}\n", "1:9"),
    ] {
        let found = refused(System::Gestalt, source);
        assert!(
            found[0].starts_with(place) && found[0].contains("write out"),
            "{source}: {found:?}"
        );
    }
}

#[test]
fn v144_gestalt_refuses_what_matches_nothing_there() {
    for entry in [
        "a.test:443",
        "*",
        "*.com",
        "10.0.0.0/8",
        "a.test.",
        "bücher.example",
        "https://a.test",
        "[2001:4860::1]",
        "a*.test",
        "",
    ] {
        let found = refused(
            System::Gestalt,
            &format!("allowedHosts:\n  - ok.test\n  - {entry:?}\n"),
        );
        assert_eq!(found.len(), 1, "{entry}: {found:?}");
        assert!(
            found[0].starts_with("3:5: allowedHosts[1]: ")
                && found[0].contains(&format!("{entry:?}")),
            "{found:?}"
        );
    }
    for source in [
        "allowedHosts:\n",
        "allowedHosts: a.test\n",
        "allowedHosts: [a.test]\ndeniedHosts: [b.test]\n",
        "defaultAction: maybe\n",
    ] {
        assert!(!refused(System::Gestalt, source).is_empty());
    }
}
