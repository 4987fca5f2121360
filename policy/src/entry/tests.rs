#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn entries_read_and_print() {
    for (text, shown) in [
        ("api.example.com", "api.example.com"),
        ("API.example.com.", "api.example.com"),
        ("*.slack.com", "*.slack.com"),
        ("*.slack.com:*", "*.slack.com:*"),
        ("db.example.com:5432", "db.example.com:5432"),
        ("10.20.0.0/16:5432", "10.20.0.0/16:5432"),
        ("10.20.0.1", "10.20.0.1"),
        ("10.20.0.1/32:1", "10.20.0.1:1"),
        ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::/0]:*", "[::/0]:*"),
        // The same sockets, so the same entry.
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ("[::ffff:127.0.0.0/104]", "127.0.0.0/8"),
        ("[::ffff:0:0/96]", "0.0.0.0/0"),
        ("[64:ff9b::7f00:1]", "[64:ff9b::7f00:1]"),
        ("b\u{fc}cher.example", "xn--bcher-kva.example"),
        ("api\u{3002}example\u{ff0e}com", "api.example.com"),
    ] {
        let (entry, note) = Entry::parse(text).unwrap();
        assert_eq!(entry.to_string(), shown);
        assert_eq!(note.is_some(), !text.is_ascii(), "{text}");
        assert_eq!(Entry::parse(shown).unwrap().0, entry);
    }
}

#[test]
fn a_range_around_the_mapped_addresses_is_no_range_of_ipv6() {
    for text in ["[::/1]", "[::/64]", "[::/80]", "[::fffe:0:0/95]"] {
        let message = Entry::parse(text).unwrap_err().message;
        assert!(message.contains("IPv4-mapped"), "{text}: {message}");
    }
    for text in ["[::/96]", "[::fffe:0:0/96]", "[8000::/1]"] {
        assert!(Entry::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn entries_refused() {
    for text in [
        "",
        "*",
        "*:443",
        "a*b.*",
        "a.*.com",
        "*.*.com",
        "*com",
        "api.example.*",
        "**.a.com",
        "https://a.com",
        "a.com/p",
        "u@a.com",
        "a.com:",
        "a.com:0",
        "a.com:65536",
        "a.com:0443",
        "a.com:x",
        "a.com:80:90",
        " a.com",
        "a.com ",
        "a..com",
        ".a.com",
        "127.1",
        "0x7f.1",
        "010.0.0.0/8",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/08",
        "::1",
        "fd00::/8",
        "[fd00::/8",
        "[fe80::1%eth0]",
        "[10.0.0.1]",
        "[a.com]",
        "*.",
        "*.1.2.3.4",
        "-a.com",
    ] {
        assert!(Entry::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn breadth_by_the_public_suffix_list() {
    for (text, expected) in [
        ("*.com", Suffix::Public),
        ("*.co.uk", Suffix::Public),
        ("*.ck", Suffix::Public),
        ("*.kawasaki.jp", Suffix::Public),
        ("*.s3.amazonaws.com", Suffix::Private),
        ("*.github.io", Suffix::Private),
        ("*.amazonaws.com", Suffix::Shared),
        ("*.windows.net", Suffix::Shared),
        ("*.core.windows.net", Suffix::Shared),
        ("*.internal", Suffix::Unlisted),
        ("*.corp.internal", Suffix::None),
        ("*.example.com", Suffix::None),
        ("com", Suffix::None),
    ] {
        assert_eq!(Entry::parse(text).unwrap().0.breadth(), expected, "{text}");
    }
}
