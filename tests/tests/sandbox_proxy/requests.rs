//! What is a request, and what is none: as on the gateway's listeners.

use e2e::Wire;
use serde_json::{Value, json};

use super::Stage;

/// What the plain listener takes and refuses, with its words; `NAME` and `PORT` are of a target that is allowed.
#[tokio::test]
async fn it_takes_and_refuses_what_the_listener_does() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    let credential = stage.session.authorization();
    let ask = async |head: &str| {
        let target = if head.starts_with("CONNECT") {
            &stage.target
        } else {
            &plain
        };
        let (name, port) = target.rsplit_once(':').unwrap();
        let head = head.replace("NAME", name).replace("PORT", port);
        let line_end = if head.contains("\r\n") { "\r\n" } else { "\n" };
        let mut said = Vec::new();
        for (address, fields) in [
            (stage.world.gateway.ports.plain, credential.as_str()),
            (stage.proxy.socket(), ""),
        ] {
            let mut wire = Wire::dial(address).await;
            wire.send(format!("{head}{fields}{line_end}")).await;
            let answer = wire.head().await;
            let reason = if answer.status >= 400 {
                let length = answer.value("content-length").parse().unwrap();
                let body: Value = serde_json::from_slice(&wire.take(length).await).unwrap();
                body["reason"].as_str().unwrap().to_owned()
            } else {
                String::new()
            };
            said.push((answer.status, reason));
        }
        (said.remove(0), said.remove(0))
    };
    let (malformed, target) = ("malformed_request", "malformed_target");
    for (head, status, reason) in [
        ("CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME:PORT\r\n", 200, ""),
        ("CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME\r\n", 200, ""),
        ("CONNECT NAME:PORT HTTP/1.0\r\n", 200, ""),
        (
            "CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME\r\nContent-Length: 0\r\n",
            200,
            "",
        ),
        (
            "CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME\r\nContent-Length: 5\r\n",
            400,
            malformed,
        ),
        (
            "CONNECT [NAME]:PORT HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        ("CONNECT NAME:+PORT HTTP/1.1\r\nHost: NAME\r\n", 400, target),
        ("CONNECT NAME:0PORT HTTP/1.1\r\nHost: NAME\r\n", 400, target),
        ("CONNECT NAME HTTP/1.1\r\nHost: NAME\r\n", 400, target),
        (
            "CONNECT NAME:PORT HTTP/1.1\r\nHost: evil.test\r\n",
            400,
            "host_mismatch",
        ),
        (
            "CONNECT NAME:PORT HTTP/1.1\r\nHost: NAME\r\nHost: NAME\r\n",
            400,
            malformed,
        ),
        ("CONNECT NAME:PORT HTTP/1.1\nHost: NAME\n", 400, malformed),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME:PORT\r\n",
            200,
            "",
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME\r\n",
            200,
            "",
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: evil.test\r\n",
            400,
            "host_mismatch",
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME:1\r\n",
            400,
            "host_mismatch",
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME, NAME\r\n",
            400,
            malformed,
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost : NAME\r\n",
            400,
            malformed,
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME\r\nX: a\r\n b\r\n",
            400,
            malformed,
        ),
        (
            "GET http://NAME:PORT/echo HTTP/1.1\nHost: NAME\n",
            400,
            malformed,
        ),
        (
            "GET http://NAME:+PORT/ HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        (
            "GET http://[NAME]:PORT/ HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        (
            "GET https://NAME:PORT/ HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        (
            "GET ftp://NAME:PORT/ HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: NAME\r\n", 400, target),
        (
            "GET http://NAME:PORT/#x HTTP/1.1\r\nHost: NAME\r\n",
            400,
            target,
        ),
        (
            "POST http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
            400,
            malformed,
        ),
        (
            "POST http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME\r\nContent-Length: +4\r\n",
            400,
            malformed,
        ),
    ] {
        let expected = (status, reason.to_owned());
        assert_eq!(ask(head).await, (expected.clone(), expected), "{head:?}");
    }
    // More of a head than either takes.
    let many = format!(
        "GET http://NAME:PORT/echo HTTP/1.1\r\nHost: NAME\r\n{}",
        "X: y\r\n".repeat(101)
    );
    let expected = (431, "header_too_large".to_owned());
    assert_eq!(ask(&many).await, (expected.clone(), expected));
}

#[tokio::test]
async fn a_program_is_told_to_go_on_when_the_gateway_is() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    let ask = async |path: &str| {
        let mut wire = stage.proxy.dial().await;
        let expects = "Expect: 100-continue\r\nContent-Length: 4";
        let head =
            format!("POST http://{plain}{path} HTTP/1.1\r\nHost: {plain}\r\n{expects}\r\n\r\n");
        wire.send(head).await;
        wire
    };
    let mut wire = ask("/upload").await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert!(wire.reply().await.text().starts_with("4 "));
    // And its connection serves the next.
    let again = format!("GET http://{plain}/echo HTTP/1.1\r\nHost: {plain}\r\n\r\n");
    wire.send(again).await;
    assert_eq!(wire.reply().await.status(), 200);
    // Where nobody wants the body, the final status is the first there is, and whole.
    let mut wire = ask("/refuse").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.text()), (417, "not wanted".into()));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_its_programs_fault() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    for (framing, body) in [
        ("Content-Length: 50", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n5\r\nhe"),
        (
            "Transfer-Encoding: chunked",
            "5\r\nhello\r\n+5\r\nhello\r\n0\r\n\r\n",
        ),
    ] {
        let mut wire = stage.proxy.dial().await;
        let head =
            format!("POST http://{plain}/upload HTTP/1.1\r\nHost: {plain}\r\n{framing}\r\n\r\n");
        wire.send(format!("{head}{body}")).await;
        wire.finish().await;
        let reply = wire.reply().await;
        let reason = reply.json()["reason"].clone();
        assert_eq!(
            (reply.status(), reason),
            (400, "malformed_request".into()),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn a_question_about_the_whole_server_stays_one() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    for (path, expected) in [("", "*"), ("/", "/"), ("/?a=1", "/?a=1"), ("?a=2", "/?a=2")] {
        let mut wire = stage.proxy.dial().await;
        let head = format!("OPTIONS http://{plain}{path} HTTP/1.1\r\nHost: {plain}\r\n\r\n");
        wire.send(head).await;
        wire.reply().await;
        stage.world.http.saw(expected);
    }
}

/// At a rate that the stream alone uses up.
#[tokio::test]
async fn a_request_and_its_stream_are_one_open() {
    let stage = Stage::start().await;
    let path = format!("/runtime/providers/test/sessions/{}", stage.session.id());
    let limits = json!({"limits": {"opensPerSecond": 1}}).to_string();
    let patched = stage.world.gateway.admin("PATCH", &path, &limits).await;
    assert_eq!(patched.status(), 200, "{}", patched.text());
    let plain = stage.world.plain();
    let mut wire = stage.proxy.dial().await;
    wire.send(format!(
        "GET http://{plain}/echo HTTP/1.1\r\nHost: {plain}\r\n\r\n"
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
}

/// Whose answer comes before its end: what is kept for the next request is another stream.
#[tokio::test]
async fn a_request_behind_a_refused_upload_is_served() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    let path = format!("/runtime/providers/test/sessions/{}", stage.session.id());
    let egress = json!({
        "allowedHosts": [plain],
        "allowedAddresses": ["127.0.0.0/8"],
        "rules": [{"host": plain, "http": {"methods": ["GET"]}}],
    });
    let change = json!({"egress": egress}).to_string();
    let patched = stage.world.gateway.admin("PATCH", &path, &change).await;
    assert_eq!(patched.status(), 200, "{}", patched.text());
    let get = format!("GET http://{plain}/echo HTTP/1.1\r\nHost: {plain}\r\n\r\n");
    let mut wire = stage.proxy.dial().await;
    for size in [900, 60_000, 100_000] {
        let post = format!(
            "POST http://{plain}/upload HTTP/1.1\r\nHost: {plain}\r\nContent-Length: {size}\r\n\r\n"
        );
        wire.send(post + &"x".repeat(size) + &get).await;
        for status in [403, 200] {
            let reply = wire.reply().await;
            assert_eq!(reply.status(), status, "{size}: {}", reply.text());
        }
    }
}
