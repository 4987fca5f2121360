//! Inputs nobody here invented, end to end.

use data_encoding::BASE64;
use e2e::raw::{End, read_head};
use e2e::{RawOrigin, corpus};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::lab::{Lab, apart, settings};
use crate::sandbox::Sandbox;
use crate::tap::{Mode, Tap, read_all};

fn entries(folder: &std::path::Path, file: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

#[test]
fn live_hellos_pass_whole_or_not_at_all() {
    let Some(folder) = corpus::folder("clienthello-live") else {
        return;
    };
    let manifest = entries(&folder, "manifest.json");
    assert!(manifest.len() >= 109);
    apart(async {
        let lab = Lab::start(settings()).await;
        let names = manifest.iter().filter_map(|entry| entry["sni"].as_str());
        let names = names.chain(["other.test"]);
        let hosts: Vec<String> = names.map(|name| format!("{name}:*")).collect();
        let rules: Vec<Value> = hosts
            .iter()
            .map(|host| json!({"host": host, "tls": "require"}))
            .collect();
        let egress =
            json!({"allowedHosts": hosts, "allowedAddresses": ["127.0.0.0/8"], "rules": rules});
        let session = lab.sandbox(json!({"egress": egress})).await;
        lab.dns.point("other.test");
        for entry in &manifest {
            let bytes = std::fs::read(folder.join(entry["file"].as_str().unwrap())).unwrap();
            if let Some(name) = entry["sni"].as_str() {
                lab.dns.point(name);
                hello(&session, name, &bytes, true).await;
            }
            hello(&session, "other.test", &bytes, false).await;
        }
    });
}

async fn hello(session: &Sandbox, name: &str, bytes: &[u8], right: bool) {
    let tap = Tap::start(Mode::Silent).await;
    let mut wire = session.tunnel(&format!("{name}:{}", tap.port())).await;
    wire.send(bytes).await;
    if right {
        tap.receives(bytes, name).await;
    } else {
        wire.cut().await;
        drop(wire);
        tap.got_nothing(name).await;
    }
}

#[test]
fn coding_mutations_are_refused_or_forwarded_in_one_form() {
    let Some(folder) = corpus::folder("smuggler-te-mutations") else {
        return;
    };
    let mutations = entries(&folder, "mutations.json");
    assert!(mutations.len() >= 1703);
    apart(async {
        let lab = Lab::start(settings()).await;
        let plain = lab.plain_target();
        let start = format!(
            "POST http://{plain}/mutant HTTP/1.1\r\nHost: {plain}\r\n{}",
            lab.session.credential()
        );
        let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        let (mut refused, mut served) = (0, 0);
        for entry in &mutations {
            let gadget = BASE64
                .decode(entry["gadget_b64"].as_str().unwrap().as_bytes())
                .unwrap();
            // Read as chunked, the content is empty and the rest a request to be refused; read as none, it is no request.
            let bytes = [start.as_bytes(), &gadget, b"\r\n\r\n0\r\n\r\n", smuggled].concat();
            let mut wire = lab.session.dial().await;
            wire.send(&bytes).await;
            match wire.reply().await.status() {
                400 => refused += 1,
                200 => served += 1,
                other => panic!("{other} to {}", gadget.escape_ascii()),
            }
        }
        assert!(
            refused > 1000 && served > 0,
            "{refused} refused, {served} served"
        );
        // Every byte that went up reads as whole requests of one spelling, one for each that was served.
        let visits = lab.plain.visits();
        let requests: Vec<_> = visits
            .iter()
            .flat_map(|visit| read_all(&visit.bytes))
            .collect();
        assert_eq!(requests.len(), served);
        for request in requests {
            assert!(
                request.line.starts_with("POST /mutant ") && request.body.is_empty(),
                "{request:?}"
            );
            assert!(request.values("x-smuggled").is_empty(), "{request:?}");
            let letters =
                |name: &str| -> String { name.chars().filter(char::is_ascii_alphabetic).collect() };
            let framing = request
                .fields
                .iter()
                .filter(|(name, _)| letters(name) == "transferencoding");
            assert!(
                framing.clone().count() <= 1
                    && framing.clone().all(|(_, value)| value == "chunked"),
                "{request:?}"
            );
        }
    });
}

/// Answers that llhttp takes and we do not, and why.
const STRICTER: &[(&str, &str)] = &[
    ("RTSP response", "not HTTP"),
    ("ICE response", "not HTTP"),
    ("HTTP version 0.9", "a version without framing"),
    (
        "HTTP 101 response with Upgrade and Content-Length header",
        "nobody asked for it",
    ),
    (
        "HTTP 101 response with Upgrade and Transfer-Encoding header",
        "nobody asked for it",
    ),
    (
        "`chunked` before other transfer-encoding",
        "only chunked itself is one way to read",
    ),
    (
        "multiple transfer-encoding where chunked is not the last one",
        "only chunked itself is one way to read",
    ),
    (
        "`chunkedchunked` transfer-encoding does not enable chunked enconding",
        "only chunked itself is one way to read",
    ),
];
/// Answers that llhttp refuses and we take, and why. None goes on as it came: its head and framing are written anew.
const LAXER: &[(&str, &str)] = &[
    ("Only LFs present and no body", "a line may end in LF alone"),
    ("Only LFs present", "a line may end in LF alone"),
    ("No carriage ret", "a line may end in LF alone"),
    (
        "Trailing space on chunked body",
        "blanks behind a chunk's size are skipped",
    ),
    (
        "No extension after semicolon",
        "extensions are dropped unread",
    ),
];
/// Answers that end before they said they would: their head goes on, unless the end is known with it.
const CUT_SHORT: &[&str] = &[
    "Content-Length reset when no body is received",
    "Tabs in `Content-Length` (surrounding)",
    "Google 301",
    "HTTP 103 first, then 200",
    "Chunk extensions quoting",
];

/// The first status in these bytes that is not interim; 0 where there is none.
fn status_of(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let heads = text.split("HTTP/1.").skip(1);
    let mut statuses = heads.filter_map(|head| head.get(2..5)?.parse::<u16>().ok());
    statuses.find(|status| *status >= 200).unwrap_or(0)
}

#[test]
fn answers_are_read_as_llhttp_does_or_for_a_reason() {
    let Some(folder) = corpus::folder("llhttp-fixtures") else {
        return;
    };
    let mut vectors = entries(&folder, "vectors.json");
    vectors.retain(|entry| entry["meta"]["type"] == "response");
    assert!(vectors.len() >= 76);
    apart(async {
        let lab = Lab::start(settings()).await;
        lab.dns.point("raw.allowed.test");
        let session = lab.allowing(&["raw.allowed.test:*"]).await;
        let mut differing = Vec::new();
        for entry in &vectors {
            let name = entry["name"].as_str().unwrap();
            let bytes = entry["input_b64"].as_str().unwrap().as_bytes();
            let answer = completed(BASE64.decode(bytes).unwrap());
            let (told, end) = answered(&session, &answer).await;
            let (status, said) = (status_of(&told), status_of(&answer));
            let is = |known: &str| name == known || name.ends_with(&format!(" / {known}"));
            // 5: data after the end, which nobody reads; 22: an upgrade.
            let refused = !matches!(entry["error"][0].as_str(), None | Some("5" | "22"));
            let stricter = STRICTER.iter().any(|(known, _)| is(known));
            let laxer = LAXER.iter().any(|(known, _)| is(known));
            let cut = CUT_SHORT.iter().any(|known| is(known));
            // A body that turns out to be wrong is cut, however much of it had gone on.
            let good = if stricter || (refused && !laxer) {
                status == 502 || (refused && end == End::Reset)
            } else {
                (status == said && (cut || end == End::Fin)) || (cut && end == End::Reset)
            };
            if !good || (stricter && refused) || (laxer && !refused) {
                let shown = told.escape_ascii();
                differing.push(format!("{name}: {status} and {end:?} for {said}: {shown}"));
            }
        }
        assert!(differing.is_empty(), "{}", differing.join("\n"));
        for known in STRICTER.iter().chain(LAXER).map(|(known, _)| known) {
            let there = vectors.iter().filter_map(|entry| entry["name"].as_str());
            let found = there.filter(|name| name.ends_with(known)).count();
            assert!(found > 0, "{known} is no vector");
        }
    });
}

/// What a client gets where the upstream says this, and closes.
async fn answered(session: &Sandbox, answer: &[u8]) -> (Vec<u8>, End) {
    // A port of its own: no connection that idles is asked again.
    let origin = RawOrigin::start().await;
    let target = format!("raw.allowed.test:{}", origin.address.port());
    let mut wire = session.dial().await;
    let credential = session.credential();
    wire.send(format!(
        "GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n{credential}\r\n"
    ))
    .await;
    let mut far = origin.accept().await;
    read_head(&mut far).await;
    // What is refused at once is closed before it is out.
    let _ = far.write_all(answer).await;
    let _ = far.shutdown().await;
    wire.rest().await
}

/// The vectors are stored without their last line ends.
fn completed(mut bytes: Vec<u8>) -> Vec<u8> {
    let headed = |mark: &[u8]| bytes.windows(mark.len()).any(|part| part == mark);
    let whole = headed(b"\r\n\r\n") || headed(b"\n\n");
    let ends = bytes.ends_with(b"\r\n");
    match (whole, ends) {
        (_, true) => bytes.extend_from_slice(b"\r\n"),
        (false, false) => bytes.extend_from_slice(b"\r\n\r\n"),
        (true, false) => {}
    }
    bytes
}
