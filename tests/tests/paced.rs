//! A session's bandwidth over relay streams: raw ones, HTTP inside them, and many short ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::{Duration, Instant};

use e2e::raw::{End, drain};
use e2e::relay::TRANSPORTS;
use e2e::{Ask, RawOrigin, RelayClient, Session, Wire, World, within};
use serde_json::json;
use tokio::io::AsyncWriteExt;

const RATE: usize = 200_000;
/// Whatever may go at once, and what is under way, is less than this.
const AT_ONCE: usize = RATE / 4;
const EACH: usize = 30_000;
const STREAMS: usize = 6;

/// A session with a raw service `db` and this bandwidth.
async fn limited(world: &World, service: &RawOrigin, bandwidth: usize) -> Session {
    let url = format!("db=tcp://{}", service.address);
    let session = world
        .session_for(Ask {
            services: &[&url],
            ..Ask::default()
        })
        .await;
    let path = format!("/runtime/providers/test/sessions/{}", session.id());
    let body = json!({"limits": {"bandwidth": bandwidth}}).to_string();
    let reply = world.gateway.admin("PATCH", &path, &body).await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    session
}

fn held_to(what: &str, bytes: usize, took: Duration) {
    let floor = Duration::from_secs_f64((bytes - AT_ONCE) as f64 / RATE as f64);
    assert!(took >= floor, "{what}: {bytes} bytes in {took:?}");
}

#[tokio::test]
async fn many_short_streams_are_held_to_it_in_both_directions() {
    let (world, service) = (World::start().await, RawOrigin::start().await);
    let session = limited(&world, &service, RATE).await;
    for transport in TRANSPORTS {
        let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp("db")]).await;
        for up in [true, false] {
            let start = Instant::now();
            for _ in 0..STREAMS {
                let mut near = Wire::dial(client.entry("db")).await;
                let moved = async {
                    if up {
                        near.send(vec![1; EACH]).await;
                        near.finish().await;
                        let mut far = service.accept().await;
                        assert_eq!(drain(&mut far).await, (vec![1; EACH], End::Fin));
                    } else {
                        // A stream may be opened by its first byte.
                        near.send("!").await;
                        let mut far = service.accept().await;
                        far.write_all(&[1; EACH]).await.unwrap();
                        far.shutdown().await.unwrap();
                        assert_eq!(near.take(EACH).await, vec![1; EACH]);
                    }
                };
                within("a short stream", moved).await;
            }
            held_to(
                &format!("{transport}, up: {up}"),
                EACH * STREAMS,
                start.elapsed(),
            );
        }
    }
}

#[tokio::test]
async fn a_very_slow_stream_gets_no_buffers_worth_at_once() {
    let (world, service) = (World::start().await, RawOrigin::start().await);
    let session = limited(&world, &service, 100).await;
    let client = RelayClient::up_over(&session, "auto", &[RelayClient::tcp("db")]).await;
    let mut near = Wire::dial(client.entry("db")).await;
    near.send("!").await;
    let mut far = service.accept().await;
    // What goes while this is written is counted too.
    let (start, mut seen) = (Instant::now(), 0_u32);
    far.write_all(&[1; 100_000]).await.unwrap();
    let read = async {
        while seen < 100 || start.elapsed() < Duration::from_secs(3) {
            near.maybe_next().await.expect("a byte");
            seen += 1;
        }
    };
    within("three seconds' worth", read).await;
    // A second's worth may go at once, and what came last may have come a moment ago.
    let most = 210.0 + 100.0 * start.elapsed().as_secs_f64();
    assert!(f64::from(seen) <= most, "{seen} bytes of {most}");
}
