//! What of a call goes on to its service, and by which connection.

use std::path::Path;

use bytes::Bytes;
use h2::{client::SendRequest, server};
use http::{HeaderMap, Request, Response};
use sluicegate_relay::transport::{Choice, Transport};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tonic::Code;

use super::{
    super::testing::{Health, TOKEN, ask, channel, health, told},
    ALL, CHECK, Stage,
};
use crate::{
    http2,
    relay::testing::{World, within},
    session::testing::patch,
};

/// The same service at a unix socket; its URL.
fn at_socket(health: &Health, path: &Path, tasks: &mut JoinSet<()>) -> String {
    let listener = UnixListener::bind(path).unwrap();
    let address = health.url.trim_start_matches("tcp://").to_owned();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let address = address.clone();
            open.spawn(async move {
                let mut far = TcpStream::connect(address).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
            });
        }
    });
    format!("unix://{}", path.display())
}

/// A connection that was made while the service might be anybody's carries no call by a policy that says whose it has to be.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_asks_of_a_service_is_asked_of_its_connections() {
    let (world, health) = (World::new().await, health().await);
    let mut tasks = JoinSet::new();
    let socket = world.fixture.dir.path().join("calls.sock");
    let url = at_socket(&health, &socket, &mut tasks);
    let services =
        |more: &str| format!("{{health: {{url: '{url}', grpc: {{methodPrefix: {ALL}}}{more}}}}}");
    let token = world.session("one", &services("")).await;
    let relay = world.client_over(Choice::Only(Transport::H2), &token);
    let mut client = within("a channel", channel(relay.forward("health").await)).await;
    let checked = within("check", client.check(ask("shown", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");

    let own = rustix::process::geteuid().as_raw();
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    let change = |uid: u32| format!("{{services: {}}}", services(&format!(", peerUid: {uid}")));
    let stranger = patch(&change(own + 1));
    registry.patch(key.clone(), stranger).await.unwrap();
    let status = within("a stranger's", client.check(ask("shown", ""))).await;
    assert_eq!(
        told(&status.unwrap_err()),
        (Code::Unavailable, "host-service-relay-unavailable")
    );
    registry.patch(key, patch(&change(own))).await.unwrap();
    let checked = within("our own", client.check(ask("shown", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");
}

/// One call to the service, as it arrives there.
struct Seen {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// A service that answers with an empty message and tells what it was asked; its URL.
async fn telling(tasks: &mut JoinSet<()>) -> (String, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (tell, seen) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = server::handshake(tcp).await.unwrap();
        let mut answering = JoinSet::new();
        while let Some(Ok((request, respond))) = connection.accept().await {
            let tell = tell.clone();
            answering.spawn(async move { answer(request, respond, &tell).await });
        }
    });
    (url, seen)
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    tell: &mpsc::UnboundedSender<Seen>,
) {
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data.unwrap();
        let _ = incoming.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let trailers = incoming.trailers().await.unwrap();
    let path = head.uri.path().to_owned();
    let headers = head.headers;
    let seen = Seen {
        path,
        headers,
        body,
        trailers,
    };
    tell.send(seen).ok().unwrap();
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    send.send_trailers(trailers).unwrap();
}

/// HTTP/2 by hand to a service that tells.
async fn by_hand(world: &World, url: &str, tasks: &mut JoinSet<()>) -> SendRequest<Bytes> {
    let services = format!("{{health: {{url: '{url}', grpc: {{methodPrefix: {ALL}}}}}}}");
    let token = world.session("one", &services).await;
    let relay = world.client_over(Choice::Only(Transport::H2), &token);
    let tcp = TcpStream::connect(relay.forward("health").await)
        .await
        .unwrap();
    let (requests, driver) = within("HTTP/2", h2::client::handshake(tcp)).await.unwrap();
    tasks.spawn(async move {
        // The client lives as long as its connection.
        let _relay = relay;
        drop(driver.await);
    });
    within("room", requests.ready()).await.unwrap()
}

/// What a service might take for another path or for the gateway's word, and what comes behind the messages of a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_up_with_nothing_that_was_not_judged() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let (url, mut seen) = telling(&mut tasks).await;
    let mut requests = by_hand(&world, &url, &mut tasks).await;
    let call = Request::post(format!("http://evil.test{CHECK}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-kept", "kept")
        .header("x-original-url", "/pkg.Other/Method")
        .header("x-http-method-override", "DELETE")
        .header("x-forwarded-for", "192.0.2.1")
        .body(())
        .unwrap();
    let (answered, mut send) = requests.send_request(call, false).unwrap();
    send.send_data(Bytes::from_static(b"\0\0\0\0\0"), false)
        .unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-original-url", "/pkg.Other/Method".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let seen = within("the call", seen.recv()).await.unwrap();
    assert_eq!(
        (seen.path.as_str(), seen.body.as_slice()),
        (CHECK, &[0; 5][..])
    );
    let mut names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "te", "x-kept"]);
    assert_eq!(seen.trailers, None);
    let answered = within("the answer", answered).await.unwrap();
    let trailers = within("its end", answered.into_body().trailers()).await;
    assert_eq!(trailers.unwrap().unwrap()["grpc-status"], "0");
}

/// Metadata is as many bytes as messages are.
#[tokio::test(flavor = "multi_thread")]
async fn heads_of_calls_are_spent_like_messages() {
    let stage = Stage::new(Transport::H2, ALL, ", limits: {bytes: 20000}").await;
    let mut client = stage.calls().await;
    let mut refused = None;
    for _ in 0..10 {
        let mut request = ask("shown", "");
        let fill = "y".repeat(6000).parse().unwrap();
        request.metadata_mut().insert("x-fill", fill);
        refused = within("check", client.check(request)).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(
        told(&refused.expect("no more bytes than the quota's")),
        (Code::ResourceExhausted, "byte_quota")
    );
}

/// What a program asks for and does not read is not kept here.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_waits_at_the_service() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (tell, room) = oneshot::channel();
    tasks.spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut builder = server::Builder::new();
        builder.max_send_buffer_size(4 << 20);
        let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.reserve_capacity(4 << 20);
        tell.send(send.capacity()).unwrap();
        while connection.accept().await.is_some() {}
    });
    let mut requests = by_hand(&world, &url, &mut tasks).await;
    let call = Request::post(format!("http://health{CHECK}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let _answered = requests.send_request(call, true).unwrap();
    let room = within("the call", room).await.unwrap();
    assert!((1..=256 << 10).contains(&room), "{room}");
}

/// As on a listener; and each would have to be looked for in each field of the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_two_tokens_is_refused() {
    let stage = Stage::new(Transport::H2, ALL, "").await;
    let mut client = stage.calls().await;
    let mut request = ask("one", "");
    let another = "another".parse().unwrap();
    request.metadata_mut().append(TOKEN, another);
    let status = within("check", client.check(request)).await;
    assert_eq!(
        told(&status.unwrap_err()),
        (Code::Unauthenticated, "invalid-host-service-relay-token")
    );
    assert!(stage.health.seen.lock().unwrap().is_empty());
    let checked = within("one", client.check(ask("one", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");
}

/// Each holds memory, and `limits.tunnels` may be absent.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_so_many_calls_open_on_all_its_streams() {
    let limits = http2::Limits {
        of_session: 1,
        ..http2::Limits::default()
    };
    let stage = Stage::within(limits, Transport::H2, ALL, "").await;
    let (mut clients, mut open, mut refused) = (Vec::new(), Vec::new(), None);
    // A stream takes a hundred.
    while refused.is_none() && clients.len() < 4 {
        let mut client = stage.calls().await;
        for _ in 0..90 {
            match within("watch", client.watch(ask("shown", ""))).await {
                Ok(watching) => open.push(watching),
                Err(status) => {
                    refused = Some(status);
                    break;
                }
            }
        }
        clients.push(client);
    }
    assert_eq!(open.len(), 256);
    assert_eq!(
        told(&refused.expect("a call that is one too many")),
        (Code::ResourceExhausted, "too_many_tunnels")
    );
    // Each that ends makes room.
    drop(open.pop());
    let ended = |r: &serde_json::Value| r["front"] == "grpc" && r["outcome"] == "reset";
    stage.world.record(ended).await;
    let last = clients.last_mut().unwrap();
    let checked = within("check", last.check(ask("shown", ""))).await;
    assert!(checked.is_ok(), "{checked:?}");
}
