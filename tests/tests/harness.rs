//! The harness against itself, no gateway between: a witness that lies would make every other test worthless.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::IpAddr;
use std::str::FromStr;

use e2e::origin::{pattern_digest, write_pattern};
use e2e::program::{present, tools};
use e2e::{Answer, Ca, Dns, Origin, Program, RawOrigin, Wire, flows, servers};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const NAMES: &[&str] = &["api.allowed.test", "localhost", "127.0.0.1"];

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Query;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_bytes().unwrap()
}

async fn ask(dns: &Dns, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    socket
        .send_to(&query(name, kind), dns.address)
        .await
        .unwrap();
    let mut buffer = [0; 4096];
    let read = e2e::within("a DNS reply", socket.recv(&mut buffer)).await;
    Message::from_bytes(&buffer[..read.unwrap()]).unwrap()
}

#[tokio::test]
async fn dns_answers_as_told_and_remembers_who_asked() {
    let dns = Dns::start().await;
    dns.set(
        "v4.test",
        Answer::Addresses(vec![IpAddr::from([127, 0, 0, 9])]),
    );
    dns.set("alias.test", Answer::Alias("v4.test".into()));
    dns.set("broken.test", Answer::Failing);
    let a = ask(&dns, "alias.test.", RecordType::A).await;
    assert_eq!(a.answers.len(), 2, "{a:?}");
    let empty = ask(&dns, "v4.test.", RecordType::AAAA).await;
    assert_eq!(
        (empty.answers.len(), empty.metadata.response_code),
        (0, ResponseCode::NoError)
    );
    let broken = ask(&dns, "broken.test.", RecordType::A).await;
    assert_eq!(broken.metadata.response_code, ResponseCode::ServFail);
    let missing = ask(&dns, "Missing.Test.", RecordType::A).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        (
            dns.queries_for("missing.test"),
            dns.queries_for("never.test")
        ),
        (1, 0)
    );
    assert_eq!(dns.queries().len(), 4);
}

#[tokio::test]
async fn dns_over_tcp_answers_too() {
    let dns = Dns::start().await;
    dns.point("v4.test");
    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    let query = query("v4.test.", RecordType::A);
    stream.write_u16(query.len() as u16).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(Message::from_bytes(&reply).unwrap().answers.len(), 1);
}

#[tokio::test]
async fn origin_tells_what_reached_it() {
    let origin = Origin::http("/nonexistent".into()).await;
    let mut wire = Wire::dial(origin.address).await;
    wire.send("GET /echo?q=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-One: 2\r\n\r\n")
        .await;
    let echo = wire.reply().await.json();
    assert_eq!(echo["request"]["target"], "/echo?q=1");
    assert_eq!(origin.saw("/echo?q=1").values("x-one"), ["1", "2"]);
    wire.send("GET /chunked HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(head.value("trailer"), "x-checksum");
    assert_eq!(wire.chunk().await.unwrap(), b"first,");
    assert_eq!(wire.chunk().await.unwrap(), b"second");
    assert_eq!(wire.chunk().await, None);
    assert_eq!(
        wire.through(b"\r\n\r\n").await,
        b"x-checksum: of-the-trailer\r\n\r\n"
    );
    assert_eq!(origin.connections(), 1, "one connection carried both");
}

#[tokio::test]
async fn origin_streams_events_as_they_come() {
    let origin = Origin::http("/nonexistent".into()).await;
    let mut wire = Wire::dial(origin.address).await;
    wire.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.head().await.value("content-type"), "text/event-stream");
    assert_eq!(origin.event(Some("one".into())), 1);
    assert_eq!(wire.chunk().await.unwrap(), b"data: one\n\n");
    wire.stays_quiet().await;
    origin.event(None);
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test]
async fn origin_upgrades_and_refuses_expectations() {
    let origin = Origin::http("/nonexistent".into()).await;
    let mut wire = Wire::dial(origin.address).await;
    wire.send(
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly",
    )
    .await;
    assert_eq!(wire.head().await.status, 101);
    assert_eq!(wire.take(5).await, b"early");
    wire.finish().await;
    assert_eq!(wire.rest().await, (Vec::new(), e2e::raw::End::Fin));
    let mut wire = Wire::dial(origin.address).await;
    let expect = "Expect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    wire.send(format!("POST /refuse HTTP/1.1\r\nHost: a\r\n{expect}"))
        .await;
    assert_eq!(wire.head().await.status, 417);
    let mut wire = Wire::dial(origin.address).await;
    wire.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{expect}"))
        .await;
    assert_eq!(wire.head().await.status, 100);
    wire.send("body").await;
    assert!(wire.reply().await.text().starts_with("4 "));
}

#[tokio::test]
async fn raw_origin_tells_fin_from_reset() {
    let origin = RawOrigin::start().await;
    let wire = Wire::dial(origin.address).await;
    let mut accepted = origin.accept().await;
    wire.abort();
    assert_eq!(e2e::raw::drain(&mut accepted).await.1, e2e::raw::End::Reset);
    let mut wire = Wire::dial(origin.address).await;
    let mut accepted = origin.accept().await;
    wire.finish().await;
    assert_eq!(e2e::raw::drain(&mut accepted).await.1, e2e::raw::End::Fin);
    origin.stays_alone().await;
}

#[tokio::test]
async fn patterns_are_the_same_read_or_written() {
    use sha2::Digest;
    let mut written = Vec::new();
    write_pattern(200_001, &mut written).unwrap();
    let digest = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&written));
    assert_eq!(digest, pattern_digest(200_001));
    assert_ne!(digest, pattern_digest(200_000));
}

/// The clients of the other tests, straight to the origin: what fails there and not here is the gateway's.
#[tokio::test]
async fn http_clients_work_without_a_gateway() {
    let (ca, directory) = (Ca::create(), tempfile::tempdir().unwrap());
    let origin = Origin::https(directory.path().into(), &ca, NAMES).await;
    let bundle = directory.path().join("ca.pem");
    std::fs::write(&bundle, ca.pem()).unwrap();
    let base = format!("https://localhost:{}", origin.port());
    for client in ["requests", "httpx", "aiohttp"] {
        let run = Program::python("http_clients.py").args([client, &base]);
        let run = run
            .env("SSL_CERT_FILE", &bundle)
            .env("REQUESTS_CA_BUNDLE", &bundle);
        let text = run.run().await.succeeded();
        assert!(
            text.contains(&pattern_digest(3_000_001)),
            "{client}: {text}"
        );
    }
    let node = Program::node("clients.mjs").args(["env", &base]);
    let text = node
        .env("NODE_EXTRA_CA_CERTS", &bundle)
        .run()
        .await
        .succeeded();
    assert!(text.contains(&pattern_digest(2_000_003)), "{text}");
}

#[tokio::test]
async fn git_and_pip_work_without_a_gateway() {
    let (ca, root) = (Ca::create(), tempfile::tempdir().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::https(root.path().into(), &ca, NAMES).await;
    let bundle = directory.path().join("ca.pem");
    std::fs::write(&bundle, ca.pem()).unwrap();
    let base = format!("https://localhost:{}", origin.port());
    let dress = |program: Program| {
        let program = program
            .env("GIT_SSL_CAINFO", &bundle)
            .env("SSL_CERT_FILE", &bundle);
        program
            .env("REQUESTS_CA_BUNDLE", &bundle)
            .cwd(directory.path())
    };
    flows::git(&base, root.path(), directory.path(), dress).await;
    flows::pip(&base, root.path(), directory.path(), dress).await;
}

#[tokio::test]
async fn the_gestalt_sdk_works_without_a_gateway() {
    let program = present(&tools().join("gestalt/debug/gestalt-cache"));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("cache.sock");
    let serve = Program::new(&program)
        .arg("serve")
        .env("GESTALT_PROVIDER_SOCKET", &socket);
    let _provider = serve.start(&directory.path().join("log"));
    e2e::until("the provider's socket", || socket.exists().then_some(())).await;
    let using = Program::new(&program)
        .arg("use")
        .env("GESTALT_HOST_SERVICE_SOCKET", &socket);
    assert_eq!(using.run().await.succeeded(), "cache ok\n");
}

/// No proxy and no trust store of the machine's may reach a client by accident.
#[tokio::test]
async fn programs_start_with_a_clean_environment() {
    let env = Program::new("env").run().await.succeeded();
    let mut names: Vec<&str> = env
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "PATH"]);
}

#[tokio::test]
async fn grpc_and_websockets_work_without_a_gateway() {
    let (ca, directory) = (Ca::create(), tempfile::tempdir().unwrap());
    let (certificate, key) = ca.issue(NAMES).write(directory.path(), "leaf");
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let bundle = directory.path().join("ca.pem");
    std::fs::write(&bundle, ca.pem()).unwrap();
    let socket = format!("unix:{}", directory.path().join("grpc.sock").display());
    let _unix = servers::python("grpc_echo.py", &[&socket]).await;
    let client = Program::python("grpc_echo.py").args(["use", &socket]);
    client.run().await.succeeded();
    let tls = servers::python("grpc_echo.py", &["tls", certificate, key]).await;
    let target = format!("localhost:{}", tls.address.port());
    let client = Program::python("grpc_echo.py").args(["use", &target, "--tls"]);
    let client = client.env("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", &bundle);
    client.run().await.succeeded();
    let ws = servers::python("ws.py", &[certificate, key]).await;
    let uri = format!("wss://localhost:{}/", ws.address.port());
    let client = Program::python("ws.py").args(["use", &uri]);
    client.env("SSL_CERT_FILE", &bundle).run().await.succeeded();
}

#[tokio::test]
async fn databases_and_nginx_start() {
    let redis = servers::redis().await;
    let port = redis.address.port().to_string();
    let ping = Program::new("redis-cli")
        .args(["-p", &port, "ping"])
        .run()
        .await;
    assert_eq!(ping.succeeded(), "PONG\n");
    let postgres = servers::postgres().await;
    let port = postgres.address.port().to_string();
    let psql = Program::new("psql").args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
    let answer = psql.args(["-Atc", "select 6*7"]).run().await.succeeded();
    assert_eq!(answer, "42\n");
    let ca = Ca::create();
    let nginx = servers::nginx(&ca, NAMES).await;
    std::fs::write(nginx.path("html/page"), "a page\n").unwrap();
    let bundle = nginx.path("ca.pem");
    std::fs::write(&bundle, ca.pem()).unwrap();
    let url = format!("https://localhost:{}/page", nginx.address.port());
    let curl = Program::new("curl")
        .args(["-sS", "--fail", "--cacert"])
        .arg(&bundle);
    let curl = curl.args(["-w", "%{http_version}", &url]).run().await;
    assert_eq!(curl.succeeded(), "a page\n2");
}
