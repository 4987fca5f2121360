//! Real programs that keep a stream through the relay: a server that speaks first, events, and WebSockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::origin::write_pattern;
use e2e::relay::{TRANSPORTS, recorded, relayed};
use e2e::{Program, World, servers, until};

/// The server sends its banner before the client has said anything.
#[tokio::test]
async fn ssh() {
    for transport in TRANSPORTS {
        let world = World::start().await;
        let (server, key) = servers::sshd().await;
        let url = format!("tcp://{}", server.address);
        let (session, _client, port) = relayed(transport, &world, "ssh", &url).await;
        let whoami = Program::new("id").arg("-un").run().await.succeeded();
        let login = format!("{}@127.0.0.1", whoami.trim());
        let ssh = |command: &str| {
            let mut ssh = Program::new("ssh").args(["-F", "none", "-p", &port, "-i"]);
            ssh = ssh.arg(&key);
            for option in [
                "BatchMode=yes",
                "StrictHostKeyChecking=no",
                "UserKnownHostsFile=/dev/null",
                "LogLevel=ERROR",
                "IdentitiesOnly=yes",
            ] {
                ssh = ssh.args(["-o", option]);
            }
            ssh.args([login.as_str(), command])
        };
        assert_eq!(ssh("echo over").run().await.succeeded(), "over\n");
        assert_eq!(ssh("exit 7").run().await.code, Some(7), "{transport}");
        // Bulk both ways: what `cat` is sent comes back.
        let mut sent = Vec::new();
        write_pattern(8_000_000, &mut sent).unwrap();
        let file = world.root().join("sent");
        std::fs::write(&file, &sent).unwrap();
        let back = ssh("cat").stdin(&file).run().await;
        assert_eq!(back.code, Some(0), "{}", back.stderr);
        assert!(back.stdout == sent, "{transport}: other bytes came back");
        recorded(&world, &session, "ssh").await;
    }
}

/// Each event is there before the next is made: nothing waits for company.
#[tokio::test]
async fn server_sent_events() {
    for transport in TRANSPORTS {
        let world = World::start().await;
        let url = format!("tcp://{}", world.http.address);
        let (session, _client, port) = relayed(transport, &world, "events", &url).await;
        let log = session.directory().join("events.log");
        let curl = Program::new("curl").args(["-sSN", "--fail"]);
        let mut curl = curl.arg(format!("http://127.0.0.1:{port}/sse")).start(&log);
        until("the listener", || {
            (world.http.listeners() == 1).then_some(())
        })
        .await;
        for number in 0..20 {
            world.http.event(Some(format!("event {number}")));
            until("the event", || {
                let last = format!("data: event {number}\n\n");
                curl.said().ends_with(&last).then_some(())
            })
            .await;
        }
        world.http.event(None);
        assert_eq!(curl.wait("curl's end").await, 0, "{transport}");
        recorded(&world, &session, "events").await;
    }
}

#[tokio::test]
async fn websockets() {
    for transport in TRANSPORTS {
        let world = World::start().await;
        let server = servers::python("ws.py", &[]).await;
        let url = format!("tcp://{}", server.address);
        let (session, _client, port) = relayed(transport, &world, "talk", &url).await;
        let talk = Program::python("ws.py").args(["use", &format!("ws://127.0.0.1:{port}/")]);
        assert_eq!(talk.run().await.succeeded(), "ok\n", "{transport}");
        recorded(&world, &session, "talk").await;
    }
}
