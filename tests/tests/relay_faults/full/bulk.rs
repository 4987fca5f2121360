//! Bulk of one client, and what comes beside it.

use e2e::tasks::until_told;
use e2e::{Edge, Manner, Record, RelayClient, Wire, until, web};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use super::{ECHO, FLOOD, Stage, dial, place, said};
use crate::lab::eventually;

impl Stage {
    /// A stream that carries something, from its beginning to its end: the connection it came by, as the gateway tells them apart.
    async fn comes_by(&self) -> String {
        let ended = || {
            let mut records = self.world.gateway.records();
            records.retain(|record| {
                record.text("service") == "told" && record.text("outcome") != "refused"
            });
            records
        };
        let before = ended().len();
        let mut stream = dial(&self.told, FLOOD).await;
        stream.take(1 << 20).await;
        drop(stream);
        let record = until("its record", || ended().get(before).cloned()).await;
        record.text("downstream").to_owned()
    }

    /// Bulk, until what this answers is dropped.
    async fn carries_bulk(&self) -> JoinSet<()> {
        read_on(dial(&self.other, FLOOD).await.stream)
    }
}

/// Takes what comes, until what this answers is dropped.
fn read_on(mut bulk: impl AsyncRead + Unpin + Send + 'static) -> JoinSet<()> {
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut chunk = vec![0; 64 * 1024];
        while bulk.read(&mut chunk).await.unwrap() > 0 {}
    });
    reading
}

/// What comes beside bulk gets a connection of its own, once that is there; what is open stays where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_over_several_connections() {
    for transport in ["quic", "h2"] {
        let stage = Stage::start(transport, "").await;
        let first = stage.comes_by().await;
        let bulk = stage.carries_bulk().await;
        until_told("a stream by another connection", async || {
            (stage.comes_by().await != first).then_some(())
        })
        .await;
        let told = stage.says().await;
        assert!(told["connections"].as_u64() >= Some(2), "{told}");
        assert_eq!(told["streams"]["failed"], 0, "{told}");
        drop(bulk);
        let record = stage
            .world
            .gateway
            .record("the bulk's", |record| record.text("service") == "other");
        assert_eq!(record.await.text("downstream"), first, "{transport}");
        assert_eq!(stage.client.connections(), [transport], "it reconnected");
    }
}

/// Where the session may have one connection, bulk and what comes beside it share that, and nobody is told that room is short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_goes_over_one_connection_where_there_may_be_no_more() {
    for transport in ["quic", "h2"] {
        let stage = Stage::start(transport, "  relayConnections: 1\n").await;
        let first = stage.comes_by().await;
        let bulk = stage.carries_bulk().await;
        until_told("one more was asked for", async || {
            assert_eq!(stage.comes_by().await, first, "{transport}");
            let records = stage.world.gateway.records();
            let refused = |record: &Record| record.text("reason") == "too_many_connections";
            records.iter().any(refused).then_some(())
        })
        .await;
        assert_eq!(stage.comes_by().await, first, "{transport}");
        let told = stage.says().await;
        assert_eq!(told["connections"], 1, "{told}");
        assert_eq!(told["noMoreConnections"], Value::Null, "{told}");
        assert_eq!(told["streams"]["failed"], 0, "{told}");
        assert_eq!(told["state"], "connected", "{told}");
        drop(bulk);
    }
}

/// While UDP is blocked, TLS carries the bulk. QUIC comes back beside it, where the session may have one connection more than carries it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_leaves_a_place_for_a_better_transport() {
    // The stage's own client has one of them, and the bulk's one.
    let stage = Stage::start("h2", "  relayConnections: 3\n").await;
    let (edge, public) = (Edge::start().await, stage.world.gateway.ports.public);
    edge.behave(Manner::Carry(public)).await;
    let url = format!("https://{}", edge.address);
    let more = ["--url", &url, "--status", "127.0.0.1:0"];
    let listen = ["told", "other"].map(RelayClient::tcp);
    let client = RelayClient::up_with(&stage.session, &more, &listen).await;
    client.event("connected").await;
    assert_eq!(client.connections(), ["h2"]);
    let status = place(&client, "status").await;
    let mut bulk = Wire::dial(client.entry("other")).await;
    bulk.send([FLOOD]).await;
    let mut bulk = read_on(bulk.stream);
    until_told("one more was asked for, or made", async || {
        let mut short = Wire::dial(client.entry("told")).await;
        short.send([ECHO]).await;
        said(&mut short).await;
        let records = stage.world.gateway.records();
        let refused = |record: &Record| record.text("reason") == "too_many_connections";
        let told = web::fetch(status, "/status").await.json();
        let made = told["connections"].as_u64() >= Some(2);
        (made || records.iter().any(refused)).then_some(())
    })
    .await;
    edge.carry_datagrams(Some(public));
    let back = || (client.connections() == ["h2", "quic"]).then_some(());
    eventually("QUIC, beside the bulk", back).await;
    let told = web::fetch(status, "/status").await.json();
    assert_eq!(told["streams"]["failed"], 0, "{told}");
    assert!(bulk.try_join_next().is_none(), "the bulk goes on");
}
