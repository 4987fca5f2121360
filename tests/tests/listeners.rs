//! Real programs on the host that dial what a sandbox exposes, and services that are told who speaks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::PathBuf;

use e2e::raw::End;
use e2e::servers::{self, postgres_programs};
use e2e::tasks::free_port;
use e2e::{Ask, Ca, Program, Record, RelayClient, Session, Settings, Wire, World, until, within};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// A session that may expose these, and a client that does.
async fn exposed(world: &World, grants: &[&str], exposes: &[String]) -> (Session, RelayClient) {
    let more: Vec<&str> = grants
        .iter()
        .flat_map(|grant| ["--expose", grant])
        .collect();
    let ask = Ask {
        more: &more,
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let client = RelayClient::exposing(&session, exposes).await;
    offered(world, 2.0 * exposes.len() as f64).await;
    (session, client)
}

/// Until as many accept streams wait.
async fn offered(world: &World, wanted: f64) {
    let gateway = &world.gateway;
    let waiting = async {
        while gateway.metric("sluicegate_accept_streams_waiting ").await < wanted {
            tokio::task::yield_now().await;
        }
    };
    within("the offers", waiting).await;
}

fn target(session: &Session, name: &str) -> String {
    session.json["dialTargets"][name]
        .as_str()
        .unwrap()
        .to_owned()
}

fn socket(session: &Session, name: &str) -> PathBuf {
    target(session, name)
        .strip_prefix("unix://")
        .unwrap()
        .into()
}

fn port(session: &Session, name: &str) -> String {
    let target = target(session, name);
    target.strip_prefix("tcp://127.0.0.1:").unwrap().to_owned()
}

/// Until a dial of it fails as one does where nothing listens.
async fn refused(target: &str) {
    let dial = async || match target.strip_prefix('/') {
        Some(_) => UnixStream::connect(target).await.map(drop),
        None => TcpStream::connect(target).await.map(drop),
    };
    let refusal = async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(10));
        while !dial()
            .await
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            tick.tick().await;
        }
    };
    within("a refusal", refusal).await;
}

async fn recorded(world: &World, name: &str) -> Record {
    let own = |record: &Record| {
        record.text("front") == "listener"
            && record.text("service") == name
            && ["completed", "reset"].contains(&record.text("outcome"))
            && record.number("bytesDown").is_some_and(|bytes| bytes > 0)
    };
    world.gateway.record("a dial's record", own).await
}

#[tokio::test]
async fn redis_in_the_sandbox_answers_redis_cli_on_the_host() {
    let world = World::start().await;
    let server = servers::redis().await;
    let exposes = [
        format!("cache=unix://{}", server.path("redis.sock").display()),
        format!("port=tcp://{}", server.address),
    ];
    let (session, _client) = exposed(&world, &["cache", "port=tcp"], &exposes).await;
    let unix = Program::new("redis-cli")
        .arg("-s")
        .arg(socket(&session, "cache"));
    let set = unix.args(["set", "key", "from the host"]).run().await;
    assert_eq!(set.succeeded(), "OK\n");
    let tcp = Program::new("redis-cli").args(["-p", &port(&session, "port")]);
    let get = tcp.args(["get", "key"]).run().await.succeeded();
    assert_eq!(get, "from the host\n");
    let bench = Program::new("redis-benchmark").args(["-p", &port(&session, "port"), "-q"]);
    let bench = bench.args(["-t", "set,get", "-n", "2000", "-c", "20", "-d", "512"]);
    let text = bench
        .patience(std::time::Duration::from_secs(300))
        .run()
        .await;
    text.succeeded();
    let record = recorded(&world, "cache").await;
    assert!(
        record.text("downstream").starts_with("unix:uid="),
        "{record:?}"
    );
    recorded(&world, "port").await;
}

#[tokio::test]
async fn postgresql_in_the_sandbox_answers_psql_on_the_host() {
    let world = World::start().await;
    let server = servers::postgres().await;
    let exposes = [format!("db=tcp://{}", server.address)];
    let (session, _client) = exposed(&world, &["db=tcp"], &exposes).await;
    let psql = Program::new(postgres_programs().join("psql"))
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port(&session, "db"),
            "-U",
            "postgres",
        ])
        .args([
            "-At",
            "-c",
            "select sum(length(repeat('x', n))) from generate_series(1, 2000) n",
        ]);
    assert_eq!(psql.run().await.succeeded(), "2001000\n");
    recorded(&world, "db").await;
}

#[tokio::test]
async fn a_web_server_in_the_sandbox_answers_curl_by_socket_port_and_tls_name() {
    let ca = Ca::create();
    let hosts = tempfile::tempdir().unwrap();
    let client_ca = hosts.path().join("hosts.pem");
    std::fs::write(&client_ca, ca.pem()).unwrap();
    let (certificate, key) = ca.issue_host("host").write(hosts.path(), "host");
    let private = free_port().await;
    let listener = format!(
        "  - {{kind: private, address: \"127.0.0.1:{private}\", clientCa: \"{}\"}}\n",
        client_ca.display()
    );
    let world = World::with(Settings {
        listeners: listener,
        ..Settings::default()
    })
    .await;
    let server = servers::nginx_plain().await;
    let exposes = ["sock", "port", "web"].map(|name| format!("{name}=tcp://{}", server.address));
    let (session, _client) = exposed(&world, &["sock", "port=tcp", "web=tls"], &exposes).await;
    let curl = || Program::new("curl").args(["-sS", "--max-time", "60"]);
    let unix = curl().arg("--unix-socket").arg(socket(&session, "sock"));
    assert_eq!(
        unix.arg("http://x/").run().await.succeeded(),
        "from nginx\n"
    );
    let url = format!("http://127.0.0.1:{}/", port(&session, "port"));
    assert_eq!(curl().arg(url).run().await.succeeded(), "from nginx\n");

    let tls = target(&session, "web").replace("tls://", "");
    let to = |program: Program| {
        program
            .args(["--connect-to", &format!("{tls}:127.0.0.1:{private}")])
            .arg("--cacert")
            .arg(session.bundle())
            .arg(format!("https://{tls}/"))
    };
    let known = to(curl())
        .arg("--cert")
        .arg(&certificate)
        .arg("--key")
        .arg(&key);
    assert_eq!(known.run().await.succeeded(), "from nginx\n");
    let stranger = to(curl()).run().await;
    assert!(stranger.code != Some(0), "no certificate, no dial");
    let unknown = tls.replace("web--", "none--");
    let unknown = curl()
        .args(["--connect-to", &format!("{unknown}:127.0.0.1:{private}")])
        .args(["--insecure", &format!("https://{unknown}/")])
        .arg("--cert")
        .arg(&certificate)
        .arg("--key")
        .arg(&key);
    assert!(unknown.run().await.code != Some(0));
    let refused = |r: &Record| r.text("reason") == "listener_not_allowed";
    world.gateway.record("an unknown name", refused).await;
}

#[tokio::test]
async fn a_killed_client_fails_dials_and_its_successor_serves_them() {
    let world = World::start().await;
    let server = servers::redis().await;
    let exposes = [format!("cache=tcp://{}", server.address)];
    let (session, client) = exposed(&world, &["cache=tcp"], &exposes).await;
    let cli = || Program::new("redis-cli").args(["-p", &port(&session, "cache"), "ping"]);
    assert_eq!(cli().run().await.succeeded(), "PONG\n");
    client.process.signal(rustix::process::Signal::KILL);
    // What died is noticed with its connection; from then on every dial is refused.
    refused(&format!("127.0.0.1:{}", port(&session, "cache"))).await;
    let _again = RelayClient::exposing(&session, &exposes).await;
    offered(&world, 2.0).await;
    assert_eq!(cli().run().await.succeeded(), "PONG\n");
}

/// Programs see ECONNREFUSED, and nobody gets the port meanwhile, whatever he sets.
#[tokio::test]
async fn a_dial_target_is_refused_while_no_client_is_there() {
    let world = World::start().await;
    let server = servers::redis().await;
    let names = ["sock", "port=tcp"];
    let more: Vec<&str> = names.iter().flat_map(|name| ["--expose", name]).collect();
    let ask = Ask {
        more: &more,
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let (path, port) = (socket(&session, "sock"), port(&session, "port"));
    let address = format!("127.0.0.1:{port}");
    let unix = || Program::new("redis-cli").arg("-s").arg(&path).arg("ping");
    let tcp = || Program::new("redis-cli").args(["-p", &port, "ping"]);
    let theft = || {
        let script = "import socket, sys\ns = socket.socket()\n\
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.argv[2]))\n\
            s.bind(('127.0.0.1', int(sys.argv[1])))\n";
        Program::new("python3").args(["-c", script]).arg(&port)
    };
    let exposes = ["sock", "port"].map(|name| format!("{name}=tcp://{}", server.address));
    for _ in 0..2 {
        for program in [unix(), tcp()] {
            let said = program.run().await;
            assert!(
                said.stderr.contains("Connection refused"),
                "{}",
                said.stderr
            );
        }
        for option in ["0", "1"] {
            let stolen = theft().arg(option).run().await;
            assert!(
                stolen.stderr.contains("Address already in use"),
                "{}",
                stolen.stderr
            );
        }
        let mut client = RelayClient::exposing(&session, &exposes).await;
        offered(&world, 4.0).await;
        assert_eq!(unix().run().await.succeeded(), "PONG\n");
        assert_eq!(tcp().run().await.succeeded(), "PONG\n");
        client.process.signal(rustix::process::Signal::TERM);
        client.process.wait("its end").await;
        refused(path.to_str().unwrap()).await;
        refused(&address).await;
    }
}

#[tokio::test]
async fn a_killed_gateway_comes_back_with_the_ports_it_gave_and_never_with_others() {
    let mut world = World::start().await;
    let server = servers::redis().await;
    let exposes = [format!("cache=tcp://{}", server.address)];
    let (session, _client) = exposed(&world, &["cache=tcp"], &exposes).await;
    let cli = || Program::new("redis-cli").args(["-p", &port(&session, "cache"), "ping"]);
    assert_eq!(cli().run().await.succeeded(), "PONG\n");
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    let shown = show(&world, &session).await;
    assert_eq!(
        shown["dialTargets"]["cache"],
        session.json["dialTargets"]["cache"]
    );
    offered(&world, 2.0).await;
    assert_eq!(cli().run().await.succeeded(), "PONG\n");

    // Somebody takes it while the gateway is away: there is no other target until it is free again.
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    let address = format!("127.0.0.1:{}", port(&session, "cache"));
    let stranger = TcpListener::bind(&address).await.unwrap();
    world.gateway.restart().await;
    let shown = show(&world, &session).await;
    assert_eq!(shown["dialTargets"].get("cache"), None, "{shown}");
    assert!(
        shown["dialErrors"]["cache"]
            .as_str()
            .unwrap()
            .contains(&address)
    );
    missing(&world, 1.0).await;
    drop(stranger);
    let found = async {
        while show(&world, &session).await["dialTargets"]["cache"]
            != session.json["dialTargets"]["cache"]
        {
            tokio::task::yield_now().await;
        }
    };
    within("the port", found).await;
    missing(&world, 0.0).await;
    offered(&world, 2.0).await;
    assert_eq!(cli().run().await.succeeded(), "PONG\n");
}

/// Until so many listeners have no dial target.
async fn missing(world: &World, wanted: f64) {
    let gateway = &world.gateway;
    let counted = async {
        while gateway.metric("sluicegate_dial_targets_missing ").await != wanted {
            tokio::task::yield_now().await;
        }
    };
    within("the count of what is missing", counted).await;
}

async fn show(world: &World, session: &Session) -> serde_json::Value {
    let arguments = [
        "session",
        "show",
        "--provider",
        "test",
        session.id(),
        "--json",
    ];
    let said = world.gateway.cli(&arguments).await.succeeded();
    serde_json::from_str(&said).unwrap()
}

#[tokio::test]
async fn a_dial_target_is_its_owners_and_goes_with_the_generation() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let exposes = [format!("plugin=tcp://{}", nobody.local_addr().unwrap())];
    drop(nobody);
    let (session, _client) = exposed(&world, &["plugin"], &exposes).await;
    let path = socket(&session, "plugin");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut host = UnixStream::connect(&path).await.unwrap();
    // It may be over before a byte is written; what was written and not taken makes it a reset.
    if host.write_all(b"anyone?").await.is_ok() {
        assert_eq!(Wire::over(host).rest().await, (Vec::new(), End::Reset));
    }
    let refused = |r: &Record| r.text("reason") == "listener_refused";
    let record = world.gateway.record("a refused dial", refused).await;
    assert_eq!(record.text("outcome"), "failed");
    session.revoke(&world.gateway).await;
    until("the socket's end", || (!path.exists()).then_some(())).await;
}

/// nginx and haproxy understand the header, and say whom it named.
#[tokio::test]
async fn nginx_and_haproxy_are_told_who_speaks() {
    let (nginx, haproxy) = (servers::nginx_told().await, servers::haproxy_told().await);
    let told = |server: &servers::Server| {
        format!("{{url: \"tcp://{}\", proxyProtocol: v2}}", server.address)
    };
    let services = format!(
        "\nservices:\n  nginx: {}\n  haproxy: {}\n",
        told(&nginx),
        told(&haproxy)
    );
    let world = World::with(Settings {
        more: services,
        ..Settings::default()
    })
    .await;
    let ask = Ask {
        services: &["nginx", "haproxy"],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let listen = ["nginx", "haproxy"].map(RelayClient::tcp);
    let client = RelayClient::up(&session, &listen).await;
    for name in ["nginx", "haproxy"] {
        let url = format!("http://{}/", client.entry(name));
        let curl = Program::new("curl").args(["-sS", "--max-time", "60", &url]);
        let said = curl.run().await.succeeded();
        let own = |record: &Record| record.text("service") == name;
        let record = world.gateway.record("the stream's record", own).await;
        // Everything here is 127.0.0.1: the port tells whose connection was meant.
        assert!(said.contains(record.text("downstream")), "{name}: {said}");
        if name == "haproxy" {
            assert!(said.contains(record.text("id")), "{name}: {said}");
        }
    }
}
