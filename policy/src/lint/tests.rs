#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::testing;
use proptest::prelude::*;

fn warnings(egress: &str) -> Vec<String> {
    let document = testing::document(&format!("egress:\n{egress}"));
    let mut faults = Faults::default();
    lint(&document.egress, &mut faults);
    assert!(faults.is_clean());
    faults.warnings.iter().map(ToString::to_string).collect()
}

/// `line:column` of each warning whose text holds `words`.
fn places(found: &[String], words: &str) -> Vec<String> {
    let hits = found.iter().filter(|warning| warning.contains(words));
    hits.map(|warning| warning.split(": ").next().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_deny_covers_wholly_is_never_reached() {
    let found = warnings(
        "  allowedHosts:\n    - a.corp.test\n    - '*.corp.test'\n    - b.corp.test:8443\n    - c.part.test\n    - \
         '10.1.0.0/16:22'\n    - d.union.test\n  deniedHosts: ['*.corp.test', 'c.part.test:443', '10.0.0.0/8', \
         'd.union.test:80', 'd.union.test:443']\n",
    );
    // `c` keeps port 80; of `d` two denies together leave nothing.
    assert_eq!(
        places(&found, "never reached"),
        ["3:7", "4:7", "5:7", "7:7", "8:7"]
    );
    assert!(
        found[0].contains("egress.deniedHosts[0], line 9"),
        "{}",
        found[0]
    );
}

#[test]
fn what_a_wider_entry_covers_adds_nothing() {
    let found = warnings(
        "  allowedHosts:\n    - a.wide.test\n    - '*.wide.test'\n    - a.wide.test:8443\n    - '*.b.wide.test:443'\n    \
         - wide.test\n    - same.test\n    - SAME.test.\n    - '203.0.113.7:443'\n    - '203.0.113.0/24'\n  \
         deniedHosts: [x.no.test, '*.no.test:*', y.no.test:1]\n",
    );
    assert_eq!(
        places(&found, "adds nothing"),
        ["3:7", "6:7", "9:7", "10:7", "12:17", "12:43"]
    );
}

#[test]
fn every_port_and_rules_that_do_nothing() {
    let found = warnings(
        "  allowedHosts: ['a.test:*', b.test]\n  deniedHosts: ['c.test:*', '*.b.test']\n  rules:\n    - host: b.test\n    \
         - {host: a.test, tls: opaque}\n",
    );
    assert_eq!(places(&found, "every port"), ["2:18"]);
    assert_eq!(places(&found, "sets nothing"), ["5:7"]);
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn rules_that_change_nothing() {
    let found = warnings(
        "  allowedHosts: ['a.test:443', 'b.test:*', '*.c.test', 'd.test:8080', x.e.test]\n  rules:\n    - {host: a.test, tls: require}\n    \
         - {host: b.test, tls: auto}\n    - {host: '*.c.test', tls: opaque, ech: deny}\n    - {host: x.c.test, tls: opaque}\n    \
         - {host: x.c.test, ech: deny}\n    - {host: y.c.test, ech: outer}\n    - {host: d.test, tls: opaque}\n    \
         - {host: 'd.test:8080', tls: auto}\n    - {host: '*.e.test', tls: opaque}\n    - {host: x.e.test, tls: auto}\n    \
         - {host: 'd.test:8080', tls: auto}\n",
    );
    // `require` is what 443 has; not so `auto`, which differs there. `d` on 8080 is said closer; `*.e.test` reaches only `x`.
    assert_eq!(
        places(&found, "adds nothing: what it says holds"),
        ["4:7", "7:7", "8:7", "14:7"],
        "{found:#?}"
    );
    assert_eq!(
        places(&found, "closer rules say it all"),
        ["10:7", "12:7"],
        "{found:#?}"
    );
}

#[test]
fn a_rule_that_nothing_is_allowed_for_has_its_fault_and_no_warning() {
    for egress in [
        "allowedHosts: [a.test]\n  rules:\n    - {host: b.test, tls: opaque}\n",
        "allowedHosts: ['a.test:8080']\n  rules:\n    - {host: 'a.test:9090', tls: opaque}\n",
        "rules:\n    - {host: b.test, tls: opaque}\n",
    ] {
        assert_eq!(warnings(&format!("  {egress}")), [""; 0], "{egress}");
        let mut faults = Faults::default();
        let document = testing::document(&format!("egress:\n  {egress}"));
        let grant = document.compile(&crate::Ceiling::local(), &mut faults);
        assert!(grant.is_none());
        let told: Vec<String> = faults.errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("allowedHosts does not name"), "{told:?}");
    }
}

#[test]
fn ranges_that_nobody_has() {
    let found = warnings(
        "  allowedHosts: ['0.0.0.0/0:22', 8.0.0.0/8, '[2000::/3]', '[fd00::/8]']\n  allowedAddresses: ['::/0', fc00::/7, \
         10.0.0.0/8, 0.0.0.0/1]\n",
    );
    assert_eq!(places(&found, "every IPv4 address"), ["2:18"]);
    assert_eq!(places(&found, "every IPv6 address"), ["3:22"]);
    assert_eq!(places(&found, "very large range"), ["2:45", "3:52"]);
}

#[test]
fn a_ceiling_is_looked_at_too() {
    let ceiling = testing::ceiling(
        "{allowedHosts: ['*.a.test:*', b.a.test, c.test], deniedHosts: [c.test], addresses: [0.0.0.0/0, 10.0.0.0/8]}",
    );
    let mut faults = Faults::default();
    lint_ceiling(&ceiling, &mut faults);
    let told: Vec<String> = faults.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:#?}");
    assert!(told[0].contains("\"b.a.test\" adds nothing"), "{told:#?}");
    assert!(told[1].contains("\"c.test\" is never reached"), "{told:#?}");
    assert!(told[2].contains("every IPv4 address"), "{told:#?}");
    assert!(told[3].contains("\"10.0.0.0/8\" adds nothing"), "{told:#?}");
}

#[test]
fn listed_sockets_are_looked_at() {
    let listed = testing::ceiling(
        "{sockets: [/run/app/, /run/app/a.sock, /run/db.sock, /run/db.sock, /var/run/, /run/docker.sock]}",
    );
    let mut faults = Faults::default();
    lint_ceiling(&listed, &mut faults);
    let found: Vec<String> = faults.warnings.iter().map(ToString::to_string).collect();
    let told = |at: usize, words: &str| {
        let place = format!("sockets[{at}]: ");
        let is = |one: &&String| one.contains(&place) && one.contains(words);
        assert_eq!(
            found.iter().filter(is).count(),
            1,
            "{at} {words}: {found:#?}"
        );
    };
    told(1, "\"/run/app/\" covers it");
    told(3, "\"/run/db.sock\" covers it");
    told(4, "holds /run/docker.sock");
    told(5, "holds /run/docker.sock");
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn a_metadata_address_named_alone_is_not_covered_by_its_range() {
    let found = warnings(
        "  allowedHosts: [169.254.0.0/16, 169.254.169.254, 169.254.1.1]\n  allowedAddresses: [10.0.0.0/8, 10.1.0.0/16, \
         169.254.0.0/16, 169.254.169.254]\n",
    );
    assert_eq!(places(&found, "adds nothing"), ["2:51", "3:34"]);
}

#[test]
fn the_text_tells_of_report_mode_and_of_defaults() {
    let found = lint_source(
        "egress: {mode: report, defaultAction: allow}\nruntime:\n  providers:\n    p:\n      egress:\n        \
         defaultAction: deny\n        allowedHosts: []\n        mode: enforce\n",
    );
    let shown: Vec<String> = found
        .faults
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(
        shown[0].starts_with("1:16: egress.mode: report mode is on"),
        "{shown:?}"
    );
    assert!(
        shown[1].starts_with("1:39: egress.defaultAction: every host"),
        "{shown:?}"
    );
    assert!(
        shown[2].starts_with("6:9: runtime.providers.p.egress.defaultAction: defaultAction has no"),
        "{shown:?}"
    );
}

#[test]
fn secrets_are_found_where_they_stand_and_never_shown() {
    // Put together here, so that no scanner takes this file for a leak.
    let github = format!("{}{}", "ghp_", "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3fG5");
    let aws = format!("{}{}", "AKIA", "IOSFODNN7EXAMPLE");
    let jwt = format!("{}{}", "eyJ", "hbGciOiJFZERTQSJ9abcdEFGH0123456789xyz");
    let short = format!("{}hbGciOiJIUzI1NiJ9.{}zdWIiOiJhIn0.c2ln", "eyJ", "eyJ");
    let random = "q7Zp2LxV9mTn4RkB8wYc3HsD6fJg1Ea5";
    let hex = "9f86d081884c7d659a2feaa0c55ad015";
    for (line, column, secret) in [
        (format!("token: {github}"), 8, github.as_str()),
        (format!("# old one: {github}"), 12, github.as_str()),
        (format!("list: [a, \"{aws}\"]"), 12, aws.as_str()),
        (format!("x: {jwt}.payload.sig"), 4, jwt.as_str()),
        (format!("x: {short}"), 4, short.as_str()),
        (format!("# Bearer {short}"), 10, short.as_str()),
        (format!("x: {random}"), 4, random),
        (format!("x: '{hex}'"), 5, hex),
        ("password: hunter2".to_owned(), 11, "hunter2"),
        (
            "{db: {\"DB_PASSWORD\":\"hunter2\"}}".to_owned(),
            22,
            "hunter2",
        ),
        ("  client-secret: 'abc def'".to_owned(), 19, "abc"),
        (
            "url: tls://user:hunter2@db.test:5432".to_owned(),
            17,
            "hunter2",
        ),
        ("adminToken: letmein".to_owned(), 13, "letmein"),
        (
            "Authorization: Bearer let me in".to_owned(),
            16,
            "let me in",
        ),
        (
            "setHeaders: {authorization: \"Basic a b\", x: y}".to_owned(),
            30,
            "a b",
        ),
        ("Cookie: 'sid=letmein; a=b'".to_owned(), 10, "letmein"),
        ("set-cookie: sid=abc".to_owned(), 13, "abc"),
        ("X-Api-Key: letmein".to_owned(), 12, "letmein"),
        (
            "dsn: 'host=db password=letmein user=x'".to_owned(),
            24,
            "letmein",
        ),
        ("env: [PGPASSWORD=letmein, A=b]".to_owned(), 18, "letmein"),
        (
            "url: https://a.test/?token=letmein&x=1".to_owned(),
            28,
            "letmein",
        ),
        ("# password: hunter2".to_owned(), 13, "hunter2"),
        ("a: 2 # admin_token=Letmein".to_owned(), 20, "Letmein"),
        ("credentials: letmein".to_owned(), 14, "letmein"),
        ("# curl -d pw=Sup3rS3cret".to_owned(), 14, "Sup3rS3cret"),
        ("x-auth: hunter2".to_owned(), 9, "hunter2"),
        (
            format!("pathPrefixes: [\"/v1/key/{aws}\"]"),
            25,
            aws.as_str(),
        ),
        (format!("path: /api/key={github}/x"), 16, github.as_str()),
    ] {
        let found = lint_source(&format!("a: 1\n{line}\n"));
        let shown: Vec<String> = found
            .faults
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown.len(), 1, "{line}: {shown:?}");
        assert!(
            shown[0].starts_with(&format!("2:{column}: ")),
            "{line}: {shown:?}"
        );
        assert!(
            !found.masked.contains(secret) && !shown[0].contains(secret),
            "{line}"
        );
        assert_eq!(
            found.masked.chars().count(),
            line.chars().count() + 6,
            "{line}"
        );
    }
}

#[test]
fn a_private_key_is_blotted_out_whole() {
    let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
    let found = lint_source(&format!(
        "key: |\n  {begin}\n  MC4CAQAw\n  Zm9v\n  {end}\nname: ok\n"
    ));
    assert_eq!(found.faults.warnings.len(), 1);
    assert_eq!(
        found.faults.warnings[0].position,
        crate::text::Position { line: 2, column: 3 }
    );
    assert!(
        !found.masked.contains("MC4") && !found.masked.contains("BEGIN"),
        "{}",
        found.masked
    );
    assert!(found.masked.ends_with("name: ok\n"), "{}", found.masked);
}

#[test]
fn what_only_looks_like_a_placeholder_is_a_secret() {
    for (line, secret) in [
        (
            "# Authorization: Basic dXNlcjpodW50ZXIyYWJj",
            "dXNlcjpodW50ZXIyYWJj",
        ),
        (
            "# authorization: Bearer abcdefgh12345678",
            "abcdefgh12345678",
        ),
        (
            "url: http://user:$ecretpass123@proxy.test:3128",
            "$ecretpass123",
        ),
        ("# http://user:{hunter2x@proxy.test:3128", "{hunter2x"),
        ("# http://user:<s3cr3tpass@proxy.test:3128", "<s3cr3tpass"),
        ("url: http://user:SECRET@proxy.test:3128", "SECRET"),
    ] {
        let found = lint_source(&format!("{line}\n"));
        assert_eq!(found.faults.warnings.len(), 1, "{line}");
        assert!(!found.masked.contains(secret), "{line}: {}", found.masked);
    }
}

#[test]
fn names_paths_and_digests_are_no_secrets() {
    for line in [
        "tokenFile: /var/lib/sluicegate/admin.token",
        "password: ${DB_PASSWORD}",
        "password:",
        "secret: /run/secrets/db",
        "- \"*.very-long-bucket-name-for-builds-2024.s3.eu-central-1.amazonaws.com\"",
        "host: ec2-203-0-113-25.compute-1.amazonaws.com",
        "url: https://example.com/a/b/c/d/e/Some/Path/With/2/Many/Parts",
        "image: app@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015",
        "id: 123e4567-e89b-12d3-a456-426614174000",
        "certificate: /etc/ssl/certs/Gateway-Certificate-2026-Production.pem",
        "url: unix:///run/cache/GestaltHostServiceRelay0.sock",
        "secretsDirectory: /etc/keys",
        "tokenTtl: 15m",
        "admin: {requestsPerCredential: 64}",
        "token: null",
        "requireToken: true",
        "cookie: \"${COOKIE}\"",
        "authorization: Bearer ${TOKEN}",
        "secrets: [a, b]",
        "# the token: a scoped one, and its password: chosen by hand",
        "# secret == public, if token= is empty",
        "url: https://a.test/?token=${TOKEN}&password=",
        "# socks5h://sluicegate:HANDLE@127.0.0.1:1080, http://user:********@proxy.test:3128",
        "url: https://user:${PASSWORD}@a.test",
        "methods: [SetPassword, GetToken]",
        "allowedHosts: [task-runner.example.com, sk-learn.org, npm_config.example.com]",
    ] {
        let found = lint_source(&format!("{line}\n"));
        assert!(found.faults.warnings.is_empty(), "{line}: {}", found.faults);
        assert_eq!(found.masked, format!("{line}\n"));
    }
}

#[test]
fn the_hash_of_a_token_is_none_and_anything_else_in_its_place_is() {
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    for line in [
        format!("- {{name: ci, tokenSha256: {hash}, scopes: [read]}}"),
        format!("      tokenSha256: \"{hash}\""),
        format!("{{\"tokenSha256\":\"{}\"}}", hash.to_uppercase()),
    ] {
        let found = lint_source(&format!("{line}\n"));
        assert!(found.faults.warnings.is_empty(), "{line}: {}", found.faults);
        assert_eq!(found.masked, format!("{line}\n"));
    }
    for (line, secret) in [
        (format!("tokenSha256: {}", &hash[..40]), &hash[..40]),
        (format!("otherSha256: {hash}"), hash),
        (format!("mytokenSha256: {hash}"), hash),
        (
            "tokenSha256: q7Zp2LxV9mTn4RkB8wYc3HsD6fJg1Ea5".to_owned(),
            "q7Zp2LxV9mTn4RkB8wYc3HsD6fJg1Ea5",
        ),
        (format!("tokenSha256: {hash} # {}", &hash[..32]), "# 9f86"),
    ] {
        let found = lint_source(&format!("{line}\n"));
        assert_eq!(found.faults.warnings.len(), 1, "{line}");
        assert!(!found.masked.contains(secret), "{line}: {}", found.masked);
    }
}

fn entry() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "a.test",
        "b.a.test",
        "*.a.test",
        "*.b.a.test",
        "c.b.a.test",
        "198.51.100.0/24",
        "198.51.100.7",
        "198.51.0.0/16",
    ]);
    let port = prop::sample::select(vec!["", ":*", ":80", ":443", ":22"]);
    (host, port).prop_map(|(host, port)| format!("{host}{port}"))
}

proptest! {
    /// Without the entries called unreachable, then without the redundant ones, every target is decided as before.
    #[test]
    fn what_is_called_useless_is(
        allowed in prop::collection::vec(entry(), 0..6),
        denied in prop::collection::vec(entry(), 0..4),
    ) {
        let block = |allowed: &[String]| format!("allowedHosts: {allowed:?}, deniedHosts: {denied:?}");
        let document = testing::document(&format!("egress: {{{}}}", block(&allowed)));
        let mut faults = Faults::default();
        lint(&document.egress, &mut faults);
        let useless: Vec<String> = faults.warnings.iter()
            .filter(|w| w.message.contains("never reached") || w.message.contains("adds nothing"))
            .map(|w| w.path.clone())
            .collect();
        let kept: Vec<String> = allowed.iter().enumerate()
            .filter(|(at, _)| !useless.contains(&format!("egress.allowedHosts[{at}]")))
            .map(|(_, entry)| entry.clone())
            .collect();
        let (before, after) = (testing::grant(&block(&allowed)), testing::grant(&block(&kept)));
        for host in ["a.test", "b.a.test", "c.b.a.test", "d.a.test", "198.51.100.7", "198.51.100.8", "198.51.1.1"] {
            for port in [80, 443, 22, 25] {
                let target = testing::target(&format!("{host}:{port}"));
                let decided = |grant| crate::decide(grant, &target).is_ok();
                prop_assert_eq!(decided(&before), decided(&after), "{} {:?} {:?}", target, allowed, kept);
            }
        }
    }
}
