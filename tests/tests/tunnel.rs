//! An open tunnel: bytes, ends, first bytes and idleness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use e2e::raw::{End, drain};
use e2e::tasks::QUIET;
use e2e::{Ask, Settings, World, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn bytes_sent_together_with_connect_arrive() {
    let (_world, origin, session, target) = World::with_raw().await;
    let mut wire = session.dial().await;
    wire.send(format!("{}\0early byte", session.connect_head(&target)))
        .await;
    assert_eq!(wire.head().await.status, 200);
    let mut accepted = origin.accept().await;
    let mut read = [0; 11];
    within("the early bytes", accepted.read_exact(&mut read))
        .await
        .unwrap();
    assert_eq!(&read, b"\0early byte");
}

#[tokio::test]
async fn downstream_half_close_reaches_upstream_and_answers_still_come() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0question").await;
    let mut accepted = origin.accept().await;
    wire.finish().await;
    assert_eq!(
        drain(&mut accepted).await,
        (b"\0question".to_vec(), End::Fin)
    );
    accepted.write_all(b"late answer").await.unwrap();
    drop(accepted);
    assert_eq!(wire.rest().await, (b"late answer".to_vec(), End::Fin));
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.number("bytesUp"), record.number("bytesDown")),
        (Some(9), Some(11))
    );
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("completed", "downstream")
    );
}

#[tokio::test]
async fn upstream_half_close_reaches_downstream_and_questions_still_go() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0first").await;
    let mut accepted = origin.accept().await;
    accepted.write_all(b"answer").await.unwrap();
    accepted.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, (b"answer".to_vec(), End::Fin));
    wire.send(" second").await;
    wire.finish().await;
    assert_eq!(
        drain(&mut accepted).await,
        (b"\0first second".to_vec(), End::Fin)
    );
    let record = world.gateway.record_of(&target).await;
    assert_eq!(record.text("closedBy"), "upstream", "{record:?}");
}

#[tokio::test]
async fn downstream_reset_reaches_upstream_as_a_reset() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0ata").await;
    let mut accepted = origin.accept().await;
    let mut read = [0; 4];
    within("data", accepted.read_exact(&mut read))
        .await
        .unwrap();
    wire.abort();
    assert_eq!(drain(&mut accepted).await.1, End::Reset);
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("reset", "downstream")
    );
}

#[tokio::test]
async fn upstream_reset_reaches_downstream_as_a_reset() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0ata").await;
    let mut accepted = origin.accept().await;
    let mut read = [0; 4];
    within("data", accepted.read_exact(&mut read))
        .await
        .unwrap();
    accepted.set_zero_linger().unwrap();
    drop(accepted);
    assert_eq!(wire.rest().await.1, End::Reset);
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("closedBy")),
        ("reset", "upstream")
    );
}

#[tokio::test]
async fn a_protocol_whose_server_speaks_first_works() {
    let (_world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    let mut accepted = origin.accept().await;
    accepted.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    assert_eq!(wire.through(b"\n").await, b"SSH-2.0-test\r\n");
    wire.send("SSH-2.0-client\r\n").await;
    let mut read = [0; 16];
    within("the client's line", accepted.read_exact(&mut read))
        .await
        .unwrap();
    assert_eq!(&read, b"SSH-2.0-client\r\n");
}

#[tokio::test]
async fn a_client_hello_for_another_host_is_cut_before_a_byte_goes_up() {
    let (world, origin, session, target) = World::with_raw().await;
    let wire = session.tunnel(&target).await;
    let error = wire
        .try_tls(world.ca.client(&[]), "other.test")
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("AccessDenied"),
        "a fatal access_denied alert: {error}"
    );
    // The upstream may have been dialled, but not one byte of the hello reached it.
    let dialled = tokio::time::timeout(Duration::from_millis(300), origin.accept()).await;
    if let Ok(mut accepted) = dialled {
        assert_eq!(drain(&mut accepted).await.0, b"", "bytes went up");
    }
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "sni_mismatch")
    );
    assert_eq!(record.number("bytesUp").unwrap_or(0), 0, "{record:?}");
}

#[tokio::test]
async fn plain_http_in_a_tunnel_must_name_the_target() {
    let world = World::start().await;
    let session = world.session().await;
    // RFC 9112 §2.2: servers skip empty lines before a request line, so they hide nothing.
    for before in ["", "\r\n", "\n", "\r\n\r\n"] {
        let mut wire = session.tunnel(&world.plain()).await;
        let request = format!("{before}GET /echo HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        wire.send(request).await;
        wire.cut().await;
        let seen = world.http.seen();
        assert_eq!(
            seen.len(),
            0,
            "{before:?}: another host's request went up: {seen:?}"
        );
    }
}

/// Some servers bound the head as a whole, and no method by itself.
#[tokio::test]
async fn no_request_passes_behind_a_method_that_is_not_waited_for() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    let mut far = origin.accept().await;
    wire.send("M".repeat(300)).await;
    let mut word = [0; 300];
    within("the word", far.read_exact(&mut word)).await.unwrap();
    wire.send(" / HTTP/1.1\r\nHost: evil.test\r\n\r\n").await;
    wire.cut().await;
    let behind = drain(&mut far).await.0;
    assert!(!behind.contains(&b'\n'), "{}", behind.escape_ascii());
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "malformed_request")
    );
    assert!(record.text("detail").contains("tls: opaque"), "{record:?}");
}

#[tokio::test]
async fn an_idle_tunnel_is_closed_and_a_slow_head_too() {
    let settings = Settings {
        limits: "  idleTimeout: 1s\n  headTimeout: 1s\n".into(),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let (origin, target) = world.raw_origin().await;
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let mut slow = session.dial().await;
    slow.send("CONNECT raw.allo").await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0nothing more").await;
    let _far = origin.accept().await;
    assert!(wire.cut().await < Duration::from_secs(6));
    assert!(slow.cut().await < Duration::from_secs(6));
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "idle_timeout")
    );
}

#[tokio::test]
async fn bytes_that_may_yet_become_http_are_held_until_they_cannot() {
    let (_world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("EHLO").await;
    let mut far = origin.accept().await;
    let mut read = [0; 13];
    let early = tokio::time::timeout(QUIET, far.read_exact(&mut read)).await;
    assert!(
        early.is_err(),
        "it might have become a request for another host"
    );
    wire.send(" sandbox\n").await;
    within("the whole line", far.read_exact(&mut read))
        .await
        .unwrap();
    assert_eq!(&read, b"EHLO sandbox\n");
}

#[tokio::test]
async fn a_line_that_never_ends_is_cut_and_the_record_says_what_lets_it_pass() {
    let world = World::with(Settings {
        limits: "  firstBytesTimeout: 1s\n".into(),
        ..Settings::default()
    })
    .await;
    let (origin, target) = world.raw_origin().await;
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let mut wire = session.tunnel(&target).await;
    wire.send("hello").await;
    let mut far = origin.accept().await;
    wire.cut().await;
    assert_eq!(drain(&mut far).await.0, b"");
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "first_bytes_timeout")
    );
    assert!(record.text("detail").contains("tls: opaque"), "{record:?}");
}

#[tokio::test]
async fn no_end_leaves_a_socket_behind() {
    let (world, origin, session, target) = World::with_raw().await;
    // One tunnel of each kind first, so that pools and caches are as full as they get.
    for round in 0..31 {
        let baseline = world.gateway.descriptors();
        let mut wire = session.tunnel(&target).await;
        wire.send("\0ata").await;
        let mut far = origin.accept().await;
        match round % 5 {
            0 => wire.abort(),
            1 => far.set_zero_linger().unwrap(),
            2 => wire.finish().await,
            3 => {
                far.shutdown().await.unwrap();
                wire.finish().await;
            }
            _ => drop(wire),
        }
        drop(far);
        if round > 5 {
            until("the gateway to let go of both sockets", || {
                (world.gateway.descriptors() <= baseline).then_some(())
            })
            .await;
        }
    }
}
