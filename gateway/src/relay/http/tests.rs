//! Programs that speak HTTP to a service through the relay, and what the service sees of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod bodies;
mod now;

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    relay::testing::{Client, World, within},
    session::{lifecycle::Action, testing::patch},
};

/// A service that is read and written by hand, and a way to it.
struct Stage {
    world: World,
    service: TcpListener,
    entry: SocketAddr,
    _client: Client,
}

const RULES: &str = "hosts: [web.local], origins: ['https://app.test'], methods: [GET, POST], \
                     pathPrefixes: [/v1, /ws], setHeaders: {X-Tenant: acme}";

impl Stage {
    async fn new(http: &str, more: &str) -> Self {
        Self::of(http, more, "").await
    }

    /// The same in a session with more to it than its service.
    async fn of(http: &str, more: &str, session: &str) -> Self {
        let world = World::new().await;
        let service = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = service.local_addr().unwrap();
        let services = format!("{{web: {{url: 'tcp://{url}', http: {{{http}}}{more}}}}}");
        let source = format!("{{id: one, services: {services}{session}}}");
        let token = world.session_of(&source).await;
        let client = world.client(&token);
        let entry = client.forward("web").await;
        Self {
            world,
            service,
            entry,
            _client: client,
        }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.entry).await.unwrap()
    }

    async fn accept(&self) -> TcpStream {
        within("accept", self.service.accept()).await.unwrap().0
    }

    async fn act(&self, action: Action) {
        let fixture = &self.world.fixture;
        let acted = fixture.registry.act(fixture.key("one"), action, None);
        acted.await.unwrap();
    }

    async fn requests(&self, path: &str) -> Value {
        self.world
            .record(|r| r["kind"] == "request" && r["path"] == path)
            .await
    }
}

/// Up to and with the empty line.
async fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(within("head", stream.read_u8()).await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

async fn exactly(stream: &mut TcpStream, count: usize) -> String {
    let mut bytes = vec![0; count];
    within("bytes", stream.read_exact(&mut bytes))
        .await
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web.local\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_request_is_judged_and_written_anew_and_its_answer_streamed() {
    let stage = Stage::new(RULES, "").await;
    let mut near = stage.dial().await;
    let fields = "Origin: https://app.test\r\nX-Tenant: evil\r\nX_Tenant: evil\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: X-Hop\r\nX-Hop: 1\r\nCookie: a=b\r\n";
    say(&mut near, &get("/v1/x?secret=1", fields)).await;
    let mut far = stage.accept().await;
    let seen = head(&mut far).await.to_lowercase();
    assert!(
        seen.starts_with("get /v1/x?secret=1 http/1.1\r\n"),
        "{seen}"
    );
    for wanted in [
        "host: web.local\r\n",
        "x-tenant: acme\r\n",
        "cookie: a=b\r\n",
    ] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    for unwanted in ["evil", "forwarded", "x-hop"] {
        assert!(!seen.contains(unwanted), "{unwanted}: {seen}");
    }
    say(
        &mut far,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    )
    .await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(exactly(&mut near, 5).await, "hello");
    let record = stage.requests("/v1/x?…").await;
    assert_eq!(
        (
            record["service"].as_str(),
            record["status"].as_u64(),
            record["outcome"].as_str()
        ),
        (Some("web"), Some(200), Some("completed"))
    );
    assert_eq!(record["session"]["id"], "one");

    // The same connections serve the next request; its body goes up, chunked as it came.
    say(&mut near, "POST /v1/y HTTP/1.1\r\nHost: web.local\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    assert!(
        head(&mut far)
            .await
            .to_lowercase()
            .contains("transfer-encoding: chunked\r\n")
    );
    assert_eq!(exactly(&mut far, 15).await, "5\r\nhello\r\n0\r\n\r\n");
    say(&mut far, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
    assert_eq!(stage.requests("/v1/y").await["bytesUp"], 5);
}

#[tokio::test]
async fn what_the_operator_sets_is_never_the_clients_in_any_spelling() {
    let stage = Stage::new("setHeaders: {X-Tenant-Id: acme, y_z-w: own}", "").await;
    let mut near = stage.dial().await;
    let evil = "X-Tenant-Id: evil\r\nX_Tenant_Id: evil\r\nX_Tenant-Id: evil\r\nX-Tenant_Id: evil\r\nY-Z-W: evil\r\ny_z_w: evil\r\n";
    let fields = format!("{evil}Transfer-Encoding: chunked\r\nTrailer: x_tenant-id\r\n");
    let request = get("/", &fields).replace("GET", "POST");
    say(&mut near, &format!("{request}0\r\n{evil}Digest: a\r\n\r\n")).await;
    let mut far = stage.accept().await;
    let seen = head(&mut far).await.to_lowercase() + &head(&mut far).await.to_lowercase();
    assert!(!seen.contains("evil"), "{seen}");
    for wanted in ["x-tenant-id: acme\r\n", "y_z-w: own\r\n"] {
        assert_eq!(seen.matches(wanted).count(), 1, "{wanted}: {seen}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_answered_and_the_next_request_is_judged_by_itself() {
    let stage = Stage::new(RULES, "").await;
    let mut near = stage.dial().await;
    for (request, reason) in [
        (
            "GET /v1 HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
            "service_host_not_allowed",
        ),
        (
            get("/v1", "Origin: https://evil.test\r\n"),
            "service_origin_not_allowed",
        ),
        (get("/v1", "Origin: null\r\n"), "service_origin_not_allowed"),
        (get("/v2", ""), "path_not_allowed"),
        (
            get("/v1", "").replace("GET", "DELETE"),
            "method_not_allowed",
        ),
    ] {
        say(&mut near, &request).await;
        let answer = head(&mut near).await.to_lowercase();
        assert!(answer.starts_with("http/1.1 403"), "{answer}");
        let (_, rest) = answer.split_once("content-length: ").unwrap();
        let length = rest.split("\r\n").next().unwrap().parse().unwrap();
        let body: Value = serde_json::from_str(&exactly(&mut near, length).await).unwrap();
        assert_eq!(body["reason"], reason);
        let id = body["requestId"].clone();
        let record = stage.world.record(|r| r["id"] == id).await;
        assert_eq!(
            (record["outcome"].as_str(), record["reason"].as_str()),
            (Some("refused"), Some(reason))
        );
    }
    say(&mut near, &get("/v1", "")).await;
    let mut far = stage.accept().await;
    assert!(
        head(&mut far).await.starts_with("GET /v1 "),
        "none of the others came here"
    );
}

#[tokio::test]
async fn bytes_that_can_be_read_two_ways_are_refused_and_end_the_stream() {
    let stage = Stage::new("", "").await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET http://other.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "CONNECT other.test:80 HTTP/1.1\r\nHost: other.test:80\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "not http at all\r\n\r\n",
    ] {
        let mut near = stage.dial().await;
        say(&mut near, request).await;
        let mut answer = Vec::new();
        within("the end", near.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{request:?}: {answer}");
        let mut far = stage.accept().await;
        let mut seen = Vec::new();
        let _ = within("the service's end", far.read_to_end(&mut seen)).await;
        assert!(seen.is_empty(), "{request:?} reached the service");
    }
}

#[tokio::test]
async fn a_websocket_passes_and_carries_bytes_both_ways() {
    let stage = Stage::new(RULES, "").await;
    let mut near = stage.dial().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    say(&mut near, &get("/ws", upgrade)).await;
    let mut far = stage.accept().await;
    let seen = head(&mut far).await.to_lowercase();
    assert!(
        seen.contains("upgrade: websocket\r\n") && seen.contains("sec-websocket-key"),
        "{seen}"
    );
    say(&mut far, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst").await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 101"));
    assert_eq!(exactly(&mut near, 5).await, "first");
    say(&mut near, "ping").await;
    assert_eq!(exactly(&mut far, 4).await, "ping");
    say(&mut far, "pong").await;
    assert_eq!(exactly(&mut near, 4).await, "pong");
    drop(far);
    let mut rest = Vec::new();
    within("FIN", near.read_to_end(&mut rest)).await.unwrap();
    drop(near);
    let record = stage.requests("/ws").await;
    assert_eq!(
        (record["status"].as_u64(), record["outcome"].as_str()),
        (Some(101), Some("completed"))
    );
}

#[tokio::test]
async fn another_protocol_is_not_upgraded_to() {
    let stage = Stage::new("", "").await;
    let mut near = stage.dial().await;
    say(
        &mut near,
        &get("/", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    )
    .await;
    let mut far = stage.accept().await;
    assert!(!head(&mut far).await.to_lowercase().contains("upgrade"));
}

#[tokio::test]
async fn a_cut_answer_is_not_a_whole_one() {
    let stage = Stage::new("", "").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    say(
        &mut far,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    .await;
    head(&mut near).await;
    drop(far);
    let mut rest = Vec::new();
    let ended = within("the end", near.read_to_end(&mut rest)).await;
    assert!(ended.is_err(), "{:?}", String::from_utf8(rest));
    assert_eq!(stage.requests("/").await["outcome"], "reset");
}

/// A longer timer for that takes nothing from the idle timer.
#[tokio::test]
async fn a_half_closed_stream_that_is_silent_is_cut_by_the_shorter_timer() {
    let stage = Stage::new("", ", idleTimeout: 1s, halfCloseTimeout: 1h").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let ended = within("the cut", near.read_to_end(&mut rest)).await;
    assert!(ended.is_err() && rest.is_empty());
}

/// A client that has ended its half waits for its answer as long as the service's timer says, and no longer.
#[tokio::test]
async fn a_half_closed_stream_is_cut_when_its_answer_does_not_come() {
    let stage = Stage::new("", ", halfCloseTimeout: 50ms").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    // With both halves open it is not that timer's, however long it takes.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    say(&mut far, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    head(&mut near).await;
    say(&mut near, &get("/again", "")).await;
    head(&mut far).await;
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let ended = within("the cut", near.read_to_end(&mut rest)).await;
    assert!(ended.is_err() && rest.is_empty());
    let cut = |r: &Value| r["kind"] == "stream" && r["reason"] == "idle_timeout";
    assert_eq!(stage.world.record(cut).await["outcome"], "cut");
}

/// The end is behind a request that nobody has read yet.
#[tokio::test]
async fn an_end_behind_a_second_request_is_heard() {
    let stage = Stage::new("", ", halfCloseTimeout: 50ms").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/a", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    say(&mut near, &get("/b", "")).await;
    near.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let ended = within("the cut", near.read_to_end(&mut rest)).await;
    assert!(ended.is_err() && rest.is_empty());
}

#[tokio::test]
async fn a_half_closed_stream_is_answered_in_time() {
    let stage = Stage::new("", ", halfCloseTimeout: 60s").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    near.shutdown().await.unwrap();
    let mut far = stage.accept().await;
    head(&mut far).await;
    say(
        &mut far,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    )
    .await;
    head(&mut near).await;
    assert_eq!(exactly(&mut near, 5).await, "hello");
    let mut rest = Vec::new();
    within("the end", near.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_service_that_closes_is_dialled_again_for_the_next_request() {
    let stage = Stage::new("", "").await;
    let mut near = stage.dial().await;
    for path in ["/one", "/two"] {
        say(&mut near, &get(path, "")).await;
        let mut far = stage.accept().await;
        assert!(head(&mut far).await.contains(path));
        say(
            &mut far,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .await;
        drop(far);
        head(&mut near).await;
    }
}

/// A head, and the body it announces.
async fn refusal(stream: &mut TcpStream) -> (String, String) {
    let head = head(stream).await.to_lowercase();
    let (_, rest) = head.split_once("content-length: ").unwrap();
    let length = rest.split("\r\n").next().unwrap().parse().unwrap();
    let body = exactly(stream, length).await;
    (head, body)
}

/// Policy's refusals, and those of heads that cannot be read.
#[tokio::test]
async fn a_browser_is_told_in_a_page_as_everywhere() {
    let stage = Stage::new(RULES, "").await;
    let accept = "Accept: text/html,*/*;q=0.8\r\n";
    for (request, status) in [
        (get("/v2", accept), "http/1.1 403"),
        (
            get("/v1", &format!("{accept}Host: other\r\n")),
            "http/1.1 400",
        ),
    ] {
        let mut near = stage.dial().await;
        say(&mut near, &request).await;
        let (head, body) = refusal(&mut near).await;
        assert!(head.starts_with(status), "{head}");
        for field in [
            "content-type: text/html; charset=utf-8\r\n",
            "proxy-status: sluicegate; error=",
        ] {
            assert!(head.contains(field), "{field}: {head}");
        }
        assert!(body.starts_with("<!doctype html>"), "{body}");
    }
}

#[tokio::test]
async fn refused_requests_have_a_rate() {
    let stage = Stage::new(RULES, "").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/v2", "")).await;
    assert!(refusal(&mut near).await.1.contains("path_not_allowed"));
    let (registry, key) = (
        &stage.world.fixture.registry,
        stage.world.fixture.key("one"),
    );
    let limits = patch("{limits: {opensPerSecond: 1}}");
    registry.patch(key, limits).await.unwrap();
    let mut reasons = Vec::new();
    for _ in 0..100 {
        say(&mut near, &get("/v2", "")).await;
        let (head, body) = refusal(&mut near).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        reasons.push(body["reason"].as_str().unwrap().to_owned());
        if head.starts_with("http/1.1 429") {
            break;
        }
    }
    let last = reasons.pop();
    assert_eq!(last.as_deref(), Some("too_many_opens"));
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| reason == "path_not_allowed"));
}

#[tokio::test]
async fn a_change_of_rules_and_a_revocation_cut_the_stream() {
    let stage = Stage::new("", "").await;
    let url = stage.service.local_addr().unwrap();
    for revoke in [false, true] {
        let mut near = stage.dial().await;
        say(&mut near, &get("/", "")).await;
        let mut far = stage.accept().await;
        head(&mut far).await;
        let (registry, key) = (
            &stage.world.fixture.registry,
            stage.world.fixture.key("one"),
        );
        let (reason, detail) = if revoke {
            registry.act(key, Action::Reset, None).await.unwrap();
            ("session_revoked", None)
        } else {
            let source =
                format!("{{services: {{web: {{url: 'tcp://{url}', http: {{methods: [GET]}}}}}}}}");
            registry.patch(key, patch(&source)).await.unwrap();
            ("policy_changed", Some("its service has another http now"))
        };
        let mut rest = Vec::new();
        let ended = within("the end", near.read_to_end(&mut rest)).await;
        assert!(ended.is_err() && rest.is_empty(), "{reason}");
        let record = stage
            .world
            .record(|r| r["kind"] == "stream" && r["reason"] == reason)
            .await;
        assert_eq!(record["detail"].as_str(), detail, "{record}");
    }
}

#[tokio::test]
async fn the_service_is_told_who_speaks_before_anything_else() {
    let stage = Stage::new("", ", proxyProtocol: v2").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = stage.accept().await;
    let mut start = [0; 16];
    within("header", far.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([start[14], start[15]]))];
    within("header", far.read_exact(&mut rest)).await.unwrap();
    assert_eq!(&rest[..4], [127, 0, 0, 1]);
    let named = b"default/local/one";
    assert!(rest.windows(named.len()).any(|part| part == named));
    assert!(head(&mut far).await.starts_with("GET / "));
}
