//! Docker, E2B, Modal.

use super::*;

#[test]
fn v150_lists() {
    let docker = |source| kept(System::Docker, source);
    assert_eq!(
        docker(
            "[example.com, '*.example.org', 'db.example.com:5432', 198.51.100.0/24, '2001:4860::/32', '[2001:4860::1]:443']"
        ),
        json!({"allowedHosts": [
            "example.com:*", "*.example.org:*", "db.example.com:5432", "198.51.100.0/24:*", "[2001:4860::/32]:*",
            "[2001:4860::1]:443"
        ]})
    );
    // Docker: a default, and lists beside it.
    assert_eq!(
        docker("policy: deny\nallow-host: ['**.example.com']\nblock-host: [example.net]\n"),
        json!({"allowedHosts": ["*.example.com:*"], "deniedHosts": ["example.net:*"]})
    );
    assert_eq!(
        docker("policy: allow\nblock-cidr: [10.0.0.0/8]\nblock-host: evil.example.com\n"),
        json!({"defaultAction": "allow", "deniedHosts": ["evil.example.com:*", "10.0.0.0/8:*"]})
    );
    // E2B: only a deny of everything makes the allow list a bound.
    for lists in [
        "network: {allowOut: [api.example.com, 198.51.100.7], denyOut: [0.0.0.0/0]}",
        "network: {allowOut: [api.example.com, 198.51.100.7], denyOut: [ALL_TRAFFIC]}",
    ] {
        assert_eq!(
            docker(lists),
            json!({"allowedHosts": ["api.example.com", "198.51.100.7:*"]})
        );
    }
    assert_eq!(
        docker("{allowOut: [10.1.2.3], denyOut: [0.0.0.0/0, 10.0.0.0/8]}"),
        json!({"allowedHosts": ["10.1.2.3:*"]})
    );
    assert_eq!(
        docker("allowOut: [api.example.com]"),
        json!({"defaultAction": "allow"})
    );
    assert_eq!(
        docker("{allowInternetAccess: false}"),
        json!({"allowedHosts": []})
    );
    // Modal: a list's presence denies the rest.
    assert_eq!(
        docker("cidr_allowlist: [198.51.100.0/24]"),
        json!({"allowedHosts": ["198.51.100.0/24:*"]})
    );
    assert_eq!(docker("block_network: true"), json!({"allowedHosts": []}));
    assert_eq!(docker("allow: []"), json!({"allowedHosts": []}));
}

/// What becomes wider is refused unless that is chosen, and what becomes stricter is told.
#[test]
fn v150_a_wildcard_of_one_label_is_not_silently_one_of_any_depth() {
    let source = "policy: deny\nallow-host: [a.test, '*.example.com']\n";
    let found = refused(System::Docker, source);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("2:22: ") && found[0].contains("one label there"),
        "{found:?}"
    );
    let told = Choices {
        role: None,
        widen: true,
    };
    let imported = import(System::Docker, source, &told).unwrap();
    assert_eq!(
        imported.document.egress.to_value(),
        json!({"allowedHosts": ["a.test:*", "*.example.com:*"]})
    );
    let about_depth = |notes: &[String]| {
        let depth = |note: &&String| note.contains("names of any depth");
        notes.iter().filter(depth).count()
    };
    let notes: Vec<_> = imported.notes.iter().map(ToString::to_string).collect();
    assert_eq!(about_depth(&notes), 1, "{notes:?}");
    for (source, count) in [
        ("{policy: allow, block-host: ['*.example.com']}", 1),
        ("{policy: allow, deniedDomains: ['*.example.com']}", 1),
        ("{policy: allow, block-host: ['**.example.com']}", 0),
        ("{policy: deny, allow-host: ['**.example.com']}", 0),
        ("['*.example.com']", 1),
    ] {
        let (_, notes) = kept_as(System::Docker, source, "");
        assert_eq!(about_depth(&notes), count, "{source}: {notes:?}");
    }
}

#[test]
fn v150_lists_in_which_allow_would_beat_deny_are_refused() {
    for source in [
        "policy: deny\nallow:\n  - api.example.com\ndeny: ['*.example.com']\n",
        "policy: deny\nallow:\n  - '*.example.com'\ndeny: [api.example.com]\n",
        "policy: allow\nallow:\n  - 10.1.2.3\ndeny: [10.0.0.0/8]\n",
        "policy: deny\nallow:\n  - 'a.example.com:443'\ndeny: [a.example.com]\n",
    ] {
        let found = refused(System::Docker, source);
        assert_eq!(found.len(), 1, "{source}: {found:?}");
        assert!(
            found[0].starts_with("3:5: allow[0]: ") && found[0].contains("line 4"),
            "{found:?}"
        );
    }
    // They do not meet: it does not matter.
    let apart =
        "policy: deny\nallow: ['a.example.com:443']\ndeny: ['a.example.com:22', b.example.com]\n";
    assert_eq!(
        kept(System::Docker, apart),
        json!({"allowedHosts": ["a.example.com:443"], "deniedHosts": ["a.example.com:22", "b.example.com:*"]})
    );
}

/// Only E2B's lists have E2B's precedence, and only there one range of IPv4 stands for everything.
#[test]
fn v150_a_deny_of_everything_leaves_named_denies_standing() {
    for source in [
        "{policy: deny, block-host: [evil.x.test], block-cidr: [0.0.0.0/0], allow-host: ['**.x.test']}",
        "{policy: deny, block-host: [evil.x.test, '*'], allow-host: ['**.x.test']}",
        "{policy: allow, allow: [a.test], deny: [0.0.0.0/0]}",
        "{policy: allow, allow-cidr: [10.1.2.3], deny: [0.0.0.0/0]}",
        "{block_network: true, cidr_allowlist: [8.8.8.0/24]}",
        "{block_network: true, domain_allowlist: [a.test]}",
    ] {
        assert_eq!(refused(System::Docker, source).len(), 1, "{source}");
    }
    for (source, expected) in [
        (
            "{policy: deny, block-host: [evil.y.test], block-cidr: [0.0.0.0/0], allow-host: [a.test]}",
            json!({"allowedHosts": ["a.test:*"], "deniedHosts": ["evil.y.test:*"]}),
        ),
        (
            "{policy: allow, block-cidr: [0.0.0.0/0]}",
            json!({"defaultAction": "allow", "deniedHosts": ["0.0.0.0/0:*"]}),
        ),
        (
            "{policy: allow, block-cidr: [0.0.0.0/0, '::/0']}",
            json!({"allowedHosts": []}),
        ),
        (
            "cidr_allowlist: [0.0.0.0/0]",
            json!({"allowedHosts": ["0.0.0.0/0:*"]}),
        ),
    ] {
        assert_eq!(kept(System::Docker, source), expected, "{source}");
    }
}

#[test]
fn v150_lists_that_do_not_say_enough_are_refused() {
    for source in [
        "block-host: [a.test]",
        "allow-host: [a.test]",
        "{}",
        "allow: ['https://a.test']",
        "allow: ['*foo.test']",
        "allow: [10.0.0.1/8]",
        "allow: ['a.test:0']",
        "policy: maybe",
        "allow: ['*']\ndeny: [a.test]\npolicy: deny",
        "policy: allow\ndefault: deny\nallow: [a.test]",
        "allow: [a.test]\nunheard: 1",
        "allow: ['*.com']",
        "allow: [a.test.]",
    ] {
        assert!(!refused(System::Docker, source).is_empty(), "{source}");
    }
}

/// E2B denies addresses alone: what a name denies there nobody can say.
#[test]
fn v150_names_that_e2b_would_not_deny_are_refused() {
    for name in ["evil.example.com", "all_traffic"] {
        let found = refused(System::Docker, &format!("denyOut: [{name}]\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("E2B denies addresses"), "{found:?}");
    }
}
