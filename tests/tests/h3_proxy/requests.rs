//! Requests that are no tunnels.

use e2e::h3::Ending;
use e2e::raw::FORGED;
use e2e::{Http3, Wire, within};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::stage::{Stage, noise};

/// A length that nothing follows is no request (RFC 9114 §4.1.2). Taken for one, the next on the upstream's connection would be
/// read as its body.
#[tokio::test]
async fn a_body_that_was_announced_and_never_came_goes_nowhere() {
    let mut stage = Stage::start().await;
    let (target, bearer) = (stage.target.clone(), stage.bearer());
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", target.as_str()),
        (":path", "/a"),
        ("proxy-authorization", bearer.as_str()),
        ("content-length", "104"),
    ];
    let stream = stage.client.request(&fields, true).await;
    assert_eq!(stage.client.head(stream).await.status, 400);
    // More than one length, or fields without end.
    let twice: Vec<_> = fields[..5]
        .iter()
        .copied()
        .chain([("content-length", "0"), ("content-length", "0")])
        .collect();
    let stream = stage.client.request(&twice, true).await;
    assert_eq!(stage.client.head(stream).await.status, 400);
    let many = (0..100).map(|_| ("x-more", "1"));
    let many: Vec<_> = fields[..5].iter().copied().chain(many).collect();
    let stream = stage.client.request(&many, true).await;
    assert_eq!(stage.client.head(stream).await.status, 431);
    stage.origin.stays_alone().await;
}

/// Nobody asks for the answer's next bytes while its client takes none: the end of its right must reach it all the same.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_too() {
    let mut stage = Stage::start().await;
    let (plain, bearer) = (stage.world.plain(), stage.bearer());
    stage.client.tell(json!({"op": "hold"})).await;
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", plain.as_str()),
        (":path", "/download?bytes=67108864"),
        ("proxy-authorization", bearer.as_str()),
    ];
    let stream = stage.client.request(&fields, true).await;
    assert_eq!(stage.client.head(stream).await.status, 200);
    let gateway = &stage.world.gateway;
    stage.session.stands_still(gateway).await;
    stage.session.revoke(gateway).await;
    stage.session.cut_at_once(gateway, "session_revoked").await;
    // H3_INTERNAL_ERROR (RFC 9114 §8.1)
    assert_eq!(stage.client.rest(stream).await.1, Ending::Reset(0x102));
}

/// What absolute-form is in HTTP/1.1: `:scheme` http and another authority, each request judged by itself.
#[tokio::test]
async fn plain_requests_are_forwarded() {
    let mut stage = Stage::start().await;
    let (plain, target, bearer) = (stage.world.plain(), stage.target.clone(), stage.bearer());
    let to = |method: &'static str, authority: &str, path: &str| {
        [
            (":method".to_owned(), method.to_owned()),
            (":scheme".to_owned(), "http".to_owned()),
            (":authority".to_owned(), authority.to_owned()),
            (":path".to_owned(), path.to_owned()),
        ]
    };
    let with = |fields: &[(String, String)], more: &[(&str, &str)]| {
        let mut all = fields.to_vec();
        all.extend(more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        all
    };
    let credential = ("proxy-authorization", bearer.as_str());
    let client = &mut stage.client;
    let send = async |client: &mut Http3, fields: Vec<(String, String)>, end: bool| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        client.request(&fields, end).await
    };
    let get = with(
        &to("GET", &plain, "/echo?secret=1"),
        &[credential, ("cookie", "a=1"), ("cookie", "b=2")],
    );
    let stream = send(client, get, true).await;
    let (head, body) = client.answer(stream).await;
    assert_eq!((head.status, head.count("via")), (200, 1));
    let echo: Value = serde_json::from_slice(&body).unwrap();
    let seen = echo["request"].to_string().to_lowercase();
    assert!(seen.contains("a=1; b=2"), "{seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
    // A body whose length nobody said, and one whose length is a lie.
    let post = with(&to("POST", &plain, "/echo"), &[credential]);
    let stream = send(client, post, false).await;
    client.data(stream, &noise(50_000), false).await;
    client.data(stream, &noise(50_000), true).await;
    let (head, body) = client.answer(stream).await;
    assert_eq!(head.status, 200);
    let echo: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["request"]["method"], "POST", "{echo}");
    let lie = with(
        &to("POST", &target, "/"),
        &[credential, ("content-length", "10")],
    );
    let stream = send(client, lie, false).await;
    client.data(stream, b"more than ten bytes", true).await;
    let mut far = stage.origin.accept().await;
    let mut seen = Vec::new();
    let _ = within("the end of a lie", far.read_to_end(&mut seen)).await;
    assert!(!seen.ends_with(b"bytes"), "what was too much went up");
    let _ = client.head(stream).await;
    let anonymous = with(&to("GET", &plain, "/echo"), &[]);
    let differs = with(
        &to("GET", &plain, "/echo"),
        &[credential, ("host", "evil.test")],
    );
    let denied = with(&to("GET", "evil.test", "/"), &[credential]);
    for (fields, status, reason) in [
        (anonymous, 407, "credential_missing"),
        (differs, 400, "host_mismatch"),
        (denied, 403, "host_not_allowed"),
    ] {
        let stream = send(client, fields, true).await;
        let (head, body) = client.answer(stream).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((head.status, &body["reason"]), (status, &reason.into()));
    }
    // An answer that is cut is reset, not ended.
    let raw = with(&to("GET", &target, "/"), &[credential]);
    let stream = send(client, raw, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    assert_eq!(client.head(stream).await.status, 200);
    assert_eq!(client.take(stream, 4).await, b"half");
    drop(far);
    let (_, end) = client.rest(stream).await;
    assert!(matches!(end, Ending::Reset(_)), "{end:?}");
}

#[tokio::test]
async fn resources_of_our_own_and_nothing_else() {
    let mut stage = Stage::start().await;
    let bearer = format!(
        "Bearer {}",
        stage.session.variable("SLUICEGATE_RELAY_TOKEN")
    );
    let client = &mut stage.client;
    let get = |path| {
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "gateway.test"),
            (":path", path),
        ]
    };
    let (head, body) = client.fetch(&get("/healthz")).await;
    assert_eq!((head.status, &body[..]), (200, &b"ok\n"[..]));
    let (head, body) = client.fetch(&get("/.well-known/jwks.json")).await;
    let keys: Value = serde_json::from_slice(&body).unwrap();
    assert!(head.status == 200 && keys["keys"].is_array(), "{keys}");
    let refresh = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/relay/v1/token"),
        ("authorization", &bearer),
    ];
    let (head, body) = client.fetch(&refresh).await;
    let fresh: Value = serde_json::from_slice(&body).unwrap();
    assert!(head.status == 200 && fresh["token"].is_string(), "{fresh}");
    let grpc = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/gestalt.provider.v1.Cache/Get"),
        ("content-type", "application/grpc"),
    ];
    let mut differs = get("/healthz").to_vec();
    differs.push(("host", "evil.test"));
    for (fields, status, reason) in [
        (&get("/admin/api/v1/sessions")[..], 404, "not_found"),
        (&differs[..], 400, "host_mismatch"),
        (&grpc[..], 501, "unsupported_protocol"),
        // What cannot be a request has an answer all the same.
        (
            &[(":method", "GET"), (":path", "/")],
            400,
            "malformed_request",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "a b")],
            400,
            "malformed_request",
        ),
    ] {
        let (head, body) = client.fetch(fields).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((head.status, &body["reason"]), (status, &reason.into()));
    }
}

#[tokio::test]
async fn an_origin_cannot_speak_in_the_gateways_name() {
    let mut stage = Stage::start().await;
    let (target, bearer) = (stage.target.clone(), stage.bearer());
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", &target),
        (":path", "/"),
        ("proxy-authorization", &bearer),
        ("te", "trailers"),
    ];
    let stream = stage.client.request(&fields, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send(FORGED).await;
    let head = stage.client.head(stream).await;
    assert_eq!(head.status, 403);
    let said: Vec<_> = head
        .fields
        .iter()
        .filter(|(name, _)| name == "proxy-status")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(said, ["cdn; error=x"]);
    let trailers = stage
        .client
        .event("trailers", |e| {
            e["event"] == "headers" && e["stream"] == stream
        })
        .await["fields"]
        .to_string();
    assert!(trailers.contains("x-kept"), "{trailers}");
    assert!(!trailers.contains("sluicegate"), "{trailers}");
}
