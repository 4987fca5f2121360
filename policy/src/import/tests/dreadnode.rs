//! Dreadnode.

use super::*;

#[test]
fn v145_dreadnode_accepts() {
    for (entry, expected) in [
        ("EXAMPLE.com", "example.com"),
        ("*.Internal.corp", "*.internal.corp"),
        ("10.20.0.0/16", "10.20.0.0/16"),
        ("1.2.3.4", "1.2.3.4"),
        ("::1", "[::1]"),
        ("2001:DB8::/32", "[2001:db8::/32]"),
        ("tcp://Target.example.com:443", "target.example.com:443"),
        ("tcp://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ("tcp://*.example.com:443", "*.example.com:443"),
        ("tcp://192.0.2.7:22", "192.0.2.7:22"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("  spaced.example.com\t", "spaced.example.com"),
    ] {
        let source = json!({"egress": {"allow": [entry]}}).to_string();
        assert_eq!(
            kept(System::Dreadnode, &source),
            json!({"allowedHosts": [expected]}),
            "{entry}"
        );
    }
}

#[test]
fn v146_dreadnode_refuses() {
    for entry in [
        "10.20.0.1/16",
        "1.2.3.4/x",
        "tcp://10.0.0.0/8:443",
        "tcp://h.example.com",
        "tcp://h.example.com:0",
        "tcp://u@h.example.com:1",
        "*",
        "*.com",
        "a.*.com",
        "localhost",
        "foo.example.com.",
        "https://x.example.com",
        "x.example.com/p",
        "x.example.com:443",
        "a b.example.com",
        "",
        "  ",
        "_dmarc.example.com",
        "bücher.example",
        "-a.example.com",
        "2130706433",
        "a..b.com",
        "tcp://h.example.com:65536",
        "tcp://h.example.com:+1",
        "tcp://localhost:80",
        "tcp://[h.example.com]:80",
        "*.*.example.com",
        "xn--a.example",
        "[::1]",
        // Stricter than the source.
        "127.1",
        "0x7f.0.0.1",
        "fe80::1%eth0",
    ] {
        let source = format!("allow:\n  - ok.example.com\n  - {entry:?}\n");
        let found = refused(System::Dreadnode, &source);
        assert_eq!(found.len(), 1, "{entry}: {found:?}");
        assert!(
            found[0].starts_with("3:5: allow[1]: ") && found[0].contains(&format!("{entry:?}")),
            "{found:?}"
        );
    }
    let many = |count: usize| {
        let list: Vec<String> = (0..count).map(|i| format!("h{i}.example.com")).collect();
        json!({ "allow": list }).to_string()
    };
    assert_eq!(
        kept(System::Dreadnode, &many(50))["allowedHosts"]
            .as_array()
            .unwrap()
            .len(),
        50
    );
    assert!(refused(System::Dreadnode, &many(51))[0].contains("more than 50"));
}

#[test]
fn v146_dreadnode_absent_inherits_and_null_is_nothing() {
    assert_eq!(
        kept(System::Dreadnode, "egress: {}\n"),
        json!({}),
        "absent: inherit"
    );
    for source in ["egress: {allow: null}\n", "allow: []\n", "allow:\n"] {
        assert_eq!(
            kept(System::Dreadnode, source),
            json!({"allowedHosts": []}),
            "{source}"
        );
    }
}
