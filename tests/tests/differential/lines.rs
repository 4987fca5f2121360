//! First lines that are no request, or hardly one: whatever the gateway takes them for, nobody serves by them what it did not judge.

use data_encoding::BASE64;
use e2e::tasks::until;
use e2e::{Ask, Session, World, corpus};
use serde_json::Value;

use crate::witness::{OTHER, Served, Witness, say};

/// What comes behind each: fields that name the other host, and a request for it.
const BEHIND: &str = "Host: evil.test\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";

/// Every way of putting these together that has a line to it.
fn written() -> Vec<Vec<u8>> {
    let methods = ["GET", "get", "PROPFIND", "PLAY", "SOURCE", "CONNECT"];
    let gaps = [" ", "  ", "\t"];
    let targets = [
        "/secret",
        "*",
        "http://evil.test/",
        "HTTP://evil.test/",
        "ws://evil.test/",
        "a+b-c.1://evil.test/",
        "evil.test:443",
        "secret",
    ];
    let versions = ["", " RTSP/1.1", " ICE/1.0", " FOO/1.1", " 1.1"];
    let mut lines = Vec::new();
    for (method, gap) in methods.iter().flat_map(|m| gaps.map(|gap| (m, gap))) {
        for target in targets {
            lines.extend(versions.map(|version| format!("{method}{gap}{target}{version}")));
        }
    }
    let blank = ["\r\nGET HTTP://evil.test/", "\nPLAY / RTSP/1.1"];
    let other = [
        "EHLO me",
        "SSH-2.0-x",
        "NICK x",
        "*1",
        "get key",
        "PING",
        "CONNECT ",
        "GET\n/secret HTTP/1.1",
        " \r\nGET /secret HTTP/1.1",
        "",
    ];
    let preambles = ["PROXY TCP4 1.1.1.1 2.2.2.2 1 2", "PROXY UNKNOWN"];
    let more = [&blank[..], &other[..], &preambles[..]].concat();
    lines.extend(more.into_iter().map(str::to_owned));
    let whole = lines.iter().map(|line| format!("{line}\r\n{BEHIND}"));
    let mut inputs: Vec<_> = whole.map(String::into_bytes).collect();
    inputs.extend(with_control_bytes());
    let request = format!("GET /secret HTTP/1.1\r\n{BEHIND}");
    for header in [
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".as_slice(),
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ] {
        inputs.push([header, request.as_bytes()].concat());
    }
    inputs
}

/// Lines with control bytes in the method, in the target, before the version and behind it; ended by CRLF, by LF and by nothing but the end.
fn with_control_bytes() -> Vec<Vec<u8>> {
    let before = [
        "003agit-upload-pack x\0",
        "0033git-upload-pack /x\0host=evil.test\0",
        "PURGE x\0",
        "PURGE /x\0",
        "PURGE \0x",
        "PURGE\nx\0",
        "GET /x\0",
        "GET http://evil.test/\0",
        "PU\0RGE /x",
        "\0PURGE /x",
        "\0 PURGE /x",
        "\0\r\n\x01\nPURGE /x",
        "PURGE\0/x\0",
        "PURGE\x01 x",
        "0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x7f\0",
        "hrpc\t\0",
    ];
    let versions = [
        "",
        " HTTP/1.1",
        "\thttp/1.1",
        "\nHTTP/1.1",
        " \0HTTP/1.1",
        " HTTP/1.1\0",
        " y HTTP/1.1",
        " RTSP/1.0",
    ];
    let mut inputs = Vec::new();
    for (line, version) in before.iter().flat_map(|b| versions.map(|v| (b, v))) {
        let rests = [
            format!("\r\n{BEHIND}"),
            format!("\n{BEHIND}"),
            String::new(),
        ];
        inputs.extend(rests.map(|rest| format!("{line}{version}{rest}").into_bytes()));
    }
    inputs
}

/// The fixtures of llhttp, requests and all the others, as they are; but for those that pretend to come from a gateway.
fn fixtures() -> Vec<Vec<u8>> {
    let Some(folder) = corpus::folder("llhttp-fixtures") else {
        return Vec::new();
    };
    let text = std::fs::read_to_string(folder.join("vectors.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
    let bytes = vectors.iter().map(|vector| {
        let bytes = vector["input_b64"].as_str().unwrap().as_bytes();
        BASE64.decode(bytes).unwrap()
    });
    let mut all: Vec<_> = bytes.collect();
    all.retain(|bytes| !bytes.to_ascii_lowercase().windows(4).any(|w| w == b"via:"));
    assert!(all.len() >= 260, "{}", all.len());
    // Stored without their last line ends.
    let whole = all
        .iter()
        .map(|bytes| [&bytes[..], b"\r\n", BEHIND.as_bytes()].concat());
    whole.collect()
}

#[tokio::test]
async fn no_line_makes_a_server_serve_what_was_not_judged() {
    let world = World::start().await;
    let (haproxy, balanced) = Witness::haproxy().await;
    let witnesses = [
        Witness::nginx().await,
        haproxy,
        Witness::node().await,
        Witness::python().await,
    ];
    // They would, which is what the lines are for; and this is how it would be seen.
    let lenient = "GET HTTP://evil.test/secret";
    let proxied = "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET / HTTP/1.1";
    let streaming = "PLAY / RTSP/1.1";
    let zero = "PURGE x\0 HTTP/1.1";
    let [nginx, haproxy, node, python] = &witnesses;
    let known = [
        (nginx, nginx.address, lenient),
        (haproxy, balanced, proxied),
        (node, node.address, streaming),
        (python, python.address, zero),
    ];
    for (witness, address, line) in known {
        say(
            address,
            format!("{line}\r\nHost: {OTHER}\r\n\r\n").as_bytes(),
        )
        .await;
        let what = format!("{} to serve the other host", witness.name);
        until(&what, || {
            let served = witness.served();
            let unjudged = served.iter().any(|one| !one.judged && one.host == OTHER);
            unjudged.then_some(())
        })
        .await;
    }
    let targets = witnesses.each_ref().map(|witness| {
        world.dns.point(&witness.host());
        format!("{}:{}", witness.host(), witness.address.port())
    });
    let wants_header = format!("{}:{}", haproxy.host(), balanced.port());
    let allow: Vec<&str> = targets
        .iter()
        .chain([&wants_header])
        .map(String::as_str)
        .collect();
    let ask = Ask {
        allow: &allow,
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let inputs = [written(), fixtures()].concat();
    for (witness, target) in witnesses.iter().zip(&targets) {
        let before = settled(&session, witness, target).await;
        for input in &inputs {
            through(&session, target, input).await;
            if witness.name == "haproxy" {
                through(&session, &wants_header, input).await;
            }
        }
        let after = settled(&session, witness, target).await;
        for served in after.get(before.len()..).unwrap() {
            let host = served.host.split(':').next().unwrap();
            assert!(
                served.judged && host == witness.host(),
                "{} serves {served:?}",
                witness.name
            );
        }
    }
}

/// This through a tunnel, to the end, however that comes.
async fn through(session: &Session, target: &str, bytes: &[u8]) {
    let mut wire = session.tunnel(target).await;
    // It may be cut before it is whole.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, bytes).await;
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut wire.stream).await;
    wire.cut().await;
}

/// Everything served, once an ordinary request that comes last is in it: these servers do one thing after another. Python's has a
/// thread for each connection, and only what came of the very last one before could be missed.
async fn settled(session: &Session, witness: &Witness, target: &str) -> Vec<Served> {
    let path = format!("/last-{}", witness.served().len());
    let mut wire = session.tunnel(target).await;
    let last = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    wire.send(last).await;
    assert_eq!(wire.reply().await.status(), 200, "{}", witness.name);
    let what = format!("{} to log the last request", witness.name);
    until(&what, || {
        let served = witness.served();
        let last = served.iter().any(|one| one.path == path);
        last.then_some(served)
    })
    .await
}
