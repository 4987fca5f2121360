//! tonic's client through the gateway to tonic's server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::{
    Code,
    metadata::MetadataValue,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use crate::{
    relay::{
        grpc::testing::{Health, TOKEN, ask, channel, health, told},
        testing::{Manner, World, tcp_service, timed, within},
    },
    session::{lifecycle::Action, testing::patch},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_keeps_its_metadata_and_loses_the_token() {
    let (world, health) = (World::new().await, health().await);
    let token = world
        .session("unary", &format!("{{health: '{}'}}", health.url))
        .await;
    let mut client = channel(world.plain).await;
    let mut request = ask(&token, "");
    request.set_timeout(Duration::from_secs(30));
    // A copy of the token in another field is the token all the same.
    request.metadata_mut().insert(
        "authorization",
        MetadataValue::try_from(format!("Bearer {token}")).unwrap(),
    );
    // A service may read this as the gateway's own field.
    request
        .metadata_mut()
        .insert("x-gestalt_host-binding", MetadataValue::from_static("evil"));
    let answer = within("check", client.check(request)).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
    // A status in trailers comes through as it is.
    let missing = within("missing", client.check(ask(&token, "nobody")))
        .await
        .unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    // The gateway carried both calls to their end; what the service said of them is told apart.
    world.record(|record| record["grpcStatus"] == 0).await;
    let failed = world.record(|record| record["grpcStatus"] == 5).await;
    assert_eq!(failed["outcome"], "completed", "{failed}");
    let metrics = world.telemetry.render();
    for reason in ["", "grpc_status"] {
        let sample = format!("outcome=\"completed\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&sample), "{sample}: {metrics}");
    }
    let seen = health.seen.lock().unwrap();
    assert_eq!(seen[0].get("x-app").unwrap(), "kept");
    assert!(seen[0].get("grpc-timeout").is_some(), "the deadline passes");
    for metadata in seen.iter() {
        assert!(!format!("{metadata:?}").contains(&token), "{metadata:?}");
        assert!(!format!("{metadata:?}").contains("evil"), "{metadata:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_delivers_as_it_is_sent_and_a_cancellation_arrives() {
    let (world, health) = (World::new().await, health().await);
    let token = world
        .session("watch", &format!("{{health: '{}'}}", health.url))
        .await;
    let mut client = channel(world.plain).await;
    let mut stream = within("watch", client.watch(ask(&token, "")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        within("first", stream.message())
            .await
            .unwrap()
            .unwrap()
            .status,
        1
    );
    health
        .reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    assert_eq!(
        within("second", stream.message())
            .await
            .unwrap()
            .unwrap()
            .status,
        2
    );
    drop(stream);
    let record = world
        .record(|record| record["path"] == "/grpc.health.v1.Health/Watch")
        .await;
    assert_eq!(
        (&record["outcome"], &record["closedBy"]),
        (&"reset".into(), &"downstream".into()),
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_the_call_on_both_sides() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Frozen).await;
    let token = world
        .session("deadline", &format!("{{health: '{url}'}}"))
        .await;
    let mut client = channel(world.plain).await;
    let mut request = ask(&token, "");
    // Not over before the gateway has the call.
    request.set_timeout(Duration::from_secs(2));
    let end = within("deadline", client.check(request)).await.unwrap_err();
    assert!(
        matches!(end.code(), Code::Cancelled | Code::DeadlineExceeded),
        "{end:?}"
    );
    let record = world.record(|record| record["front"] == "grpc").await;
    assert_eq!(
        (&record["outcome"], &record["closedBy"]),
        (&"reset".into(), &"downstream".into()),
        "{record}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_grpc_answers() {
    let (world, health) = (World::new().await, health().await);
    let url = &health.url;
    let token = world.session("one", &format!("{{health: {{url: '{url}', grpc: {{methodPrefix: /grpc.health.v1.Health/Check}}}}, x: '{url}'}}")).await;
    let other = world
        .session(
            "two",
            "{mail: 'tcp://127.0.0.1:1', db: 'tcp://127.0.0.1:1'}",
        )
        .await;
    let down = world
        .session("three", "{health: 'tcp://127.0.0.1:1'}")
        .await;
    let mut client = channel(world.plain).await;
    assert!(client.check(ask(&token, "")).await.is_ok());
    let mut without = ask(&token, "");
    without.metadata_mut().remove(TOKEN);
    let mut twice = ask(&token, "");
    twice
        .metadata_mut()
        .append(TOKEN, MetadataValue::try_from(&token).unwrap());
    let forged = format!("{}x", token);
    for (name, request) in [
        ("none", without),
        ("two", twice),
        ("forged", ask(&forged, "")),
        ("noise", ask("x", "")),
    ] {
        let status = within(name, client.check(request)).await.unwrap_err();
        assert_eq!(
            told(&status),
            (Code::Unauthenticated, "invalid-host-service-relay-token"),
            "{name}"
        );
    }
    let status = within("method", client.watch(ask(&token, "")))
        .await
        .unwrap_err();
    assert_eq!(
        told(&status),
        (
            Code::PermissionDenied,
            "host-service-relay-method-not-allowed"
        )
    );
    let status = within("service", client.check(ask(&other, "")))
        .await
        .unwrap_err();
    assert_eq!(
        told(&status),
        (
            Code::PermissionDenied,
            "host-service-relay-method-not-allowed"
        )
    );
    let status = within("down", client.check(ask(&down, "")))
        .await
        .unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unavailable, "host-service-relay-unavailable")
    );
    let registry = &world.fixture.registry;
    registry
        .act(world.fixture.key("one"), Action::Pause, None)
        .await
        .unwrap();
    let status = within("paused", client.check(ask(&token, "")))
        .await
        .unwrap_err();
    assert_eq!(told(&status), (Code::Unavailable, "session_paused"));
    registry
        .act(world.fixture.key("one"), Action::Reset, None)
        .await
        .unwrap();
    let status = within("dead", client.check(ask(&token, "")))
        .await
        .unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unauthenticated, "invalid-host-service-relay-session")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_ends_a_call_that_is_open_with_a_status() {
    let (world, health) = (World::new().await, health().await);
    let token = world
        .session("live", &format!("{{health: '{}'}}", health.url))
        .await;
    let mut client = channel(world.plain).await;
    let mut first = within("watch", client.watch(ask(&token, "")))
        .await
        .unwrap()
        .into_inner();
    within("first", first.message()).await.unwrap();
    let key = world.fixture.key("live");
    let elsewhere = format!(
        "{{services: {{health: '{}', more: 'tcp://127.0.0.1:1'}}}}",
        health.url
    );
    world
        .fixture
        .registry
        .patch(key.clone(), patch(&elsewhere))
        .await
        .unwrap();
    health
        .reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    assert_eq!(
        within("still there", first.message())
            .await
            .unwrap()
            .unwrap()
            .status,
        2
    );
    let registry = &world.fixture.registry;
    registry.act(key, Action::Reset, None).await.unwrap();
    let (ended, took) = timed(within("revoked", first.message())).await;
    let status = ended.unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unauthenticated, "invalid-host-service-relay-session")
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// A call on a service that comes back finds it: a dead pooled connection is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_returns_is_found() {
    let world = World::new().await;
    let first = health().await;
    let token = world
        .session("back", &format!("{{health: '{}'}}", first.url))
        .await;
    let mut client = channel(world.plain).await;
    assert!(client.check(ask(&token, "")).await.is_ok());
    let Health {
        url,
        stop,
        tasks: mut serving,
        ..
    } = first;
    stop.send(()).unwrap();
    within("stopped", serving.join_next()).await;
    let status = within("down", client.check(ask(&token, "")))
        .await
        .unwrap_err();
    assert_eq!(
        told(&status),
        (Code::Unavailable, "host-service-relay-unavailable")
    );
    let address = url.trim_start_matches("tcp://");
    let mut tasks = JoinSet::new();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let server = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
    tasks.spawn(async move {
        let _ = Server::builder()
            .add_service(server)
            .serve_with_incoming(TcpIncoming::from(listener))
            .await;
    });
    assert!(
        within("up again", client.check(ask(&token, "")))
            .await
            .is_ok()
    );
}
