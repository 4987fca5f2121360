//! Requests that are no tunnels.

use bytes::Bytes;
use e2e::raw::FORGED;
use e2e::{Wire, within};
use h2::Reason;
use http::{Method, Request};

use super::stage::{Client, Stage, noise, read};

/// What absolute-form is in HTTP/1.1: `:scheme` http and another authority, each request judged by itself.
#[tokio::test]
async fn plain_requests_are_forwarded() {
    let stage = Stage::start().await;
    let plain = stage.world.plain();
    let ask = |method: Method, authority: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(format!("http://{authority}{path}"))
            .header(
                "proxy-authorization",
                format!("Bearer {}", stage.session.handle()),
            )
    };
    let fetch = async |request: Request<()>, body: Option<&[u8]>| {
        let (response, mut send) = stage.client.send(request, body.is_none()).await;
        if let Some(body) = body {
            send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        let (head, body) = within("an answer", response).await.unwrap().into_parts();
        (head, read(body).await.unwrap())
    };
    let get = ask(Method::GET, &plain, "/echo?secret=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(())
        .unwrap();
    let (head, body) = fetch(get, None).await;
    assert_eq!(head.status, 200);
    assert!(head.headers.contains_key("via"));
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let seen = echo["request"].to_string().to_lowercase();
    assert!(seen.contains("a=1; b=2"), "{seen}");
    assert!(!seen.contains("proxy-authorization"), "{seen}");
    // A body whose length nobody said.
    let post = ask(Method::POST, &plain, "/echo").body(()).unwrap();
    let sent = noise(50_000);
    let (head, body) = fetch(post, Some(&sent)).await;
    assert_eq!(head.status, 200);
    let echo: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(echo["request"]["method"], "POST", "{echo}");
    let mut anonymous = ask(Method::GET, &plain, "/echo").body(()).unwrap();
    anonymous.headers_mut().remove("proxy-authorization");
    let mut differs = ask(Method::GET, &plain, "/echo").body(()).unwrap();
    differs
        .headers_mut()
        .insert("host", "evil.test".parse().unwrap());
    for (request, status, reason) in [
        (anonymous, 407, "credential_missing"),
        (differs, 400, "host_mismatch"),
        (
            ask(Method::GET, "evil.test", "/").body(()).unwrap(),
            403,
            "host_not_allowed",
        ),
    ] {
        let answer = stage.client.refused(request).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body["reason"]),
            (status, &reason.into())
        );
    }
    let record = stage
        .world
        .gateway
        .record("the request", |r| {
            r.text("front") == "forward" && r.text("path") == "/echo?…"
        })
        .await;
    assert_eq!(record.text("outcome"), "completed", "{record:?}");
    // An answer that is cut is reset, not ended.
    let raw = ask(Method::GET, &stage.target, "/").body(()).unwrap();
    let (response, _send) = stage.client.send(raw, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .await;
    let response = within("an answer", response).await.unwrap();
    drop(far);
    assert!(read(response.into_body()).await.is_err());
}

/// What HTTP/1's reader refuses, HTTP/2's requests are refused for too: more than one length, fields without end, a CONNECT with two
/// hosts or with content. A gRPC call for another host is that host's.
#[tokio::test]
async fn what_is_refused_over_http1_is_refused_here() {
    let stage = Stage::start().await;
    let bearer = format!("Bearer {}", stage.session.handle());
    let uri = format!("http://{}/echo", stage.world.plain());
    let ask = |method: Method| {
        Request::builder()
            .method(method)
            .uri(&uri)
            .header("proxy-authorization", &bearer)
    };
    let connect = || stage.classic(&stage.target);
    let twice = ask(Method::POST)
        .header("content-length", "7")
        .header("content-length", "7");
    let mut many = ask(Method::GET);
    for _ in 0..100 {
        many = many.header("x-more", "1");
    }
    let mut hosts = connect();
    hosts
        .headers_mut()
        .append("host", stage.target.parse().unwrap());
    hosts
        .headers_mut()
        .append("host", "evil.test".parse().unwrap());
    let mut content = connect();
    content
        .headers_mut()
        .append("content-length", "5".parse().unwrap());
    for (request, status) in [
        (twice.body(()).unwrap(), 400),
        (many.body(()).unwrap(), 431),
        (hosts, 400),
        (content, 400),
    ] {
        let what = format!("{request:?}");
        let (response, mut send) = stage.client.send(request, false).await;
        // Refused by either side: h2 may reset what it finds malformed.
        let _ = send.send_data(Bytes::from_static(b"7 bytes"), true);
        match within("an answer", response).await {
            Ok(response) => assert_eq!(response.status(), status, "{what}"),
            Err(error) => assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR), "{what}"),
        }
    }
    let grpc = ask(Method::POST).header("content-type", "application/grpc-web+proto");
    let (response, mut send) = stage.client.send(grpc.body(()).unwrap(), false).await;
    send.send_data(Bytes::from_static(b"frame"), true).unwrap();
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().contains_key("via"));
}

/// Nobody asks for the answer's next bytes while its client takes none: the end of its right must reach it all the same.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_too() {
    let stage = Stage::start().await;
    // Its window is more than the standstill's MiB.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(2 << 20);
    builder.initial_connection_window_size(4 << 20);
    let client = Client::connect_with(&stage.world, &stage.session, &builder).await;
    let uri = format!("http://{}/download?bytes=67108864", stage.world.plain());
    let bearer = format!("Bearer {}", stage.session.handle());
    let request = Request::get(uri).header("proxy-authorization", bearer);
    let (response, _send) = client.send(request.body(()).unwrap(), true).await;
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let gateway = &stage.world.gateway;
    stage.session.stands_still(gateway).await;
    stage.session.revoke(gateway).await;
    stage.session.cut_at_once(gateway, "session_revoked").await;
    let error = read(response.into_body()).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn an_origin_cannot_speak_in_the_gateways_name() {
    let stage = Stage::start().await;
    let request = Request::builder()
        .uri(format!("http://{}/", stage.target))
        .header(
            "proxy-authorization",
            format!("Bearer {}", stage.session.handle()),
        )
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, _send) = stage.client.send(request, true).await;
    let mut far = Wire::over(stage.origin.accept().await);
    far.through(b"\r\n\r\n").await;
    far.send(FORGED).await;
    let (head, mut body) = within("an answer", response).await.unwrap().into_parts();
    assert_eq!(head.status, 403);
    let said: Vec<_> = head.headers.get_all("proxy-status").iter().collect();
    assert_eq!(said, ["cdn; error=x"]);
    while let Some(data) = within("DATA", body.data()).await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let trailers = within("trailers", body.trailers()).await.unwrap().unwrap();
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-kept"]);
}
