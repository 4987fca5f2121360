//! What a plain HTTP/2 client is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, StatusCode};
use sluicegate_relay::{
    flow::{Early, Flow},
    transport::{Endpoint, H2Connection, inbound::Heard},
};
use sluicegate_relay_protocol::Handshake;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::{io::InspectWriter, task::TaskTracker};

use super::{Current, Peer, keep_alive, serve};
use crate::relay::testing::{Manner, World, tcp_service, within};

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

/// The answer to a PING stands behind what was sent before it, for as long as that takes.
#[tokio::test(start_paused = true)]
async fn a_client_of_which_something_comes_is_not_taken_for_gone() {
    const EVERY: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);
    let settings: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let window_update: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let (mut client, far) = tokio::io::duplex(1 << 16);
    let said = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    client.write_all(&said).await.unwrap();
    let (io, inbound) = Heard::new(far);
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut gone = pin!(keep_alive(connection.ping_pong(), inbound, EVERY));
    let mut served = pin!(async { while connection.accept().await.is_some() {} });
    let talking = async {
        for _ in 0..5 {
            sleep(EVERY - SECOND).await;
            client.write_all(&window_update).await.unwrap();
        }
    };
    tokio::select! {
        () = &mut gone => panic!("it is there"),
        () = &mut served => panic!("its connection ended"),
        () = talking => {}
    }
    let silent = Instant::now();
    tokio::select! {
        () = gone => {}
        () = served => panic!("its connection ended"),
    }
    let took = silent.elapsed();
    assert!(took < EVERY + SECOND, "{took:?}");
}

#[tokio::test]
async fn what_streams_answer_at_once_leaves_together() {
    const STREAMS: usize = 8;
    const WORD: usize = 1024;
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("one", &format!("{{echo: '{echo}'}}")).await;
    let (near, far) = tokio::io::duplex(1 << 20);
    let written = Arc::new(AtomicUsize::new(0));
    let peer = Peer {
        address: ([127, 0, 0, 1], 1).into(),
        channel: None,
        secure: true,
        since: Instant::now(),
    };
    let wrote = written.clone();
    let far = InspectWriter::new(far, move |_: &[u8]| {
        wrote.fetch_add(1, Ordering::Relaxed);
    });
    tasks.spawn(serve(far, peer, Current::new(world.context())));
    let endpoint = Endpoint::parse("https://gateway.test").unwrap();
    let drivers = TaskTracker::new();
    let connection = H2Connection::over(near, &endpoint, &drivers).await;
    let connection = connection.unwrap();
    let target = Handshake::Service {
        name: "echo".into(),
    };
    let mut flows = Vec::new();
    for _ in 0..STREAMS {
        let mut nothing = Early::nothing();
        let opened = connection.open(&target, &token, &mut nothing);
        flows.push(opened.await.unwrap());
    }
    let before = written.load(Ordering::Relaxed);
    for flow in &mut flows {
        let mut word = Bytes::from(vec![7; WORD]);
        poll_fn(|cx| flow.poll_write(cx, &mut word)).await.unwrap();
    }
    for flow in &mut flows {
        let mut heard = 0;
        while heard < WORD {
            let chunk = within("echo", poll_fn(|cx| flow.poll_read(cx))).await;
            heard += chunk.unwrap().unwrap().len();
        }
    }
    let writes = written.load(Ordering::Relaxed) - before;
    assert!(writes < STREAMS, "{writes} writes for {STREAMS} words");
}
