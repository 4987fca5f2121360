#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use sluicegate_policy::Denial;

use super::{LONGEST_BLANK, LONGEST_LINE, LONGEST_METHOD, Step, first_line};

#[test]
fn http_is_told_by_its_first_line() {
    assert_eq!(first_line(b"GET / HTTP/1.1\r\nHost: x\r\n"), Step::Http);
    assert_eq!(first_line(b"GET / HTTP/1.0\n"), Step::Http);
    assert_eq!(first_line(b"GET / HT"), Step::Hold);
    assert_eq!(first_line(b"\r\n\r\nGET / HTTP/1.1\r\n"), Step::Http);
    assert_eq!(first_line(b"\r\n"), Step::Hold);
    for blank in [" \r\n", "\r\n \n", "\t\n \x0b\r\n "] {
        let request = format!("{blank}GET / HTTP/1.1\r\n");
        assert_eq!(first_line(blank.as_bytes()), Step::Hold, "{blank:?}");
        assert_eq!(first_line(request.as_bytes()), Step::Http, "{blank:?}");
        let other = format!("{blank}EHLO me\r\n");
        assert_eq!(first_line(other.as_bytes()), Step::Open, "{blank:?}");
    }
    assert_eq!(first_line(b"GET / HTTP/1.2\r\n"), Step::Http);
    assert_eq!(first_line(b"GET / HTTP/1.1 \r\n"), Step::Http);
    assert_eq!(first_line(b"get /old\r\n"), Step::Http);
    assert_eq!(first_line(b"GET\t/\tHTTP/1.1\r\n"), Step::Http);
    for gap in [0x0b, 0x1c, 0x1f, 0x85, 0xa0] {
        let line = [b"GET".as_slice(), &[gap], b"/ HTTP/1.1\r\n"].concat();
        assert_eq!(first_line(&line), Step::Http, "{gap:#x}");
        let line = [&[gap], b"GET / HTTP/1.1\r\n".as_slice()].concat();
        assert_eq!(first_line(&line), Step::Http, "{gap:#x}");
    }
    assert_eq!(first_line(b"GET /\rHTTP/1.1\r\n"), Step::Http);
    assert_eq!(first_line(b"_X / HTTP/1.1\r\n"), Step::Http);
    let long = [&[b'M'; 200][..], b" / HTTP/1.1\r\n"].concat();
    assert_eq!(first_line(&long), Step::Http);
    assert_eq!(first_line(&[b'M'; 200]), Step::Hold);
    assert_eq!(first_line(&[b'*'; 300]), Step::Forward);
    assert_eq!(first_line(&[b'M'; LONGEST_METHOD]), Step::Hold);
    let cut = Step::Cut(Denial::UnsupportedProtocol);
    assert_eq!(first_line(b"PRI * HTTP/2.0\r\n\r\n"), cut);
    assert_eq!(first_line(b"PRI * HTTP/2.0\n"), cut);
    assert_eq!(first_line(b"PRI * HTTP/2.0"), Step::Hold);
    assert_eq!(first_line(b"\xff\0\0\x08"), Step::Open);
}

/// What nginx, HAProxy and Node serve for the host that it names, or that a Host behind it names.
#[test]
fn what_a_lenient_server_takes_for_a_request_is_one() {
    for line in [
        "GET HTTP://evil.test/secret",
        "GET ws://evil.test/secret",
        "GET a://evil.test/secret",
        "GET a+b-c.1://evil.test/",
        "GET  http://evil.test/secret",
        "GET \t /secret",
        " GET /secret",
        "PLAY / RTSP/1.1",
        "SOURCE / ICE/1.0",
        "DESCRIBE  *  rtsp/1.0",
        "OPTIONS rtsp://host.test/ RTSP/1.0",
        "REGISTER sip:host.test SIP/2.0",
        "M-SEARCH * HTTP/1.1",
        "PROPFIND /x",
        "PURGE /",
        "GET *",
        "OPTIONS *",
        "get\x0b\x0c/x",
        "GET secret",
        "POST secret",
        "DELETE secret 1",
        "CONNECT evil.test:443",
        "CONNECT  [2001:db8::1]:443",
        "LIST *",
        "KEYS *",
        "get /key",
        "003agit-upload-pack /repo HTTP/1.1",
        "MULTI HTTP/",
    ] {
        for end in ["\n", "\r\n", " \r\n", "\r\nHost: evil.test\r\n\r\n"] {
            let bytes = format!("{line}{end}");
            assert_eq!(first_line(bytes.as_bytes()), Step::Http, "{bytes:?}");
        }
    }
}

#[test]
fn what_clients_of_other_protocols_begin_with_is_none() {
    for line in [
        "SSH-2.0-OpenSSH_9.2p1 Debian-2",
        "SSH-2.0-client its/1.0",
        "EHLO me",
        "HELO x",
        "LHLO x.test",
        "USER x",
        "NICK x",
        "USER a 0 * :b",
        "CAP LS 302",
        "*1\r\n$4\r\nPING",
        "*2\r\n$3\r\nGET\r\n$2\r\n/x",
        "PING",
        "QUIT",
        "CONNECT {\"verbose\":false}",
        "CONNECT",
        "SUB a.* 1",
        "AUTH secret",
        "AUTH PLAIN dGVzdA==",
        "a001 LOGIN a b",
        "a001 LIST \"\" *",
        "CAPABILITY",
        "get key",
        "get users/1 users/2",
        "gets a b/1.5 c d",
        "set key 0 0 5",
        "stats items",
        "version",
        "HELLO",
        "HELLO 3",
        "MODE READER",
        "LIST ACTIVE *",
        "MULTI",
        "STOMP",
        "CLIENT libcurl 7.88.1",
        "STARTTLS",
        "STLS",
        "status",
        "-B 192.0.2.0/24",
        "n 192.0.2.0/24",
        "example.com",
        "stats.count 12.5 1700000000",
        "/gopher/path",
        "1/menu\tquery",
        "/W finger",
        "finger",
        "@RSYNCD: 31.0",
        "<stream:stream>",
        "{\"id\":1}",
    ] {
        for end in ["\n", "\r\n", "\r\nGET / HTTP/1.1\r\n"] {
            let bytes = format!("{line}{end}");
            assert_eq!(first_line(bytes.as_bytes()), Step::Open, "{bytes:?}");
        }
    }
}

/// Twisted parts words at a line end of LF alone, too, and serves this; Node serves a CONNECT to nowhere.
#[test]
fn a_method_without_a_target_may_be_a_request() {
    for (line, expected) in [
        ("GET\n/secret HTTP/1.1\r\n", Step::Http),
        (" POST \n/secret HTTP/1.1\r\n", Step::Http),
        ("GET\r\n/secret HTTP/1.1\r\n", Step::Open),
        ("POST\r\n", Step::Open),
        ("get\n", Step::Open),
        ("CONNECT\naccept-version:1.2\n", Step::Open),
        ("PING\n", Step::Open),
        ("CONNECT \r\n", Step::Http),
        ("CONNECT  \n", Step::Http),
        ("CONNECT\r\n", Step::Open),
    ] {
        assert_eq!(first_line(line.as_bytes()), expected, "{line:?}");
    }
}

/// Lengths at the head of binary messages (MySQL's login, Minecraft's handshake, gzip's mark) that are white space somewhere.
#[test]
fn what_begins_with_a_gap_and_no_word_goes_at_once() {
    for gap in [b' ', b'\t', 0x0b, 0x0c, b'\r', 0x1c, 0x1f, 0x85, 0xa0] {
        assert_eq!(first_line(&[gap]), Step::Hold, "{gap:#x}");
        assert_eq!(first_line(&[gap, gap, b'M']), Step::Hold, "{gap:#x}");
        for (next, expected) in [
            (0, Step::Forward),
            (1, Step::Forward),
            (0x8b, Step::Forward),
            (0xa1, Step::Open),
            (b'(', Step::Open),
            (b'/', Step::Open),
        ] {
            let told = [gap, next].escape_ascii().to_string();
            assert_eq!(first_line(&[gap, next]), expected, "{told}");
            assert_eq!(first_line(&[gap, gap, b'M', next]), expected, "{told}");
        }
    }
}

/// git's own protocol has no line end, and a path where a request has its target.
#[test]
fn git_goes_as_soon_as_its_line_is_whole() {
    for command in ["git-upload-pack", "git-receive-pack", "git-upload-archive"] {
        let line = format!("0033{command} /project.git\0host=a.test\0\0version=2\0");
        let zero = line.find('\0').unwrap();
        for (at, _) in line.char_indices() {
            let expected = if at > zero { Step::Forward } else { Step::Hold };
            let part = line.get(..at).unwrap();
            assert_eq!(first_line(part.as_bytes()), expected, "{part:?}");
        }
        assert_eq!(first_line(line.as_bytes()), Step::Forward);
    }
    for other in [
        "0033git-upload-pack /x\n\0",
        "003git-upload-pack /x\0\n",
        "0033git-upload-packs /x\0\n",
        "GET /x\0\n",
    ] {
        assert_eq!(first_line(other.as_bytes()), Step::Http, "{other:?}");
    }
}

/// LDAP's binds of several lengths and numbers, Hadoop's RPC, OPC UA, and lines that pretend to be one of these. Each as long as it must
/// be, and from there on the same, whatever comes behind it.
#[test]
fn a_control_byte_before_any_target_lets_a_line_go() {
    for line in [
        b"0\x0c\x02".as_slice(),
        b"0 \x02",
        b"0\x1f\x02",
        b"hrpc\t\0",
        b"HELF \0",
        b"ACKF\x1c\0",
        b" -\x0c@\0",
        b"003agit-upload-pack x\0",
        b"PURGE x\0",
        b"PURGE x y\x7f",
        b"CONNECT {\0",
        b"get \x01",
        b"G\0",
        b"\0",
        b"\r\n\0",
        b"\x80",
        b" \x9f",
        b"x y RTSP/\0",
    ] {
        let last = line.len() - 1;
        let told = line.escape_ascii();
        assert_eq!(first_line(line.get(..last).unwrap()), Step::Hold, "{told}");
        for behind in ["", " HTTP/1.1\r\n", "\r\n", " /\n"] {
            let bytes = [line, behind.as_bytes()].concat();
            assert_eq!(first_line(&bytes), Step::Forward, "{told}{behind:?}");
        }
    }
    // What has said one is waited for and judged, for whatever methods that makes a request; and so is a line without such a byte.
    for (bytes, expected) in [
        (b"GET \0".as_slice(), Step::Hold),
        (b"GET \0\n", Step::Http),
        (b"GET /x\0\r\n", Step::Http),
        (b"CONNECT \0\r\n", Step::Http),
        (b"x /\0", Step::Hold),
        (b"x /\0\r\n", Step::Http),
        (b"x *\0\r\n", Step::Http),
        (b"x a://\0\r\n", Step::Http),
        (b"x y HTTP/\0", Step::Hold),
        (b"x y HTTP/1.1\0\r\n", Step::Http),
        (b"x y RTSP/1.0\0", Step::Hold),
        (b"x y RTSP/1.0\0\r\n", Step::Http),
        (b"GET\n\0", Step::Http),
        (b"x y\n\0", Step::Open),
        (b"G(\0", Step::Open),
        (b"\xff\0", Step::Open),
    ] {
        assert_eq!(first_line(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn nothing_is_held_for_ever() {
    assert_eq!(first_line(&[b'\n'; LONGEST_BLANK]), Step::Hold);
    assert_eq!(first_line(&[b'\n'; LONGEST_BLANK + 1]), Step::Http);
    let long = [b"GET /".as_slice(), &vec![b'a'; LONGEST_LINE]].concat();
    assert_eq!(first_line(&long), Step::Http);
    let binary = [b"\xff".as_slice(), &vec![b'a'; LONGEST_LINE]].concat();
    assert_eq!(first_line(&binary), Step::Open);
    let late = [b"x ".as_slice(), &vec![b'a'; LONGEST_LINE], b"\0"].concat();
    assert_eq!(first_line(&late), Step::Http);
}

/// Lines as clients, servers of other protocols and attackers write them, some of them very long.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "GET",
        "get",
        "\r\n",
        "\n",
        " ",
        "\t",
        "/",
        "HTTP/1.1",
        "PRI",
        "*",
        "HTTP/2.0",
        "Host: a",
        "\0",
        "x",
        "PROXY",
        "RTSP/1.0",
        "a://b",
        "QUIT",
        "\r\n\r\n\0\r\nQUIT\n",
        "0033git-upload-pack ",
        "\x01",
        "PURGE ",
    ]);
    let part = prop_oneof![
        6 => word.prop_map(|word| word.as_bytes().to_vec()),
        1 => (any::<u8>(), 0..300_usize).prop_map(|(byte, times)| vec![byte; times]),
        1 => Just(vec![b'a'; LONGEST_LINE - 3]),
    ];
    prop::collection::vec(part, 0..9).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn splitting_never_changes_the_verdict(bytes in bytes(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = first_line(&bytes);
        for cut in cuts {
            let part = bytes.get(..cut.index(bytes.len() + 1)).unwrap_or_default();
            let early = first_line(part);
            prop_assert!(early == Step::Hold || early == whole, "{:?} then {:?}: {}", early, whole, part.escape_ascii());
        }
    }
}
