#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn service_names() {
    for good in [
        "cache",
        "s3",
        "cache:main",
        "a.b_c-d",
        "0x",
        &"a".repeat(63),
    ] {
        assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
    }
    for bad in [
        "",
        ":",
        "cache:",
        ":main",
        "a:b:c",
        "Cache",
        ".a",
        "-a",
        "_a",
        "a/b",
        "a b",
        "\u{e4}",
        &"a".repeat(64),
    ] {
        assert!(ServiceName::parse(bad).is_err(), "{bad:?}");
    }
    let named = ServiceName::parse("cache:main").unwrap();
    assert_eq!((named.base(), named.binding()), ("cache", Some("main")));
}

#[test]
fn method_prefixes_match_whole_segments() {
    for (prefix, path, covered) in [
        ("/pkg.Cache", "/pkg.Cache/Get", true),
        ("/pkg.Cache", "/pkg.Cache", true),
        ("/pkg.Cache", "/pkg.CacheX/Get", false),
        ("/pkg.Cache/", "/pkg.Cache/Get", true),
        ("/pkg.Cache/", "/pkg.Cache", false),
        ("/pkg.Cache/Get", "/pkg.Cache/GetAll", false),
        ("/pkg.Cache", "/pkg.Cache/../pkg.Admin/Drop", false),
        ("/pkg.Cache", "/pkg.Cache/%2e%2e/pkg.Admin/Drop", false),
        ("/pkg.Cache", "/pkg.Cache//Get", false),
        ("/pkg.Cache", "/pkg.Cache/Get?x", false),
        ("/pkg.Cache", "/pkg.Cache%2fGet", false),
        ("/pkg.Cache", "/PKG.Cache/Get", false),
        ("/pkg.Cache", "pkg.Cache/Get", false),
        ("/pkg.Cache", "", false),
    ] {
        assert_eq!(
            MethodPrefix::parse(prefix).unwrap().covers(path),
            covered,
            "{prefix} {path}"
        );
    }
    for bad in [
        "", "/", "a", "//", "/a//b", "/a/./b", "/..", "/a?b", "/a#b", "/a%2fb", "/a b", "/a\\b",
    ] {
        assert!(MethodPrefix::parse(bad).is_none(), "{bad:?}");
    }
}

#[test]
fn service_urls() {
    for (text, shown) in [
        ("unix:///run/cache.sock", "unix:///run/cache.sock"),
        ("tcp://127.0.0.1:6379", "tcp://127.0.0.1:6379"),
        ("tcp://localhost:6379", "tcp://127.0.0.1:6379"),
        ("tcp://[::1]:6379", "tcp://[::1]:6379"),
        ("tls://db.example.com:5432", "tls://db.example.com:5432"),
        ("tls://10.0.0.1:5432", "tls://10.0.0.1:5432"),
    ] {
        let url = ServiceUrl::parse(text).unwrap();
        assert_eq!(url.to_string(), shown);
        assert_eq!(ServiceUrl::parse(shown).unwrap(), url);
    }
    for bad in [
        "",
        "cache",
        "unix://",
        "unix://run/x",
        "unix:///",
        "unix:///run/../etc/x",
        "unix:///run/x/",
        "unix:///run//x",
        "unix:///@abstract\0",
        "unix:///a%2fb",
        "unix:@x",
        "tcp://cache:6379",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.1:80",
        "tls://x",
        "tls://u@x:1",
        "http://127.0.0.1:80",
        "TCP://127.0.0.1:80",
    ] {
        assert!(ServiceUrl::parse(bad).is_err(), "{bad:?}");
    }
    assert!(ServiceUrl::parse(&format!("unix:///{}", "a".repeat(107))).is_err());
}

#[test]
fn health_is_written_as_it_is_read() {
    for text in [
        "connect",
        "none",
        "grpc",
        "grpc:pkg.Cache",
        "redis",
        "postgres",
        "/",
        "/minio/health?live=1",
    ] {
        let health = crate::Health::parse(text).unwrap();
        assert_eq!(health.to_string(), text);
    }
    for text in [
        "",
        "tcp",
        "http",
        "grpc:",
        "GRPC",
        "/a b",
        "/a#b",
        "/a\r\nX: y",
        "healthz",
    ] {
        assert_eq!(crate::Health::parse(text), None, "{text:?}");
    }
}
