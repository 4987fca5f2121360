//! What a plain HTTP/2 client is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::{net::TcpStream, task::JoinSet};

use crate::relay::testing::{World, within};

async fn ask(world: &World, request: Request<()>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let tcp = TcpStream::connect(world.plain).await.unwrap();
    let (requests, driver) = h2::client::handshake(tcp).await.unwrap();
    let mut drivers = JoinSet::new();
    drivers.spawn(async move { drop(driver.await) });
    let mut requests = requests.ready().await.unwrap();
    // An extended CONNECT may be sent only after the peer's SETTINGS; an answer to anything proves they are in.
    let (first, _) = requests.send_request(get("/healthz"), true).unwrap();
    assert_eq!(first.await.unwrap().status(), 200);
    let (response, _send) = requests
        .ready()
        .await
        .unwrap()
        .send_request(request, false)
        .unwrap();
    let response = within("answer", response).await.unwrap();
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        bytes.extend_from_slice(&data.unwrap());
    }
    (head.status, head.headers, bytes)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://gateway.test{path}"))
        .body(())
        .unwrap()
}

fn connect(protocol: &'static str, path: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://gateway.test{path}"))
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static(protocol));
    request
}

#[tokio::test]
async fn every_kind_of_request_has_its_answer() {
    let world = World::new().await;
    let mut host = get("/healthz");
    host.headers_mut()
        .insert("host", "evil.test".parse().unwrap());
    let classic = Request::builder()
        .method(Method::CONNECT)
        .uri("api.test:443")
        .body(())
        .unwrap();
    let table = [
        ("health", get("/healthz"), 200, ""),
        ("keys", get("/.well-known/jwks.json"), 200, ""),
        (
            "anything else",
            get("/admin/api/v1/sessions"),
            404,
            "not_found",
        ),
        ("another host", host, 400, "host_mismatch"),
        (
            "an egress target",
            connect("connect-tcp", "/.well-known/masque/tcp/api.test/443/"),
            401,
            "credential_missing",
        ),
        (
            "a port that is none",
            connect("connect-tcp", "/.well-known/masque/tcp/api.test/0443/"),
            400,
            "malformed_target",
        ),
        (
            "a name",
            get("/egress/v1/names/api.test"),
            401,
            "credential_missing",
        ),
        (
            "a name that is none",
            get("/egress/v1/names/a..b"),
            401,
            "credential_missing",
        ),
        ("classic CONNECT", classic, 407, "credential_missing"),
        (
            "websocket",
            connect("websocket", "/relay/v1/redis"),
            501,
            "unsupported_protocol",
        ),
        (
            "no template",
            connect("connect-tcp", "/relay/v2/redis"),
            404,
            "not_found",
        ),
        (
            "bad service",
            connect("connect-tcp", "/relay/v1/a%00b"),
            400,
            "malformed_target",
        ),
        (
            "a query",
            connect("connect-tcp", "/relay/v1/redis?token=x"),
            400,
            "malformed_target",
        ),
        (
            "no credential",
            connect("connect-tcp", "/relay/v1/redis"),
            401,
            "credential_missing",
        ),
    ];
    for (name, request, status, reason) in table {
        let (found, headers, body) = ask(&world, request).await;
        assert_eq!(found, status, "{name}");
        if reason.is_empty() {
            continue;
        }
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["reason"], reason, "{name}");
        assert!(headers.contains_key("proxy-status"), "{name}");
        assert_eq!(
            headers.contains_key("www-authenticate"),
            status == 401,
            "{name}"
        );
        assert_eq!(
            headers.contains_key("proxy-authenticate"),
            status == 407,
            "{name}"
        );
        world
            .record(|record| record["id"] == json["requestId"])
            .await;
    }
}
