//! Programs that call a service through the relay client's listener: tonic's client, and what speaks HTTP/2 by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod carried;

use std::time::{Duration, SystemTime};

use h2::client::SendRequest;
use http::{Request, StatusCode};
use sluicegate_relay::transport::{Choice, Transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckResponse, health_client::HealthClient};

use super::testing::{Health, ask, channel, health, told};
use crate::{
    auth::{Audience, Mint, ServiceClaim, mint},
    http2,
    relay::testing::{Client, TRANSPORTS, World, call, within},
    secret::Secret,
    session::{lifecycle::Action, testing::patch},
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const ALL: &str = "/grpc.health.v1.Health";
/// A client's preface and its SETTINGS.
const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A session with a service of calls, and a program's way to it.
struct Stage {
    world: World,
    health: Health,
    client: Client,
}

impl Stage {
    /// The service may be called by methods of this prefix.
    async fn new(over: Transport, prefix: &str, more: &str) -> Self {
        Self::within(http2::Limits::default(), over, prefix, more).await
    }

    async fn within(limits: http2::Limits, over: Transport, prefix: &str, more: &str) -> Self {
        let (world, health) = (World::with_limits(limits).await, health().await);
        let services = services(&health, prefix);
        let source = format!("{{id: one, services: {services}{more}}}");
        let token = world.session_of(&source).await;
        let client = world.client_over(Choice::Only(over), &token);
        Self {
            world,
            health,
            client,
        }
    }

    /// What a program has that dials.
    async fn calls(&self) -> HealthClient<Channel> {
        within("a channel", channel(self.client.forward("health").await)).await
    }

    async fn act(&self, action: Action) {
        let key = self.world.fixture.key("one");
        let registry = &self.world.fixture.registry;
        registry.act(key, action, None).await.unwrap();
    }

    async fn patch(&self, source: &str) {
        let key = self.world.fixture.key("one");
        let registry = &self.world.fixture.registry;
        registry.patch(key, patch(source)).await.unwrap();
    }

    /// The record of a call.
    async fn of_call(
        &self,
        path: &str,
        wanted: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        self.world
            .record(|r| r["front"] == "grpc" && r["path"] == path && wanted(r))
            .await
    }

    /// The record of the stream.
    async fn of_stream(&self) -> serde_json::Value {
        self.world.record(|r| r["kind"] == "stream").await
    }

    /// It has been cut for this reason.
    async fn is_cut(&self, reason: &str) -> serde_json::Value {
        let stream = self.of_stream().await;
        let found = (&stream["outcome"], &stream["reason"]);
        assert_eq!(found, (&"cut".into(), &reason.into()), "{stream}");
        stream
    }

    /// No stream has ended.
    fn goes_on(&self) {
        let whole = |r: &serde_json::Value| r["kind"] == "stream";
        assert!(!self.world.records().iter().any(whole), "it goes on");
    }

    /// A call at its first message is there for the second.
    async fn moves(&self, watching: &mut Streaming<HealthCheckResponse>) {
        let reporter = &self.health.reporter;
        reporter
            .set_service_status("", tonic_health::ServingStatus::NotServing)
            .await;
        let second = within("second", watching.message()).await;
        assert_eq!(second.unwrap().unwrap().status, 2);
    }
}

fn services(health: &Health, prefix: &str) -> String {
    let url = &health.url;
    format!("{{health: {{url: '{url}', grpc: {{methodPrefix: {prefix}}}}}}}")
}

/// A call that goes on, at its first message.
async fn watch(client: &mut HealthClient<Channel>) -> Streaming<HealthCheckResponse> {
    let watching = within("watch", client.watch(ask("shown", ""))).await;
    let mut stream = watching.unwrap().into_inner();
    let first = within("first", stream.message()).await.unwrap().unwrap();
    assert_eq!(first.status, 1);
    stream
}

/// A call that is answered.
async fn checked(client: &mut HealthClient<Channel>) {
    let answer = within("check", client.check(ask("shown", ""))).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// The same where it is not.
async fn refused(client: &mut HealthClient<Channel>) -> Status {
    let answer = within("check", client.check(ask("shown", ""))).await;
    answer.unwrap_err()
}

async fn end(stream: &mut Streaming<HealthCheckResponse>) -> Status {
    within("the end", stream.message()).await.unwrap_err()
}

const NOT_ALLOWED: (Code, &str) = (
    Code::PermissionDenied,
    "host-service-relay-method-not-allowed",
);

#[tokio::test(flavor = "multi_thread")]
async fn calls_on_one_stream_are_judged_one_by_one() {
    for over in TRANSPORTS {
        let stage = Stage::new(over, CHECK, "").await;
        let mut client = stage.calls().await;
        let checked = within("check", client.check(ask("shown", ""))).await;
        assert_eq!(checked.unwrap().into_inner().status, 1);
        let status = within("watch", client.watch(ask("shown", ""))).await;
        assert_eq!(told(&status.unwrap_err()), NOT_ALLOWED);
        // The service's own status, in trailers.
        let missing = within("missing", client.check(ask("shown", "nobody"))).await;
        assert_eq!(missing.unwrap_err().code(), Code::NotFound);

        let whole = stage.of_call(CHECK, |r| r["grpcStatus"] == 0).await;
        assert_eq!(
            (&whole["kind"], &whole["outcome"], &whole["service"]),
            (&"request".into(), &"completed".into(), &"health".into()),
            "{whole}"
        );
        assert_eq!(whole["session"]["id"], "one");
        let address = whole["address"].as_str().unwrap();
        assert_eq!(format!("tcp://{address}"), stage.health.url, "{whole}");
        assert!(whole["bytesDown"].as_u64() > Some(0), "{whole}");
        stage.of_call(CHECK, |r| r["grpcStatus"] == 5).await;
        let refused = stage
            .of_call("/grpc.health.v1.Health/Watch", |_| true)
            .await;
        assert_eq!(
            (&refused["outcome"], &refused["reason"]),
            (&"refused".into(), &"service_method_not_allowed".into()),
            "{refused}"
        );
        // What a program shows as a token goes up under no name, and all of it came by one stream.
        let seen = format!("{:?}", stage.health.seen.lock().unwrap());
        assert!(seen.contains("kept") && !seen.contains("shown"), "{seen}");
        drop(client);
        let stream = stage.of_stream().await;
        // A client that goes with bytes unread ends in a reset, whatever it meant.
        assert_ne!(stream["outcome"], "cut", "{stream}");
        assert_eq!(stream["service"], "health");
        let bytes = |record: &serde_json::Value, way: &str| record[way].as_u64().unwrap();
        for way in ["bytesUp", "bytesDown"] {
            assert!(bytes(&stream, way) > bytes(&whole, way), "{stream}");
        }
    }
}

/// A token may be bounded where its service is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_tokens_own_methods_bound_what_it_may_call() {
    let (world, health) = (World::new().await, health().await);
    let services = format!("{{health: '{}'}}", health.url);
    let whole = Secret::new(world.session("one", &services).await);
    let (registry, now) = (&world.fixture.registry, SystemTime::now());
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let identity = registry
        .authenticator()
        .identify(&whole, Audience::Relay, source, now)
        .unwrap();
    let session = &identity.session;
    let claim = ServiceClaim {
        name: "health".into(),
        method_prefix: Some(CHECK.into()),
        direction: None,
    };
    let asked = Mint {
        audience: Audience::Relay,
        session: session.key(),
        generation: session.generation(),
        born: session.born(),
        services: Some(vec![claim]),
        key: None,
        family: None,
        paused: Duration::ZERO,
        expires: now + Duration::from_secs(600),
    };
    let token = mint(registry.keys(), asked, now).unwrap();
    let relay = world.client_over(Choice::Only(Transport::H2), token.reveal());
    let mut client = within("a channel", channel(relay.forward("health").await)).await;
    checked(&mut client).await;
    let status = within("watch", client.watch(ask("shown", ""))).await;
    assert_eq!(told(&status.unwrap_err()), NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_as_they_are_sent_and_a_cancellation_arrives() {
    for over in TRANSPORTS {
        let stage = Stage::new(over, ALL, "").await;
        let mut client = stage.calls().await;
        let mut watching = watch(&mut client).await;
        stage.moves(&mut watching).await;
        drop(watching);
        let record = stage
            .of_call("/grpc.health.v1.Health/Watch", |_| true)
            .await;
        assert_eq!(
            (&record["outcome"], &record["closedBy"]),
            (&"reset".into(), &"downstream".into()),
            "{record}"
        );
    }
}

/// What ends the right to a stream is told to its calls, in words that gRPC has, and then the stream ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_is_a_status_and_then_the_streams_end() {
    for over in TRANSPORTS {
        for (action, wanted, reason) in [
            (
                Action::Reset,
                (Code::Unauthenticated, "invalid-host-service-relay-session"),
                "session_revoked",
            ),
            (
                Action::Pause,
                (Code::Unavailable, "session_paused"),
                "session_paused",
            ),
        ] {
            let stage = Stage::new(over, ALL, "").await;
            let mut client = stage.calls().await;
            let mut watching = watch(&mut client).await;
            stage.act(action).await;
            let status = end(&mut watching).await;
            assert_eq!(told(&status), wanted, "{over:?}");
            stage.is_cut(reason).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_policy_ends_the_calls_it_concerns_and_the_stream_goes_on() {
    let stage = Stage::new(Transport::H2, ALL, "").await;
    let mut client = stage.calls().await;
    let mut watching = watch(&mut client).await;
    let narrower = services(&stage.health, CHECK);
    stage.patch(&format!("{{services: {narrower}}}")).await;
    assert_eq!(told(&end(&mut watching).await), NOT_ALLOWED);
    let call = stage
        .of_call("/grpc.health.v1.Health/Watch", |_| true)
        .await;
    let why = "its service would be refused now: service_method_not_allowed";
    assert_eq!(
        (&call["reason"], &call["detail"]),
        (&"policy_changed".into(), &why.into()),
        "{call}"
    );
    checked(&mut client).await;
    stage.goes_on();
    // Without the service there is nothing to go on for.
    stage.patch("{services: {}}").await;
    let stream = stage.is_cut("policy_changed").await;
    let why = "its service would be refused now: service_not_allowed";
    assert_eq!(stream["detail"], why, "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_holds_keeps_calls_and_takes_no_new_ones() {
    let stage = Stage::new(Transport::H2, ALL, ", onPause: hold").await;
    let mut client = stage.calls().await;
    let mut watching = watch(&mut client).await;
    stage.act(Action::Pause).await;
    let paused = (Code::Unavailable, "session_paused");
    assert_eq!(told(&refused(&mut client).await), paused);
    stage.moves(&mut watching).await;
    stage.act(Action::Resume).await;
    checked(&mut client).await;
}

/// A call has its stream's place, a second one at once a place of its own.
#[tokio::test(flavor = "multi_thread")]
async fn calls_count_as_what_the_session_has_open() {
    let stage = Stage::new(Transport::H2, ALL, ", limits: {tunnels: 1}").await;
    let mut client = stage.calls().await;
    checked(&mut client).await;
    stage.of_call(CHECK, |r| r["grpcStatus"] == 0).await;
    let watching = watch(&mut client).await;
    let full = (Code::ResourceExhausted, "too_many_tunnels");
    assert_eq!(told(&refused(&mut client).await), full);
    drop(watching);
    stage
        .of_call("/grpc.health.v1.Health/Watch", |_| true)
        .await;
    checked(&mut client).await;
}

/// A service that is away is its calls' error, and no end of the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_a_status() {
    let stage = Stage::new(Transport::H2, ALL, "").await;
    let mut client = stage.calls().await;
    checked(&mut client).await;
    let away = "{health: {url: 'tcp://127.0.0.1:1', grpc: {methodPrefix: /grpc.health.v1.Health}}}";
    stage.patch(&format!("{{services: {away}}}")).await;
    let away = (Code::Unavailable, "host-service-relay-unavailable");
    assert_eq!(told(&refused(&mut client).await), away);
    let back = services(&stage.health, ALL);
    stage.patch(&format!("{{services: {back}}}")).await;
    checked(&mut client).await;
    stage.goes_on();
}

/// HTTP/2 on a stream by hand.
async fn requests(stage: &Stage, tasks: &mut JoinSet<()>) -> SendRequest<bytes::Bytes> {
    let address = stage.client.forward("health").await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let (requests, driver) = within("HTTP/2", h2::client::handshake(tcp)).await.unwrap();
    tasks.spawn(async move { drop(driver.await) });
    within("room", requests.ready()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_answered_and_what_is_no_http2_is_cut() {
    for over in TRANSPORTS {
        let stage = Stage::new(over, ALL, "").await;
        let mut tasks = JoinSet::new();
        let mut requests = requests(&stage, &mut tasks).await;
        let get = Request::get(format!("http://health{CHECK}"))
            .body(())
            .unwrap();
        let (answer, _) = requests.send_request(get, true).unwrap();
        let answer = within("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
        let refused = |r: &serde_json::Value| r["front"] == "grpc" && r["method"] == "GET";
        let refused = stage.world.record(refused).await;
        assert_eq!(refused["reason"], "unsupported_protocol", "{refused}");
        let seen = stage.health.seen.lock().unwrap().len();
        assert_eq!(seen, 0, "it came to the service");

        let address = stage.client.forward("health").await;
        let question = format!("GET {CHECK} HTTP/1.1\r\nHost: health\r\n\r\n");
        let _ = within("the cut", call(address, question.as_bytes())).await;
        let cut = |r: &serde_json::Value| r["reason"] == "service_method_not_allowed";
        let cut = stage.world.record(cut).await;
        assert_eq!(
            (&cut["kind"], &cut["outcome"]),
            (&"stream".into(), &"cut".into()),
            "{cut}"
        );
    }
}

/// Who calls again connects again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_asked_nothing_is_told_to_go() {
    let limits = http2::Limits {
        idle: Duration::from_millis(300),
        ..http2::Limits::default()
    };
    let stage = Stage::within(limits, Transport::H2, ALL, "").await;
    let address = stage.client.forward("health").await;
    let tcp = TcpStream::connect(address).await.unwrap();
    let (_requests, driver) = within("HTTP/2", h2::client::handshake(tcp)).await.unwrap();
    let _ = within("the end", driver).await;
    let ended = stage.of_stream().await;
    assert_ne!(ended["outcome"], "cut", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let limits = http2::Limits {
        head_timeout: Duration::from_secs(1),
        ..http2::Limits::default()
    };
    let stage = Stage::within(limits, Transport::H2, ALL, "").await;
    let address = stage.client.forward("health").await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let cut = stage.world.record(|r| r["reason"] == "head_timeout").await;
    assert_eq!(
        (&cut["kind"], &cut["outcome"]),
        (&"stream".into(), &"cut".into()),
        "{cut}"
    );
    // The gateway's SETTINGS may have come, and nothing after them.
    let _ = within("the end", silent.read_to_end(&mut Vec::new())).await;
}

/// As on a listener (CVE-2019-9512 and its like).
#[tokio::test(flavor = "multi_thread")]
async fn talk_about_itself_ends_a_stream() {
    let stage = Stage::new(Transport::H2, ALL, "").await;
    let address = stage.client.forward("health").await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // PINGs.
    let mut bytes = OPENING.to_vec();
    for _ in 0..20_000 {
        bytes.extend_from_slice(b"\0\0\x08\x06\0\0\0\0\0pingpong");
    }
    // It may be cut before it has all of them.
    let _ = tcp.write_all(&bytes).await;
    stage.is_cut("malformed_request").await;
    assert_eq!(stage.world.metric("sluicegate_h2_floods_total"), 1.0);
}

/// What HTTP/2 itself is ended for is an end of the gateway's, and none of the program's.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_may_not_be_end_a_stream() {
    let stage = Stage::new(Transport::H2, ALL, "").await;
    let address = stage.client.forward("health").await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // DATA of no stream (RFC 9113 §6.1).
    let mut bytes = OPENING.to_vec();
    bytes.extend_from_slice(b"\0\0\x01\0\0\0\0\0\0x");
    tcp.write_all(&bytes).await.unwrap();
    let cut = stage.is_cut("malformed_request").await;
    assert_eq!(cut["closedBy"], "gateway", "{cut}");
}
