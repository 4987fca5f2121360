//! What `sluicegate-relay` says of itself while the gateway changes its mind about its session, and where it finds the next
//! token.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;

use e2e::program::binary;
use e2e::raw::unix_echo;
use e2e::relay::TRANSPORTS;
use e2e::tasks::until_told;
use e2e::{Ask, Program, RelayClient, Tasks, Wire, World, web};
use serde_json::Value;
use tokio::net::UnixListener;

/// A stream of its own says this back.
async fn said(entry: SocketAddr, question: &str) {
    let mut wire = Wire::dial(entry).await;
    wire.send(question).await;
    assert_eq!(wire.take(question.len()).await, question.as_bytes());
}

/// A key's file may be a bare name.
#[tokio::test]
async fn a_key_is_made_in_the_working_directory() {
    let directory = tempfile::tempdir().unwrap();
    let key = || {
        let program = Program::new(binary("sluicegate-relay"));
        let program = program.args(["key", "--key", "k.pem"]);
        program.cwd(directory.path()).run()
    };
    let made = key().await.succeeded();
    assert!(directory.path().join("k.pem").is_file());
    assert_eq!(key().await.succeeded(), made, "another key");
}

/// What the client says of itself, and what its health check answers.
async fn stands(client: &RelayClient, state: &str, health: u16) {
    let event = client.event("status").await;
    let place = event["address"].as_str().unwrap();
    let address: SocketAddr = place.strip_prefix("http://").unwrap().parse().unwrap();
    let stands = async || {
        let told = web::fetch(address, "/status").await.json();
        let answered = web::fetch(address, "/healthz").await.status();
        (told["state"] == state && answered == health).then_some(())
    };
    until_told(&format!("the state {state}"), stands).await;
}

/// A token of a generation that is over is known for that, and the next one is found where it is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_reset_or_paused_is_told_and_one_that_is_started_again_is_found() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let path = world.root().join("echo.sock");
    tasks.spawn(unix_echo(UnixListener::bind(&path).unwrap()));
    let service = format!("echo=unix://{}", path.display());
    let each = TRANSPORTS.map(async |transport| {
        let ask = Ask {
            services: &[&service],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let file = session.directory().join("token");
        std::fs::write(&file, session.variable("SLUICEGATE_RELAY_TOKEN")).unwrap();
        let more = ["--transport", transport, "--status", "127.0.0.1:0"];
        let given = ["--token-file", file.to_str().unwrap()];
        let listen = [RelayClient::tcp("echo")];
        let more = [more.as_slice(), &given].concat();
        let client = RelayClient::up_with(&session, &more, &listen).await;
        stands(&client, "connected", 200).await;
        let act = async |action: &str| {
            let arguments = ["session", action, "--provider", "test", session.id()];
            world.gateway.cli(&arguments).await.succeeded();
        };
        let again = async || {
            act("reset").await;
            let arguments = ["session", "start", "--provider", "test", session.id()];
            let arguments = [arguments.as_slice(), &["--format", "json"]].concat();
            let started = world.gateway.cli(&arguments).await.succeeded();
            let started: Value = serde_json::from_str(&started).unwrap();
            let token = &started["env"]["SLUICEGATE_RELAY_TOKEN"];
            token.as_str().unwrap().to_owned()
        };

        act("pause").await;
        Wire::refused(client.entry("echo")).await;
        stands(&client, "unauthorized", 503).await;
        act("resume").await;
        stands(&client, "connected", 200).await;

        let token = again().await;
        Wire::refused(client.entry("echo")).await;
        stands(&client, "unauthorized", 503).await;
        let written = session.directory().join("token.new");
        std::fs::write(&written, token).unwrap();
        std::fs::rename(&written, &file).unwrap();
        stands(&client, "connected", 200).await;
        said(client.entry("echo"), "the next generation").await;

        // Where the token is there in time, nothing is refused at all.
        let token = again().await;
        std::fs::write(&file, token).unwrap();
        said(client.entry("echo"), "and the one after it").await;
    });
    let [quic, h2, h1] = each;
    tokio::join!(quic, h2, h1);
}
