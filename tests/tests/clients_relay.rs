//! Real programs through the relay: databases, gRPC, bulk, and the Gestalt SDK.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::origin::pattern_digest;
use e2e::program::{present, tools};
use e2e::relay::{TRANSPORTS, recorded, relayed};
use e2e::servers::{self, postgres_programs};
use e2e::{Ask, Program, Record, RelayClient, Session, Settings, World};

/// Carried each way, over each transport.
const BULK: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn redis() {
    for transport in TRANSPORTS {
        redis_over(transport).await;
    }
}

async fn redis_over(transport: &str) {
    let world = World::start().await;
    let server = servers::redis().await;
    let (session, _client, port) = relayed(
        transport,
        &world,
        "redis",
        &format!("tcp://{}", server.address),
    )
    .await;
    let cli = |arguments: &[&str]| {
        Program::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
    };
    assert_eq!(
        cli(&["set", "key", "through the gate"])
            .run()
            .await
            .succeeded(),
        "OK\n"
    );
    let direct = Program::new("redis-cli").args(["-p", &server.address.port().to_string()]);
    assert_eq!(
        direct.args(["get", "key"]).run().await.succeeded(),
        "through the gate\n"
    );
    let count = cli(&["eval", "return redis.call('incrby', 'n', 42)", "0"])
        .run()
        .await
        .succeeded();
    assert_eq!(count, "42\n");
    let bench = Program::new("redis-benchmark").args(["-p", &port, "-q", "--csv"]);
    let bench = bench.args([
        "-t",
        "set,get,lpush,mset",
        "-n",
        "5000",
        "-c",
        "20",
        "-P",
        "8",
        "-d",
        "512",
    ]);
    let text = bench.patience(LONG).run().await;
    let text = text.succeeded();
    let rows = text
        .lines()
        .filter(|line| line.contains("\"GET\"") || line.contains("\"SET\""))
        .count();
    assert_eq!(rows, 2, "{text}");
    recorded(&world, &session, "redis").await;
}

#[tokio::test]
async fn redis_over_unix_sockets_on_both_sides() {
    let world = World::start().await;
    let server = servers::redis().await;
    let url = format!("redis=unix://{}", server.path("redis.sock").display());
    let session = world
        .session_for(Ask {
            services: &[&url],
            ..Ask::default()
        })
        .await;
    let _client = RelayClient::up(&session, &[RelayClient::unix(&session, "redis")]).await;
    let cli = Program::new("redis-cli")
        .arg("-s")
        .arg(RelayClient::socket(&session, "redis"));
    assert_eq!(cli.arg("ping").run().await.succeeded(), "PONG\n");
    recorded(&world, &session, "redis").await;
}

#[tokio::test]
async fn postgresql() {
    for transport in TRANSPORTS {
        postgresql_over(transport).await;
    }
}

async fn postgresql_over(transport: &str) {
    let world = World::start().await;
    let server = servers::postgres().await;
    let (session, _client, port) = relayed(
        transport,
        &world,
        "postgres",
        &format!("tcp://{}", server.address),
    )
    .await;
    let reach = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let psql = |sql: &str| {
        Program::new("psql")
            .args(reach)
            .args(["-v", "ON_ERROR_STOP=1", "-Atc", sql])
    };
    // sslmode=prefer is psql's default: an SSLRequest goes first, and the server declines it.
    psql("create table t as select n, md5(n::text) m from generate_series(1, 50000) n")
        .run()
        .await
        .succeeded();
    let digest = "select md5(string_agg(m, ',' order by n)) from t";
    let through = psql(digest).run().await.succeeded();
    let direct_port = server.address.port().to_string();
    let direct =
        Program::new("psql").args(["-h", "127.0.0.1", "-p", &direct_port, "-U", "postgres"]);
    assert_eq!(
        direct.args(["-Atc", digest]).run().await.succeeded(),
        through
    );
    let copied = psql("copy t to stdout").run().await.succeeded();
    assert_eq!(copied.lines().count(), 50_000);
    let pgbench = || {
        Program::new(postgres_programs().join("pgbench"))
            .args(reach)
            .patience(LONG)
    };
    pgbench()
        .args(["-i", "-q", "-s", "1", "postgres"])
        .run()
        .await
        .succeeded();
    let run = pgbench()
        .args([
            "-c", "8", "-j", "2", "-t", "50", "-M", "extended", "postgres",
        ])
        .run()
        .await;
    let text = run.succeeded();
    assert!(
        text.contains("400/400") && text.contains("failed transactions: 0"),
        "{text}"
    );
    recorded(&world, &session, "postgres").await;
}

#[tokio::test]
async fn bulk_each_way() {
    let expected = pattern_digest(BULK);
    for transport in TRANSPORTS {
        bulk_each_way_over(transport, &expected).await;
    }
}

async fn bulk_each_way_over(transport: &str, expected: &str) {
    let world = World::start().await;
    let (session, _client, port) = relayed(
        transport,
        &world,
        "files",
        &format!("tcp://{}", world.http.address),
    )
    .await;
    let size = BULK;
    let base = format!("http://127.0.0.1:{port}");
    // --noproxy: the relay's listener is local, and the bundle's NO_PROXY says so too.
    let pipe = |script: String| {
        Program::new("bash")
            .args(["-o", "pipefail", "-c", &script])
            .patience(LONG)
    };
    let get = format!("curl -sS --fail '{base}/download?bytes={size}' | sha256sum");
    let got = pipe(get).run().await.succeeded();
    assert!(got.starts_with(expected), "{got}");
    let direct = format!("http://{}/download?bytes={size}", world.http.address);
    let put = format!("curl -sS --fail '{direct}' | curl -sS --fail -T - '{base}/upload'");
    assert_eq!(
        pipe(put).run().await.succeeded(),
        format!("{size} {expected}\n")
    );
    let gateway = &world.gateway;
    let whole = |key: &'static str| move |r: &Record| r.number(key).is_some_and(|n| n >= size);
    gateway
        .record("the download's record", whole("bytesDown"))
        .await;
    gateway
        .record("the upload's record", whole("bytesUp"))
        .await;
    drop(session);
}

#[tokio::test]
async fn grpc_over_the_relay_client() {
    for transport in TRANSPORTS {
        grpc_over_the_relay_client_over(transport).await;
    }
}

async fn grpc_over_the_relay_client_over(transport: &str) {
    let world = World::start().await;
    let socket = world.root().join("grpc.sock");
    let _server = servers::python("grpc_echo.py", &[&format!("unix:{}", socket.display())]).await;
    let (session, _client, port) = relayed(
        transport,
        &world,
        "echo",
        &format!("unix://{}", socket.display()),
    )
    .await;
    let run = Program::python("grpc_echo.py").args(["use", &format!("127.0.0.1:{port}")]);
    run.run().await.succeeded();
    recorded(&world, &session, "echo").await;
}

/// `(world, session, target of the public listener)` for a gRPC service named as its proto package.
async fn grpc_world(services: &[&str]) -> (World, Session, String, servers::Server) {
    grpc_world_with(services, &[]).await
}

async fn grpc_world_with(
    services: &[&str],
    options: &[&str],
) -> (World, Session, String, servers::Server) {
    let world = World::start().await;
    let socket = world.root().join("grpc.sock");
    let place = format!("unix:{}", socket.display());
    let arguments = [&[place.as_str()], options].concat();
    let server = servers::python("grpc_echo.py", &arguments).await;
    let services: Vec<String> = services
        .iter()
        .map(|name| format!("{name}=unix://{}", socket.display()))
        .collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    let session = world
        .session_for(Ask {
            services: &services,
            ..Ask::default()
        })
        .await;
    let socket = session.variable("GESTALT_HOST_SERVICE_SOCKET").to_owned();
    let target = socket
        .strip_prefix("tls://")
        .expect("a tls:// target")
        .to_owned();
    (world, session, target, server)
}

#[tokio::test]
async fn grpc_with_a_token_on_the_public_listener() {
    let (world, session, target, _server) = grpc_world(&["echo"]).await;
    let token = session.variable("GESTALT_HOST_SERVICE_TOKEN");
    let client = Program::python("grpc_echo.py").args(["use", &target, "--tls", "--token", token]);
    // grpcio takes http_proxy for TLS targets as well; the bundle's NO_PROXY keeps loopback out of it.
    session.program(client).run().await.succeeded();
    recorded(&world, &session, "echo").await;
    let plain = format!("{}", world.gateway.ports.plain);
    let client = Program::python("grpc_echo.py").args(["use", &plain, "--token", token]);
    session.program(client).run().await.succeeded();
}

/// A service that allows few calls on a connection makes no call wait for another's end.
#[tokio::test]
async fn grpc_calls_do_not_wait_for_each_other() {
    for (streams, crowd) in [
        ("2", &["--calls", "7"][..]),
        // Sixteen connections are all a session may have to one service.
        ("1", &["--calls", "16", "--over"]),
    ] {
        let (_world, session, target, _server) =
            grpc_world_with(&["echo"], &["--streams", streams]).await;
        let token = session.variable("GESTALT_HOST_SERVICE_TOKEN");
        let client = Program::python("grpc_echo.py").args(["crowd", &target, "--tls"]);
        let client = client.args(["--token", token]).args(crowd);
        session.program(client).run().await.succeeded();
    }
}

#[tokio::test]
async fn grpc_refusals_are_grpc_answers() {
    let (world, session, target, server) = grpc_world(&["echo"]).await;
    let token = session.variable("GESTALT_HOST_SERVICE_TOKEN").to_owned();
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    let refused = async |token: &str, code: &str, details: &str| {
        let run = Program::python("grpc_echo.py").args(["refused", &target, "--tls"]);
        let run = run.args(["--token", token, "--code", code, "--details", details]);
        session.program(run).run().await.succeeded();
    };
    let invalid = "invalid-host-service-relay-token";
    refused("nonsense", "UNAUTHENTICATED", invalid).await;
    refused(&forged, "UNAUTHENTICATED", invalid).await;
    drop(server);
    refused(&token, "UNAVAILABLE", "host-service-relay-unavailable").await;
    session.revoke(&world.gateway).await;
    refused(
        &token,
        "UNAUTHENTICATED",
        "invalid-host-service-relay-session",
    )
    .await;
}

#[tokio::test]
async fn a_method_outside_the_services_prefix_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("grpc.sock");
    let socket = socket.to_str().unwrap();
    let _server = servers::python("grpc_echo.py", &[&format!("unix:{socket}")]).await;
    let service = format!("{{url: \"unix://{socket}\", grpc: {{methodPrefix: /e2e.Echo/Unary}}}}");
    let runtime = format!("{LOOPBACK_PROVIDER}      services: {{echo: {service}}}\n");
    let world = World::with(Settings {
        runtime,
        ..Settings::default()
    })
    .await;
    let session = world.session_for(Ask::default()).await;
    let target = session
        .variable("GESTALT_HOST_SERVICE_SOCKET")
        .trim_start_matches("tls://");
    let token = session.variable("GESTALT_HOST_SERVICE_TOKEN");
    for (method, code, details) in [
        // A prefix ends at a path segment: neither a longer name nor a trick of spelling is inside.
        (
            "/e2e.Echo/Seen",
            "PERMISSION_DENIED",
            "host-service-relay-method-not-allowed",
        ),
        (
            "/e2e.Echo/UnaryButLonger",
            "PERMISSION_DENIED",
            "host-service-relay-method-not-allowed",
        ),
        (
            "/e2e.Echo/Unary%2e",
            "PERMISSION_DENIED",
            "host-service-relay-method-not-allowed",
        ),
    ] {
        let run =
            Program::python("grpc_echo.py").args(["refused", target, "--tls", "--token", token]);
        let run = run.args(["--method", method, "--code", code, "--details", details]);
        session.program(run).run().await.succeeded();
    }
    let record = world.gateway.record("a refusal", |r| {
        r.text("reason") == "service_method_not_allowed"
    });
    assert_eq!(record.await.text("outcome"), "refused");
}

#[tokio::test]
async fn the_gestalt_sdk_uses_a_cache_over_the_relay() {
    let program = present(&tools().join("gestalt/debug/gestalt-cache"));
    let world = World::start().await;
    let socket = world.root().join("cache.sock");
    let serve = Program::new(&program)
        .arg("serve")
        .env("GESTALT_PROVIDER_SOCKET", &socket);
    let _provider = serve.start(&world.root().join("cache.log"));
    e2e::until("the provider's socket", || socket.exists().then_some(())).await;
    let url = format!("cache=unix://{}", socket.display());
    let named = format!("cache:main=unix://{}", socket.display());
    let session = world
        .session_for(Ask {
            services: &[&url, &named],
            ..Ask::default()
        })
        .await;
    assert!(
        session
            .variable("GESTALT_HOST_SERVICES")
            .split(',')
            .any(|name| name == "cache")
    );
    let using = |more: &[&str]| session.program(Program::new(&program).arg("use").args(more));
    assert_eq!(using(&[]).run().await.succeeded(), "cache ok\n");
    recorded(&world, &session, "cache").await;
    assert_eq!(using(&["main"]).run().await.succeeded(), "cache ok\n");
    recorded(&world, &session, "cache:main").await;
    // And as any program, at the relay client's socket, whatever carries it.
    for transport in TRANSPORTS {
        let listen = [RelayClient::unix(&session, "cache")];
        let client = RelayClient::up_over(&session, transport, &listen).await;
        client.event("connected").await;
        let socket = RelayClient::socket(&session, "cache");
        let target = format!("unix://{}", socket.display());
        let local = using(&[]).env("GESTALT_HOST_SERVICE_SOCKET", target);
        assert_eq!(local.run().await.succeeded(), "cache ok\n", "{transport}");
        let front = if transport == "quic" {
            "quic"
        } else {
            "connect-tcp"
        };
        let carried = world.gateway.record("the SDK's stream", |record| {
            record.text("front") == front && record.text("service") == "cache"
        });
        carried.await;
    }
    session.revoke(&world.gateway).await;
    let after = using(&[]).run().await;
    assert_eq!(after.code, Some(1));
    assert!(
        after.stderr.contains("invalid-host-service-relay-session"),
        "{}",
        after.stderr
    );
}
