//! just-bash.

use super::*;

#[test]
fn v147_just_bash_keeps_origins_paths_and_methods_where_they_can_be_seen() {
    assert_eq!(
        kept(
            System::JustBash,
            "allowedUrlPrefixes:\n  - http://api.example.com/v1\n  - http://api.example.com/v2/\n  - \
             {url: 'http://[2001:4860::1]:8080', methods: [POST]}\n"
        ),
        json!({
            "allowedHosts": ["api.example.com:80", "[2001:4860::1]:8080"],
            "rules": [
                {"host": "api.example.com:80", "http": {"methods": ["GET", "HEAD"], "pathPrefixes": ["/v1", "/v2/"]}},
                {"host": "[2001:4860::1]:8080", "http": {"methods": ["POST"]}},
            ],
        })
    );
    let all = "allowedMethods: [GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS]";
    assert_eq!(
        kept(
            System::JustBash,
            &format!(
                "network:\n  allowedUrlPrefixes: ['https://A.test/', 'https://b.test:8443']\n  {all}\n"
            )
        ),
        json!({
            "allowedHosts": ["a.test:443", "b.test:8443"],
            "rules": [{"host": "b.test:8443", "tls": "require"}],
        })
    );
    for source in ["{}", "allowedUrlPrefixes: []"] {
        assert_eq!(
            kept(System::JustBash, source),
            json!({"allowedHosts": []}),
            "{source}"
        );
    }
    assert_eq!(
        kept(
            System::JustBash,
            "dangerouslyAllowFullInternetAccess: true\n"
        ),
        json!({"defaultAction": "allow"})
    );
}

#[test]
fn v147_just_bash_requests_are_judged_as_there() {
    let source = "allowedUrlPrefixes: ['http://a.test/v1', 'http://b.test/v1/', 'http://c.test']";
    let block = kept(System::JustBash, source);
    let grant = testing::compile(&json!({ "egress": block }).to_string(), "{}").unwrap();
    for (host, method, path, expected) in [
        ("a.test", "GET", "/v1", true),
        ("a.test", "HEAD", "/v1/x?q=1", true),
        ("a.test", "GET", "/v10", false),
        ("a.test", "POST", "/v1", false),
        ("b.test", "GET", "/v1", false),
        ("b.test", "GET", "/v1/", true),
        ("a.test", "GET", "/v1/%2e%2e/x", false),
        ("a.test", "GET", "/v1/a%2fb", false),
        ("a.test", "GET", "/v1/a%5cb", false),
        ("a.test", "GET", "/v1/a%3bb", false),
        ("a.test", "GET", "/v1/%252f", false),
        ("a.test", "GET", "/v1/a;b", false),
        ("a.test", "GET", "/v1/a\\b", false),
        ("a.test", "GET", "/v1/../x", false),
        ("c.test", "GET", "/anything", true),
        ("c.test", "DELETE", "/anything", false),
    ] {
        let permit = crate::decide(&grant, &testing::target(&format!("{host}:80"))).unwrap();
        assert_eq!(
            permit.judge_http(method, path).is_ok(),
            expected,
            "{method} {host}{path}"
        );
    }
}

#[test]
fn v147_just_bash_refuses() {
    for entry in [
        "https://a.test/?q=1",
        "https://a.test/#f",
        "http://a.test/v1?x",
        "ftp://a.test",
        "a.test",
        "http://u@a.test",
        "http://a.test/a%2fb",
        "http://a.test/a;b",
        "http://a.test/a\\b",
        "http://a.test/../b",
        "http://",
        "http://a.test:0",
        "http://127.1/",
        "http://bücher.example",
        "http://a.test./",
        "http://a.test:443/",
        "http://*.a.test/",
        "",
    ] {
        let source = format!("allowedUrlPrefixes:\n  - http://ok.test\n  - {entry:?}\n");
        let found = refused(System::JustBash, &source);
        assert_eq!(found.len(), 1, "{entry}: {found:?}");
        assert!(
            found[0].starts_with("3:5: allowedUrlPrefixes[1]"),
            "{entry}: {found:?}"
        );
    }
    // Inside TLS neither methods nor paths can be held.
    for (source, what) in [
        ("allowedUrlPrefixes: ['https://a.test']", "its methods"),
        (
            "allowedUrlPrefixes: [{url: 'https://a.test/v1', methods: [GET]}]",
            "its methods and path",
        ),
        (
            "allowedUrlPrefixes: [{url: 'http://a.test', transform: [{headers: {}}]}]",
            "transform",
        ),
        (
            "allowedUrlPrefixes: ['http://a.test/a', {url: 'http://a.test/b', methods: [POST]}]",
            "other methods",
        ),
        (
            "allowedUrlPrefixes: ['http://a.test:81', 'https://a.test:81']",
            "http and https",
        ),
        ("allowedMethods: [BREW]", "BREW"),
        ("allowedHosts: [a.test]", "allowedHosts"),
    ] {
        let found = refused(System::JustBash, source);
        assert!(
            found.iter().any(|fault| fault.contains(what)),
            "{source}: {found:?}"
        );
    }
}

#[test]
fn v147_just_bash_is_widened_only_when_told_to() {
    let told = Choices {
        role: None,
        widen: true,
    };
    let source = "allowedUrlPrefixes: ['https://a.test/v1/']";
    let imported = import(System::JustBash, source, &told).unwrap();
    assert_eq!(
        imported.document.egress.to_value(),
        json!({"allowedHosts": ["a.test:443"]})
    );
    assert!(
        imported
            .notes
            .iter()
            .any(|note| note.message.contains("methods and path")),
        "{:?}",
        imported.notes
    );
}
