#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use crate::testing::corpus;
use HostError::{Character, EmptyLabel, Ipv6, NumericLast};
use TargetError::{Port, Userinfo};

fn authority(text: &str) -> Result<String, TargetError> {
    Target::from_authority(text).map(|target| target.to_string())
}

fn uri(text: &str) -> Result<String, TargetError> {
    Target::from_uri_authority(text, 80).map(|target| target.to_string())
}

#[test]
fn canonical_forms() {
    for (text, shown) in [
        ("API.allowed.test.:443", "api.allowed.test:443"),
        ("192.0.2.1:80", "192.0.2.1:80"),
        ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.1]:1"),
        ("a:65535", "a:65535"),
    ] {
        assert_eq!(authority(text).unwrap(), shown);
        assert_eq!(uri(text).unwrap(), shown);
    }
    assert_eq!(uri("plain.allowed.test").unwrap(), "plain.allowed.test:80");
    assert_eq!(uri("[::1]").unwrap(), "[::1]:80");
    assert!(Target::new(Host::parse("a").unwrap(), 0).is_none());
}

#[test]
fn v004_a_name_in_brackets() {
    assert_eq!(authority("[api.allowed.test]:443"), Err(Ipv6.into()));
    assert_eq!(authority("[192.0.2.1]:443"), Err(Ipv6.into()));
}

#[test]
fn v005_v006_userinfo() {
    for text in [
        "api.allowed.test@evil.test:443",
        "evil.test:443@api.allowed.test",
        "@a:1",
        "u:p@a:1",
    ] {
        assert_eq!(authority(text), Err(Userinfo), "{text}");
    }
    assert_eq!(uri("api.allowed.test@evil.test"), Err(Userinfo));
}

#[test]
fn v007_a_port_in_the_middle() {
    assert_eq!(authority("evil.test:443.allowed.test"), Err(Port));
    assert_eq!(uri("evil.test:443.allowed.test"), Err(Port));
}

#[test]
fn v015_delimiters() {
    for c in ['#', '?', '/', '\\', ';', ','] {
        for text in [
            format!("a{c}b.test:443"),
            format!("a.test{c}:443"),
            format!("{c}a.test:443"),
        ] {
            assert_eq!(authority(&text), Err(Character.into()), "{text:?}");
        }
        assert_eq!(authority(&format!("a.test:443{c}")), Err(Port));
    }
}

#[test]
fn v020_ports() {
    for port in [
        "",
        ":",
        ":0",
        ":65536",
        ":99999999999",
        ":+443",
        ":-1",
        ": 443",
        ":443 ",
        ":0443",
        ":0x1bb",
        ":https",
        ":443:80",
        ":\u{664}\u{664}\u{663}",
        ":\u{ff14}43",
        ":4_43",
        ":00",
    ] {
        assert_eq!(
            authority(&format!("api.allowed.test{port}")),
            Err(Port),
            "{port:?}"
        );
        assert_eq!(
            authority(&format!("[2001:db8::1]{port}")),
            Err(Port),
            "{port:?}"
        );
        assert_eq!(
            uri(&format!("api.allowed.test{port}")).is_ok(),
            port.is_empty(),
            "{port:?}"
        );
    }
}

#[test]
fn v023_other_spellings_of_an_address() {
    for text in [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "127.0.0.1.",
        "127.0.0.01",
        "0127.0.0.1",
    ] {
        assert_eq!(
            authority(&format!("{text}:80")),
            Err(NumericLast.into()),
            "{text}"
        );
        assert_eq!(Host::parse_bare(text), Err(NumericLast), "{text}");
    }
}

#[test]
fn v029_zones_and_other_ipv6_spellings() {
    for text in [
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "::1%x.allowed.test",
        "::1]",
        "[::1",
        "0:0:0:0:0:0:0:0:1",
        ":::",
        "::12345",
        "::ffff:127.0.0.01",
        "::ffff:127.1",
        "v1.x",
        "",
        " ::1",
    ] {
        assert_eq!(
            authority(&format!("[{text}]:443")),
            Err(Ipv6.into()),
            "{text}"
        );
        if text.contains(':') {
            assert_eq!(Host::parse_bare(text), Err(Ipv6), "{text}");
        }
    }
    assert!(authority("[::1]x:443").is_err());
    assert!(authority("x[::1]:443").is_err());
    assert!(authority("::1:443").is_err());
    assert_eq!(Host::parse_bare("::1").unwrap().to_string(), "[::1]");
    assert_eq!(Host::parse_bare("[::1]"), Err(Ipv6));
    assert_eq!(authority("..:1"), Err(EmptyLabel.into()));
}

/// Smokescreen's table. Ours is stricter: names in brackets, and anything it repairs, are refused.
#[test]
fn corpus_smokescreen_hostport() {
    let Some(text) = corpus("smokescreen-acl/hostport_new.json") else {
        return;
    };
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut accepted = 0;
    for case in &cases {
        let input = case["hostport"].as_str().unwrap();
        let Ok(target) = Target::from_authority(input) else {
            continue;
        };
        assert_eq!(
            case["err"], "",
            "{input:?} is an error there, and {target} here"
        );
        assert_eq!(
            u64::from(target.port()),
            case["port"].as_u64().unwrap(),
            "{input:?}"
        );
        let host = case["host"].as_str().unwrap().trim_end_matches('.');
        assert_eq!(
            Host::parse_bare(host).as_ref(),
            Ok(target.host()),
            "{input:?}"
        );
        accepted += 1;
    }
    assert!(accepted > 3, "{accepted} of {}", cases.len());
}

/// Every host of the WHATWG URL tests that we take as it stands is the host a browser would see.
#[test]
fn corpus_ada_wpt_url_hosts() {
    for file in [
        "ada-wpt/urltestdata.json",
        "ada-wpt/ada_extra_urltestdata.json",
    ] {
        let Some(text) = corpus(file) else {
            return;
        };
        let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let mut compared = 0;
        for case in cases.iter().filter(|case| case.is_object()) {
            let input = case["input"].as_str().unwrap();
            let Some(rest) = input.strip_prefix("http://") else {
                continue;
            };
            // The authority as a proxy would cut it out: up to the path, query or fragment.
            let authority = rest.split(['/', '?', '#']).next().unwrap();
            let Ok(target) = Target::from_uri_authority(authority, 80) else {
                continue;
            };
            // A failure elsewhere in the URL (its path has none) cannot come from the host we took.
            assert!(
                case["failure"].as_bool() != Some(true),
                "{file}: {input:?} fails there, {target} here"
            );
            let hostname = case["hostname"].as_str().unwrap();
            assert_eq!(
                Host::parse(hostname).as_ref(),
                Ok(target.host()),
                "{file}: {input:?}"
            );
            compared += 1;
        }
        assert!(compared > 5 || file.contains("extra"), "{file}: {compared}");
    }
}

/// SSRF tricks: what is not a plain name or literal is no target at all, and what is a name passes as that very name only.
#[test]
fn corpus_ssrf_req_filter_spellings() {
    let (Some(blocked), Some(allowed)) = (
        corpus("ssrf-req-filter/blockedUrls.json"),
        corpus("ssrf-req-filter/allowedUrls.json"),
    ) else {
        return;
    };
    let urls = |text: &str| -> Vec<String> { serde_json::from_str(text).unwrap() };
    let authority = |url: &str| {
        let rest = url.split_once("://").unwrap().1;
        rest.split(['/', '?', '#']).next().unwrap().to_owned()
    };
    let blocked = urls(&blocked);
    for url in &blocked {
        match Target::from_uri_authority(&authority(url), 80) {
            Err(_) => {}
            Ok(target) => match target.host() {
                Host::Ip(address) => assert!(
                    crate::classify(*address, &[]) != crate::AddressClass::Global,
                    "{url}"
                ),
                // A name is judged by what it resolves to; here it must be no address in disguise, nor another name.
                Host::Name(name) => {
                    assert!(name.as_str().parse::<IpAddr>().is_err(), "{url}");
                    assert!(
                        !name.as_str().ends_with(|c: char| c.is_ascii_digit()),
                        "{url}"
                    );
                    let spelled = authority(url).to_ascii_lowercase();
                    assert_eq!(spelled.split(':').next(), Some(name.as_str()), "{url}");
                }
            },
        }
    }
    assert!(blocked.len() > 40);
    let allowed = urls(&allowed);
    for url in &allowed {
        let target = Target::from_uri_authority(&authority(url), 443).unwrap();
        assert_eq!(target.host().to_string(), authority(url));
    }
    assert!(allowed.len() > 3);
}

/// Smokescreen's table of host and port: what it takes and we do too means the same; what we take beyond it, or not, is named.
#[test]
fn corpus_smokescreen_hostport_with_scheme() {
    let Some(text) = corpus("smokescreen-acl/hostport_with_scheme.json") else {
        return;
    };
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    // Bare IPv6 and raw Unicode are no URI authority (RFC 3986 §3.2.2); leading zeros are not how a port is written (row 20).
    let stricter = ["2001:DB8::1337", "\u{1f510}", "\u{2709}", ":007"];
    // An IPv6 literal without a port has the scheme's, as everything else has.
    let laxer = ["[2001:DB8::1337]"];
    for case in &cases {
        let hostport = case["hostport"].as_str().unwrap();
        let default = match case["scheme"].as_str().unwrap() {
            "http" => 80,
            "https" => 443,
            "smtp" => 25,
            _ => continue,
        };
        let theirs = case["err"] == "";
        match Target::from_uri_authority(hostport, default) {
            Ok(target) if theirs => {
                let host = case["host"].as_str().unwrap().trim_end_matches('.');
                let ours = target.host().to_string();
                assert_eq!(ours.trim_matches(['[', ']']), host, "{hostport}");
                assert_eq!(
                    u64::from(target.port()),
                    case["port"].as_u64().unwrap(),
                    "{hostport}"
                );
            }
            Ok(_) => assert!(laxer.contains(&hostport), "{hostport}"),
            Err(_) if theirs => {
                let named = stricter
                    .iter()
                    .any(|part| hostport.starts_with(part) || hostport.ends_with(part));
                assert!(named, "{hostport}");
            }
            Err(_) => {}
        }
    }
    assert!(cases.len() >= 17);
}

proptest::proptest! {
    #[test]
    fn what_is_taken_prints_to_itself(text in "\\PC{0,30}(:[0-9]{1,5})?") {
        if let Ok(target) = Target::from_authority(&text) {
            proptest::prop_assert_eq!(Target::from_authority(&target.to_string()), Ok(target));
        }
    }

    #[test]
    fn splits_never_panic(text in "[\\[\\]:@.a0-9%\u{e9}]{0,12}") {
        let _ = Target::from_authority(&text);
        let _ = Target::from_uri_authority(&text, 443);
        let _ = Host::parse_bare(&text);
    }
}
