//! Bulk of one client, and what comes beside it.

use e2e::tasks::until_told;
use e2e::{Record, until};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::{FLOOD, Stage, dial};

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
        let mut bulk = dial(&self.other, FLOOD).await.stream;
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            let mut chunk = vec![0; 64 * 1024];
            while bulk.read(&mut chunk).await.unwrap() > 0 {}
        });
        reading
    }
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
