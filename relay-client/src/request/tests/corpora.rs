//! Heads and streams nobody here invented.

use super::super::testing::{Dice, corpus, json};
use super::*;
use data_encoding::BASE64;

fn decoded(value: &serde_json::Value) -> Vec<u8> {
    BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// The same story at every cut in two, byte by byte, and in random pieces.
fn assert_steady(bytes: &[u8], expected: &Told, what: &str) {
    for at in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(&tell([head, tail]), expected, "{what}: cut at {at}");
    }
    assert_eq!(&tell(bytes.chunks(1)), expected, "{what}: byte by byte");
    assert_eq!(
        &tell(Dice::new(1).cut(bytes, 30)),
        expected,
        "{what}: random pieces"
    );
}

#[test]
fn every_real_proxy_client_is_accepted() {
    let Some(folder) = corpus("client-proxy-heads") else {
        return;
    };
    let heads = json(&folder, "heads.json");
    assert!(heads.len() >= 62);
    for entry in heads {
        let (client, head) = (
            entry["client"].as_str().unwrap(),
            entry["head"].as_str().unwrap().as_bytes(),
        );
        let told = tell([head]);
        assert_eq!((told.error, told.heads.len()), (None, 1), "{client}");
        assert_eq!(told.consumed, head.len(), "{client}");
        assert_steady(head, &told, client);
    }
}

#[test]
fn every_transfer_encoding_mutation_is_refused_or_plain() {
    let Some(folder) = corpus("smuggler-te-mutations") else {
        return;
    };
    let mutations = json(&folder, "mutations.json");
    assert!(mutations.len() >= 1703);
    let (mut refused, mut plain, mut inert) = (0, 0, 0);
    for entry in mutations {
        let gadget = decoded(&entry["gadget_b64"]);
        let head = [
            b"POST / HTTP/1.1\r\nHost: a.test\r\n",
            &gadget[..],
            b"\r\n\r\n",
        ]
        .concat();
        let told = tell([&head[..]]);
        let what = head.escape_ascii().to_string();
        assert_eq!(tell(head.chunks(1)), told, "{what}");
        match told.heads.first() {
            None => {
                assert!(told.error.is_some(), "{what}");
                refused += 1;
            }
            Some((.., Framing::Chunked)) => {
                let lines: Vec<_> = gadget
                    .split(|&b| b == b'\n')
                    .map(|l| l.trim_ascii_end().to_ascii_lowercase())
                    .collect();
                let exact = |l: &&Vec<u8>| {
                    matches!(
                        l.as_slice(),
                        b"transfer-encoding: chunked" | b"transfer-encoding:chunked"
                    )
                };
                assert_eq!(lines.iter().filter(exact).count(), 1, "{what}");
                assert!(
                    gadget
                        .iter()
                        .all(|b| b.is_ascii()
                            && (!b.is_ascii_control() || matches!(b, b'\r' | b'\n'))),
                    "{what}"
                );
                plain += 1;
            }
            // Nothing any reader takes for Transfer-Encoding may be left in a head without that framing.
            Some((.., framing)) => {
                assert_eq!(*framing, Framing::None, "{what}");
                let mut stream = RequestStream::new();
                let Event::Head(head) = stream.step(&head) else {
                    unreachable!()
                };
                for field in head.fields().filter(|f| !is_twin(f.name)) {
                    let letters: Vec<u8> = field
                        .name
                        .iter()
                        .filter(|b| b.is_ascii_alphabetic())
                        .copied()
                        .collect();
                    assert!(!letters.eq_ignore_ascii_case(b"transferencoding"), "{what}");
                }
                inert += 1;
            }
        }
    }
    println!("refused {refused}, plain {plain}, inert {inert}");
    assert!(refused > 1000);
}

/// Where we are stricter than llhttp on its own vectors: part of the name, what we say, and why.
const STRICTER: &[(&str, HeadError, &str)] = &[
    (
        "CRLF between requests",
        HeadError::RequestLine,
        "two empty lines before a request line; RFC 9112 §2.2 asks for one",
    ),
    (
        "Spaces in `Content-Length` (surrounding)",
        HeadError::ContentLength,
        "blanks that parsers treat differently",
    ),
    (
        "CONNECT with body",
        HeadError::ConnectContent,
        "bytes one reader takes for content and another for the tunnel",
    ),
    ("request with ICE", HeadError::Version, "not HTTP"),
    ("request with RTSP", HeadError::Version, "not HTTP"),
    (
        "PRI request HTTP2",
        HeadError::RequestLine,
        "what follows an HTTP/2 preface is no request",
    ),
    ("No HTTP version", HeadError::Version, "HTTP/0.9"),
    (
        "as last transfer-encoding",
        HeadError::TransferEncoding,
        "only chunked itself is one way to read",
    ),
    (
        "Fragment in URI",
        HeadError::Target,
        "no form of target has a fragment, RFC 9112 §3.2",
    ),
];
/// Where we let pass what llhttp refuses, and why.
const LAXER: &[(&str, &str)] = &[
    (
        "HTTP protocol and ANNOUNCE method",
        "any token is a method; which are allowed is policy",
    ),
    (
        "Invalid method",
        "any token is a method; which are allowed is policy",
    ),
];

#[test]
fn llhttp_vectors() {
    let Some(folder) = corpus("llhttp-fixtures") else {
        return;
    };
    let (mut both_refuse, mut both_accept, mut differ) = (0, 0, Vec::new());
    for entry in json(&folder, "vectors.json") {
        if entry["meta"]["type"] != "request" {
            continue;
        }
        let name = format!(
            "{} {}",
            entry["file"].as_str().unwrap(),
            entry["name"].as_str().unwrap()
        );
        // 5: data after `Connection: close`, which the library in charge of the connection sees to; 22, 23: pauses.
        let refused = !matches!(entry["error"][0].as_str(), None | Some("5" | "22" | "23"));
        let input = completed(&decoded(&entry["input_b64"]), refused);
        let told = tell([&input[..]]);
        assert_steady(&input, &told, &name);
        let stricter = STRICTER
            .iter()
            .any(|(part, error, _)| name.contains(part) && told.error == Some(*error));
        let laxer = LAXER.iter().any(|(part, _)| name.ends_with(part)) && told.error.is_none();
        match (refused, told.error.is_some()) {
            (true, true) => both_refuse += 1,
            (false, false) => both_accept += 1,
            (false, true) if stricter => {}
            (true, false) if laxer => {}
            _ => differ.push(format!(
                "{name}: {:?}, llhttp {}\n    {}",
                told.error,
                entry["error"],
                input.escape_ascii()
            )),
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(
        both_refuse >= 40 && both_accept >= 60,
        "{both_refuse} {both_accept}"
    );
}

/// Targets of `url.md`, and what each asks for: host and port, or a path of the server's own. `None` is refused: no form of
/// target has a fragment (RFC 9112 §3.2), userinfo and zones name nobody (RFC 9110 §4.2.4, RFC 6874).
const TARGETS: &[(&str, Option<&str>)] = &[
    ("Absolute URL", None),
    ("Relative URL", None),
    ("Failing on broken schema", None),
    ("Proxy request", Some("hostname:80")),
    ("Proxy request with port", Some("hostname:444")),
    ("Proxy IPv6 request", Some("[1:2::3:4]:80")),
    ("Proxy IPv6 request with port", Some("[1:2::3:4]:67")),
    ("IPv4 in IPv6 address", Some("[2001::109:101]:80")),
    ("Extra `?` in query string", Some("a.tbcdn.cn:80")),
    ("URL encoded space", Some("/toto.html")),
    ("URL fragment", None),
    ("Complex URL fragment", None),
    ("Complex URL from node.js url parser doc", None),
    (
        "Complex URL with basic auth from node.js url parser doc",
        None,
    ),
    ("Double `@`", None),
    ("Proxy basic auth with url encoded space", None),
    ("Proxy basic auth with unreserved chars", None),
    ("IPv6 address with Zone ID", None),
    (
        "IPv6 address with Zone ID, but `%` is not percent-encoded",
        None,
    ),
    ("Disallow tab in URL", None),
    ("Disallow form-feed in URL", None),
];

/// What a request for this target asks for, as `front/asked.rs` reads it; `None` where it is refused on the way.
fn asked_for(target: &[u8]) -> Option<String> {
    let head = [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let told = tell([&head[..]]);
    assert_steady(&head, &told, "a target");
    let (_, target, ..) = told.heads.first()?;
    let uri = http::Uri::try_from(target.as_slice()).ok()?;
    let Some(authority) = uri.authority() else {
        return Some(uri.path().to_owned());
    };
    let target = sluicegate_policy::Target::from_uri_authority(authority.as_str(), 80);
    target.ok().map(|target| target.to_string())
}

#[test]
fn llhttp_targets() {
    let Some(folder) = corpus("llhttp-fixtures") else {
        return;
    };
    let mut vectors = json(&folder, "vectors.json");
    vectors.retain(|entry| entry["file"] == "test/url.md");
    assert_eq!(vectors.len(), TARGETS.len());
    for entry in vectors {
        let name = entry["name"].as_str().unwrap();
        let known = TARGETS.iter().find(|(known, _)| *known == name);
        let (_, expected) = known.expect(name);
        let asked = asked_for(&decoded(&entry["input_b64"]));
        assert_eq!(asked.as_deref(), *expected, "{name}");
    }
}

/// Kinds of vectors that run nowhere, and why. Those of type `response` run end to end (`tests/tests/conformance/corpora.rs`),
/// since answers are read by a library.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "request-lenient-",
        "a reader that was told to take what it should refuse; ours cannot be told so",
    ),
    ("response-lenient-", "the same of answers"),
    (
        "request-finish",
        "what llhttp's own function says of an end of the stream; ends are other tests'",
    ),
    ("response-finish", "the same of answers"),
];

#[test]
fn every_llhttp_vector_runs_or_is_known_not_to() {
    let Some(folder) = corpus("llhttp-fixtures") else {
        return;
    };
    let vectors = json(&folder, "vectors.json");
    let mut left = 0;
    for entry in &vectors {
        let kind = entry["meta"]["type"].as_str().unwrap_or_default();
        let run = matches!(kind, "request" | "response") || entry["file"] == "test/url.md";
        let known = NOT_RUN.iter().any(|(start, _)| kind.starts_with(start));
        assert!(run != known, "{kind}: {}", entry["name"]);
        left += usize::from(known);
    }
    assert!(vectors.len() >= 272 && left <= 41, "{left}");
}

/// The vectors as their runner feeds them: with the last line break, which the corpus has lost, and with the Host that most
/// lack, since without one every HTTP/1.1 request is refused before the point of the vector is reached. Those cut short at the
/// fault llhttp finds early are completed, as whoever sent them could. The fragment some targets carry is not their point.
fn completed(input: &[u8], refused: bool) -> Vec<u8> {
    let end: &[u8] = if input.ends_with(b"\r\n") {
        b"\r\n"
    } else if refused {
        b"\r\n\r\n"
    } else {
        b""
    };
    let mut bytes = [input, end].concat();
    if let Some(at) = bytes.windows(4).position(|w| w == b"#hey") {
        bytes.drain(at..at + 4);
    }
    if bytes.windows(5).any(|w| w.eq_ignore_ascii_case(b"host:")) {
        return bytes;
    }
    const LINE: &[u8] = b" HTTP/1.1\r\n";
    let mut from = 0;
    while let Some(at) = bytes[from..].windows(LINE.len()).position(|w| w == LINE) {
        from += at + LINE.len();
        bytes.splice(from..from, *b"Host: h\r\n");
    }
    bytes
}
