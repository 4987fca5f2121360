//! The differential check: what the gateway forwards is one request to every reader, the same to all of them.
//!
//! Our own strict parser says what was forwarded; nginx, HAProxy and Node must have read exactly that: as many requests,
//! with the same method, target, Host and content. Refusing one is no difference in reading; seeing another one is. And what a
//! tunnel passes as no request at all is none to them (`lines`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod cases;
mod lines;
mod readers;
mod stage;
mod started;
mod streams;
mod strict;
mod witness;

use data_encoding::BASE64;
use e2e::corpus;
use serde_json::Value;

use crate::cases::{SMUGGLED, loose, pipeline, written};
use crate::stage::{Input, Stage, Way};
use crate::streams::{Version, requests};
use crate::strict::digest;

#[tokio::test]
async fn every_accepted_form_is_read_alike() {
    let stage = Stage::start().await;
    let mut cases = written();
    cases.push(pipeline(&written()));
    let mut inputs = Vec::new();
    for way in [Way::Absolute, Way::Tunnel] {
        inputs.extend(cases.iter().map(|case| case.input(way)));
    }
    let asked: Vec<_> = [&cases, &cases].into_iter().flatten().collect();
    stage.run(&stage.reference, &inputs).await;
    // The reference itself must have read what was meant.
    let readings = stage.reference.readings();
    let meant: Vec<_> = asked.iter().flat_map(|case| &case.requests).collect();
    for (reading, meant) in readings.iter().zip(&meant) {
        assert_eq!(reading.method, meant.method, "{reading:?}");
        assert_eq!(reading.target, meant.target, "{reading:?}");
        assert_eq!(reading.marks, meant.marks, "{reading:?}");
        assert_eq!(reading.sha256, digest(&meant.body), "{reading:?}");
    }
    assert_eq!(readings.len(), meant.len() + 1, "and the last one");
    let refused = stage.others_read_alike(&inputs).await;
    for (reader, reading) in refused {
        let known = loose(&reading.target);
        assert!(known, "{reader} refuses an ordinary request: {reading:?}");
    }
}

#[tokio::test]
async fn coding_mutations_that_pass_are_read_alike() {
    let Some(folder) = corpus::folder("smuggler-te-mutations") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("mutations.json")).unwrap();
    let mutations: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(mutations.len() >= 1703);
    let mut inputs = Vec::new();
    for (number, entry) in mutations.iter().enumerate() {
        let gadget = entry["gadget_b64"].as_str().unwrap().as_bytes();
        let gadget = BASE64.decode(gadget).unwrap();
        // Once with a length beside it, whose reader must not see the coding; once alone, whose reader must.
        let tail = format!("0\r\n\r\n{SMUGGLED}");
        let length = format!("Content-Length: {}\r\n", tail.len());
        let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
        for (kind, fields, content) in [("both", length, tail), ("alone", String::new(), chunked)] {
            let line = format!("POST {{U}}/{kind}/{number} HTTP/1.1\r\nHost: {{T}}\r\n{{A}}");
            let ends = ["\r\n\r\n", &content, SMUGGLED].concat();
            let parts = [line.as_bytes(), fields.as_bytes(), &gadget, ends.as_bytes()];
            inputs.push(Input::any(parts.concat(), Way::Absolute));
        }
    }
    passed_are_read_alike(&inputs, 10).await;
}

#[tokio::test]
async fn parser_fixtures_that_pass_are_read_alike() {
    let Some(folder) = corpus::folder("llhttp-fixtures") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("vectors.json")).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut inputs = Vec::new();
    for vector in &vectors {
        let bytes = vector["input_b64"].as_str().unwrap().as_bytes();
        let bytes = BASE64.decode(bytes).unwrap();
        for way in [Way::Absolute, Way::Tunnel] {
            let bytes = addressed(&bytes);
            inputs.extend(bytes.map(|bytes| Input::any(bytes, way)));
        }
    }
    assert!(inputs.len() > 150, "{} fixtures are requests", inputs.len());
    passed_are_read_alike(&inputs, 50).await;
}

/// A request of the fixtures, addressed to an upstream of ours; `None` where it has no origin-form line of HTTP/1: `lines` sends
/// those as they are.
fn addressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    let (method, rest) = line
        .split_once(' ')
        .filter(|(_, rest)| rest.starts_with('/') && rest.contains(" HTTP/1."))?;
    let mut request = format!("{method} {{U}}{rest}\r\nHost: {{T}}\r\n{{A}}").into_bytes();
    let fields = bytes[end + 2..].split_inclusive(|byte| *byte == b'\n');
    let host = |field: &[u8]| {
        field
            .get(..5)
            .is_some_and(|f| f.eq_ignore_ascii_case(b"host:"))
    };
    request.extend(fields.filter(|field| !host(field)).flatten());
    // The fixtures are stored without their last line ends.
    let complete: &[u8] = if request.ends_with(b"\r\n") {
        b"\r\n"
    } else {
        b"\r\n\r\n"
    };
    request.extend(complete);
    Some(request)
}

/// Sends everything to the reference, and what the gateway let pass to every other reader.
async fn passed_are_read_alike(inputs: &[Input], least: usize) {
    let stage = Stage::start().await;
    let statuses = stage.run(&stage.reference, inputs).await;
    let outcomes = inputs.iter().zip(statuses);
    let passed = outcomes.filter(|(_, status)| *status == 200);
    let passed: Vec<Input> = passed.map(|(input, _)| input.clone()).collect();
    let readings = stage.reference.readings();
    assert_eq!(readings.len(), passed.len() + 1, "one reading for each 200");
    assert!(passed.len() >= least, "only {} passed", passed.len());
    stage.others_read_alike(&passed).await;
}

#[tokio::test]
async fn requests_over_http2_are_read_alike() {
    streams_are_read_alike(Version::Two).await;
}

#[tokio::test]
async fn requests_over_http3_are_read_alike() {
    streams_are_read_alike(Version::Three).await;
}

/// Sends every request on a stream to the reference, and what the gateway let pass to every other reader.
async fn streams_are_read_alike(version: Version) {
    let stage = Stage::start().await;
    let requests = requests(version);
    let statuses = stage
        .run_streams(&stage.reference, version, &requests)
        .await;
    let outcomes = requests.iter().zip(statuses);
    for (request, status) in outcomes.clone() {
        assert!(
            request.meant.is_none() || status == 200,
            "{status}: {request:?}"
        );
    }
    let passed: Vec<_> = outcomes
        .filter(|(_, status)| *status == 200)
        .map(|(request, _)| request.clone())
        .collect();
    let readings = stage.reference.readings();
    assert_eq!(readings.len(), passed.len() + 1, "one reading for each 200");
    for (reading, request) in readings.iter().zip(&passed) {
        let Some((method, path, content)) = &request.meant else {
            continue;
        };
        assert_eq!((&reading.method, &reading.target), (method, path));
        assert_eq!(reading.sha256, digest(content.as_bytes()), "{reading:?}");
    }
    let crumbs = readings.iter().find(|r| r.target == "/streams/crumbs");
    assert_eq!(crumbs.unwrap().cookie, "a=1; b=2; c=3; d=4");
    for (reader, reading) in stage.others_read_streams_alike(version, &passed).await {
        let ordinary = reading.target.starts_with("/streams");
        assert!(
            !ordinary,
            "{reader} refuses an ordinary request: {reading:?}"
        );
    }
}
