//! What a client tells of itself and of its way: `doctor`, and the status of one that runs.

use std::net::SocketAddr;

use e2e::program::binary;
use e2e::tasks::until_told;
use e2e::{Ask, Link, Program, RelayClient, Session, Tasks, Weather, Wire, World, web};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{echo, made, said, session};

/// What `sluicegate-relay doctor --json` says: its exit code, and each check's outcome by name.
async fn doctor(session: &Session, more: &[&str]) -> (Option<i32>, Value) {
    examined(
        session.program(Program::new(binary("sluicegate-relay"))),
        more,
    )
    .await
}

async fn examined(program: Program, more: &[&str]) -> (Option<i32>, Value) {
    let finished = program.args(["doctor", "--json"]).args(more).run().await;
    let said: Value = serde_json::from_slice(&finished.stdout).expect(&finished.stderr);
    (finished.code, said)
}

fn finding<'a>(said: &'a Value, name: &str) -> &'a Value {
    let checks = said["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_says_what_works_and_what_to_change() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let (_origin, target) = world.raw_origin().await;
    let address = echo(&tasks).await;
    let service = format!("echo=tcp://{address}");
    let ask = Ask {
        allow: &[&target],
        services: &[&service, "down=tcp://127.0.0.1:1"],
        more: &["--expose", "plugin=tcp"],
    };
    let session = world.session_for(ask).await;
    let listen = ["--listen", "echo=tcp://127.0.0.1:0"];
    let plugin = format!("plugin=tcp://{address}");
    let expose = ["--expose", &plugin];
    let proxy = ["--proxy", "127.0.0.1:0", "--canary", &target];
    let flags = [listen.as_slice(), &expose, &proxy].concat();
    let (code, said) = doctor(&session, &flags).await;
    assert_eq!(code, Some(0), "{said}");
    for name in [
        "name",
        "tcp",
        "quic",
        "h2",
        "h1",
        "transport",
        "token",
        "service echo",
        "listener plugin",
        "proxy refuses",
        "proxy passes",
    ] {
        assert_eq!(finding(&said, name)["outcome"], "ok", "{said}");
    }
    // What is refused as it should be is nothing to allow.
    let refuses = finding(&said, "proxy refuses")["detail"].to_string();
    assert!(!refuses.contains("allowedHosts"), "{refuses}");
    let wins = |said: &Value| finding(said, "transport")["detail"].to_string();
    let mut told = wins(&said);
    // Where the machine is busy HTTP/2 may answer before QUIC does.
    for _ in 0..20 {
        if told.contains("first") {
            break;
        }
        told = wins(&doctor(&session, &flags).await.1);
    }
    assert!(told.contains("quic") && told.contains("first"), "{told}");

    let nosuch = format!("nosuch=tcp://{address}");
    let more = [
        "--listen",
        "down=tcp://127.0.0.1:0",
        "--listen",
        "other=tcp://127.0.0.1:0",
        "--expose",
        "plugin=tcp://127.0.0.1:1",
        "--expose",
        &nosuch,
    ];
    let (code, said) = doctor(&session, &more).await;
    assert_eq!(code, Some(1), "{said}");
    for (name, reason) in [
        ("service down", "service_unavailable"),
        ("service other", "service_not_allowed"),
        ("listener plugin", "refused"),
        ("listener nosuch", "listener_not_allowed"),
    ] {
        let found = finding(&said, name);
        assert_eq!(found["outcome"], "failed", "{said}");
        assert!(
            found["detail"].as_str().unwrap().contains(reason),
            "{found}"
        );
        assert!(found["advice"].is_string(), "{found}");
    }

    let forged = session.directory().join("forged");
    std::fs::write(&forged, "e30.e30.AAAA").unwrap();
    let more = ["--token-file", forged.to_str().unwrap()];
    let (code, said) = doctor(&session, &more).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(finding(&said, "token")["outcome"], "failed");

    let nowhere = ["--url", "https://127.0.0.1:1"];
    let (code, said) = doctor(&session, &nowhere).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(finding(&said, "tcp")["outcome"], "failed");
    assert_eq!(finding(&said, "token")["outcome"], "skipped");
}

/// Each fault on the way has a finding of its own, and something to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_knows_each_fault_of_the_way() {
    let world = World::start().await;
    let key = tempfile::tempdir().unwrap();
    let key = key.path().join("key.pem");
    let thumbprint = made(&key).await;
    let ask = Ask {
        services: &["down=tcp://127.0.0.1:1"],
        more: &["--client-key", &thumbprint],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let key = ["--key", key.to_str().unwrap()];
    let link = Link::start(world.gateway.ports.public, Weather::default(), 1).await;
    link.swallow_udp(true);
    let stranger = session.directory().join("stranger.pem");
    std::fs::write(&stranger, e2e::Ca::create().pem()).unwrap();
    let (url, public) = (link.url(), world.gateway.ports.public);
    let by_address = format!("https://127.0.0.1:{}", public.port());
    let by_name = format!("https://gateway.invalid:{}", public.port());
    let faults: [(&str, &[&str], &str, &str, &str); 5] = [
        (
            "no such name",
            &["--url", &by_name],
            "name",
            "failed",
            "resolver",
        ),
        ("no UDP", &["--url", &url], "quic", "warning", "open UDP"),
        (
            "not trusted",
            &["--ca", stranger.to_str().unwrap()],
            "h2",
            "failed",
            "--ca",
        ),
        (
            "no key",
            &["--url", &by_address],
            "token",
            "failed",
            &thumbprint,
        ),
        (
            "a proxy that reaches nothing",
            &["--proxy", "127.0.0.1:0", "--canary", "denied.test:443"],
            "proxy passes",
            "failed",
            "allowedHosts",
        ),
    ];
    for (what, arguments, check, outcome, advice) in faults {
        let with_key = if what == "no key" { &[][..] } else { &key };
        let mut program = session.program(Program::new(binary("sluicegate-relay")));
        if what == "not trusted" {
            // The bundle's own, which stand for the system's.
            program = program.env("SSL_CERT_FILE", &stranger);
        }
        let (_, said) = examined(program, &[arguments, with_key].concat()).await;
        let found = finding(&said, check);
        assert_eq!(found["outcome"], outcome, "{what}: {said}");
        let told = found["advice"].as_str().unwrap_or_default();
        assert!(told.contains(advice), "{what}: {found}");
        if what == "no UDP" {
            let wins = finding(&said, "transport")["detail"].to_string();
            let expected = wins.contains("h2") && wins.contains("quic had not answered");
            assert!(expected, "{wins}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_client_tells_how_it_is() {
    let (tasks, world) = (Tasks::default(), World::start().await);
    let session = session(&world, echo(&tasks).await).await;
    let more = ["--transport", "h2", "--status", "127.0.0.1:0"];
    let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("echo")]).await;
    client.event("connected").await;
    let event = client.event("status").await;
    let url = event["address"].as_str().unwrap();
    let place = url.strip_prefix("http://").unwrap();
    let address: SocketAddr = place.parse().unwrap();
    let mut stream = TcpStream::connect(client.entry("echo")).await.unwrap();
    said(&mut stream, b"hello").await;

    let told = web::fetch(address, "/status").await.json();
    assert_eq!(told["state"], "connected", "{told}");
    assert_eq!(told["transport"], "h2", "{told}");
    assert_eq!(told["streams"]["open"], 1, "{told}");
    assert_eq!(told["connections"], 1, "one is enough: {told}");
    assert!(told["noMoreConnections"].is_null(), "{told}");
    // Nothing has needed a larger one.
    assert_eq!(told["streamWindow"], 512 * 1024, "{told}");
    assert_eq!(told["listen"], serde_json::json!(["echo"]), "{told}");
    let metrics = web::fetch(address, "/metrics").await.text();
    for sample in [
        "sluicegate_relay_connected{transport=\"h2\"} 1",
        "sluicegate_relay_connected{transport=\"quic\"} 0",
        "sluicegate_relay_transport_info{transport=\"h2\",reason=\"forced\"} 1",
        "sluicegate_relay_chosen_total{transport=\"h2\",reason=\"forced\"} 1",
        "sluicegate_relay_connections 1",
        "sluicegate_relay_stream_window_bytes 524288",
        "sluicegate_relay_streams_open 1",
        "sluicegate_relay_opens_total{result=\"opened\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    }
    assert_eq!(web::fetch(address, "/healthz").await.status(), 200);
    // A page whose name was made to point here.
    for (fields, status) in [
        ("Host: evil.example", 421),
        ("Host: localhost\r\nOrigin: https://evil.example", 403),
    ] {
        let mut wire = Wire::dial(address).await;
        let head = format!("GET /status HTTP/1.1\r\n{fields}\r\n\r\n");
        wire.send(head).await;
        assert_eq!(wire.reply().await.status(), status, "{fields}");
    }
    let ask = || {
        let program = Program::new(binary("sluicegate-relay"));
        program.args(["status", "--status", place]).run()
    };
    let text = ask().await.succeeded();
    assert!(text.contains("connected") && text.contains("h2"), "{text}");

    world.gateway.process.signal(rustix::process::Signal::KILL);
    client.event("reconnecting").await;
    let unhealthy = async || (web::fetch(address, "/healthz").await.status() == 503).then_some(());
    until_told("an unhealthy answer", unhealthy).await;
    assert_eq!(ask().await.code, Some(1));
}
