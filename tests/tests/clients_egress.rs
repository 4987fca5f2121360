//! Real client programs through the egress proxy, configured by the env bundle and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::origin::{pattern_digest, write_pattern};
use e2e::{Ask, Program, Record, Session, World, flows, servers};

/// `curl` in a session's environment.
fn curl(session: &Session, arguments: &[&str]) -> Program {
    let curl = Program::new("curl").args(["-sS", "--max-time", "30"]);
    session.program(curl).args(arguments)
}

/// Asserts a record of a tunnel or request to `target` that this session's clients ended themselves.
///
/// A program that exits with bytes unread ends with RST, whatever it meant; and one that first asks without
/// its credential leaves a 407 before. Neither is the gateway's doing.
async fn recorded(world: &World, session: &Session, target: &str) {
    let own = |record: &Record| {
        let ended = ["completed", "reset"].contains(&record.text("outcome"));
        let ours = record.0["session"]["id"] == session.json["id"];
        // A tunnel that carries plain HTTP counts bytes in the records of its requests.
        let bytes = |way| record.number(way).unwrap_or(0);
        let moved = bytes("bytesUp") + bytes("bytesDown") > 0;
        ours && ended && moved && record.text("target") == target
    };
    let what = format!("a record of {target} with bytes, that ended by itself");
    let record = world.gateway.record(&what, own).await;
    assert_ne!(record.text("closedBy"), "gateway", "{record:?}");
    for record in world.gateway.records() {
        assert!(!record.mentions(session.handle()), "{record:?}");
    }
}

#[tokio::test]
async fn curl_over_the_plain_proxy() {
    let world = World::start().await;
    let session = world.session().await;
    let (api, plain) = (world.api(), world.plain());
    for base in [format!("https://{api}"), format!("http://{plain}")] {
        let text = curl(&session, &["--fail", &format!("{base}/echo")])
            .run()
            .await
            .succeeded();
        assert!(text.contains("\"GET\""), "{text}");
        let file = session.directory().join("upload");
        write_pattern(5_000_000, &mut std::fs::File::create(&file).unwrap()).unwrap();
        let upload = curl(
            &session,
            &["-T", file.to_str().unwrap(), &format!("{base}/upload")],
        );
        let expected = format!("5000000 {}\n", pattern_digest(5_000_000));
        assert_eq!(upload.run().await.succeeded(), expected, "{base}");
        let down = session.directory().join("download");
        let url = format!("{base}/download?bytes=7000001");
        curl(&session, &["--fail", "-o", down.to_str().unwrap(), &url])
            .run()
            .await
            .succeeded();
        let sum = Program::new("sha256sum").arg(&down).run().await.succeeded();
        assert!(sum.starts_with(&pattern_digest(7_000_001)), "{base}: {sum}");
    }
    for target in [api, plain] {
        recorded(&world, &session, &target).await;
    }
    for seen in world.http.seen().iter().chain(&world.https.seen()) {
        assert_eq!(seen.values("proxy-authorization"), Vec::<&str>::new());
    }
}

#[tokio::test]
async fn curl_over_the_tls_proxy() {
    let world = World::start().await;
    let session = world.session().await;
    let bundle = session.bundle();
    let bundle = bundle.to_str().unwrap();
    let proxy = format!("https://127.0.0.1:{}", world.gateway.ports.public.port());
    let credential = session.userinfo().to_owned();
    let through = [
        "--proxy",
        &proxy,
        "--proxy-cacert",
        bundle,
        "--proxy-user",
        &credential,
    ];
    for url in [
        format!("https://{}/echo", world.api()),
        format!("http://{}/echo", world.plain()),
    ] {
        let text = curl(&session, &through)
            .args(["--fail", &url])
            .run()
            .await
            .succeeded();
        assert!(text.contains("\"GET\""), "{url}: {text}");
    }
    recorded(&world, &session, &world.api()).await;
}

#[tokio::test]
async fn curl_sees_refusals() {
    let world = World::start().await;
    let session = world.session().await;
    let denied = curl(&session, &["-i", "http://evil.test/"])
        .run()
        .await
        .succeeded();
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let lower = denied.to_lowercase();
    assert!(
        lower.contains("\nproxy-status: sluicegate; error="),
        "{denied}"
    );
    assert!(
        denied.contains("\"reason\":\"host_not_allowed\""),
        "{denied}"
    );
    let tunnel = curl(&session, &["-v", "https://evil.test/"]).run().await;
    assert_eq!(tunnel.code, Some(56), "CONNECT refused: {}", tunnel.stderr);
    assert!(tunnel.stderr.contains("403"), "{}", tunnel.stderr);
    let bare = format!("http://{}", session.proxy_address());
    let url = format!("http://{}/echo", world.plain());
    let unnamed = curl(&session, &["-i", "--proxy", &bare, &url])
        .run()
        .await
        .succeeded();
    assert!(unnamed.starts_with("HTTP/1.1 407"), "{unnamed}");
    assert!(
        unnamed
            .to_lowercase()
            .contains("\nproxy-authenticate: basic"),
        "{unnamed}"
    );
    assert_eq!(world.dns.queries(), [], "a denied name was resolved");
    for (target, reason) in [
        ("evil.test:80", "host_not_allowed"),
        ("evil.test:443", "host_not_allowed"),
    ] {
        assert_eq!(world.gateway.record_of(target).await.text("reason"), reason);
    }
}

#[tokio::test]
async fn curl_speaks_h2_to_nginx_inside_the_tunnel() {
    let world = World::start().await;
    let nginx = servers::nginx(&world.ca, &["nginx.allowed.test"]).await;
    world.dns.point("nginx.allowed.test");
    std::fs::write(nginx.path("html/page"), "from nginx\n").unwrap();
    let target = format!("nginx.allowed.test:{}", nginx.address.port());
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let url = format!("https://{target}/page");
    let curl = curl(&session, &["--fail", "-w", "%{http_version}", &url]);
    assert_eq!(curl.run().await.succeeded(), "from nginx\n2");
    recorded(&world, &session, &target).await;
}

#[tokio::test]
async fn wget() {
    let world = World::start().await;
    let session = world.session().await;
    let bundle = session.bundle();
    for base in [
        format!("https://{}", world.api()),
        format!("http://{}", world.plain()),
    ] {
        let wget = session.program(Program::new("wget").args(["-q", "-O", "out", "--tries=1"]));
        let ca = format!("--ca-certificate={}", bundle.display());
        wget.arg(ca)
            .arg(format!("{base}/download?bytes=3000001"))
            .run()
            .await
            .succeeded();
        let sum = session
            .program(Program::new("sha256sum").arg("out"))
            .run()
            .await
            .succeeded();
        assert!(sum.starts_with(&pattern_digest(3_000_001)), "{base}: {sum}");
    }
    recorded(&world, &session, &world.plain()).await;
}

#[tokio::test]
async fn git_clones_and_pushes_over_https() {
    let world = World::start().await;
    let session = world.session().await;
    let base = format!("https://{}", world.api());
    flows::git(&base, world.root(), session.directory(), |git| {
        session.program(git)
    })
    .await;
    let asked = world.https.seen();
    let came = |end: &str| asked.iter().any(|seen| seen.target.ends_with(end));
    assert!(
        came("/git-receive-pack") && came("/git-upload-pack"),
        "{asked:?}"
    );
    recorded(&world, &session, &world.api()).await;
}

#[tokio::test]
async fn pip_downloads_from_a_local_index() {
    let world = World::start().await;
    let session = world.session().await;
    let base = format!("https://{}", world.api());
    flows::pip(&base, world.root(), session.directory(), |pip| {
        session.program(pip)
    })
    .await;
    assert!(
        world
            .https
            .seen()
            .iter()
            .any(|seen| seen.target.ends_with(".whl"))
    );
    recorded(&world, &session, &world.api()).await;
}

#[tokio::test]
async fn python_http_clients() {
    let world = World::start().await;
    let session = world.session().await;
    let bases = [
        (format!("https://{}", world.api()), "https://evil.test/"),
        (format!("http://{}", world.plain()), "http://evil.test/"),
    ];
    for client in ["requests", "httpx", "aiohttp"] {
        for (base, denied) in &bases {
            let run = Program::python("http_clients.py").args([client, base, "--denied", denied]);
            let text = session.program(run).run().await.succeeded();
            assert!(
                text.contains(&pattern_digest(3_000_001)),
                "{client} {base}: {text}"
            );
        }
    }
    assert_eq!(world.dns.queries_for("evil.test"), 0);
    recorded(&world, &session, &world.api()).await;
    recorded(&world, &session, &world.plain()).await;
}

#[tokio::test]
async fn python_websockets() {
    let world = World::start().await;
    let (certificate, key) = world
        .ca
        .issue(&["ws.allowed.test"])
        .write(world.root(), "ws");
    let tls = servers::python(
        "ws.py",
        &[certificate.to_str().unwrap(), key.to_str().unwrap()],
    )
    .await;
    let bare = servers::python("ws.py", &[]).await;
    world.dns.point("ws.allowed.test");
    let (tls, bare) = (tls.address.port(), bare.address.port());
    let allow = [
        format!("ws.allowed.test:{tls}"),
        format!("ws.allowed.test:{bare}"),
    ];
    let allow_text: Vec<&str> = allow.iter().map(String::as_str).collect();
    let session = world
        .session_for(Ask {
            allow: &allow_text,
            ..Ask::default()
        })
        .await;
    for (scheme, target) in [("wss", &allow[0]), ("ws", &allow[1])] {
        let run = Program::python("ws.py").args(["use", &format!("{scheme}://{target}/")]);
        session.program(run).run().await.succeeded();
        recorded(&world, &session, target).await;
    }
}

#[tokio::test]
async fn python_grpc_through_connect() {
    let world = World::start().await;
    let (certificate, key) = world
        .ca
        .issue(&["grpc.allowed.test"])
        .write(world.root(), "grpc");
    let files = ["tls", certificate.to_str().unwrap(), key.to_str().unwrap()];
    let server = servers::python("grpc_echo.py", &files).await;
    world.dns.point("grpc.allowed.test");
    let target = format!("grpc.allowed.test:{}", server.address.port());
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let run = Program::python("grpc_echo.py").args(["use", &target, "--tls"]);
    session.program(run).run().await.succeeded();
    assert!(
        world.dns.queries_for("grpc.allowed.test") > 0,
        "the gateway resolved the name"
    );
    recorded(&world, &session, &target).await;
}

#[tokio::test]
async fn node_clients() {
    let world = World::start().await;
    let session = world.session().await;
    let base = format!("https://{}", world.api());
    for client in ["env", "undici", "https-proxy-agent"] {
        let node =
            Program::node("clients.mjs").args([client, &base, "--denied", "https://evil.test/"]);
        let text = session.program(node).run().await.succeeded();
        assert!(
            text.contains(&pattern_digest(2_000_003)),
            "{client}: {text}"
        );
    }
    // undici tunnels plain HTTP too: judged inside CONNECT as absolute-form would be.
    let base = format!("http://{}", world.plain());
    let node =
        Program::node("clients.mjs").args(["undici", &base, "--denied", "http://evil.test/"]);
    session.program(node).run().await.succeeded();
    assert_eq!(world.dns.queries_for("evil.test"), 0);
    recorded(&world, &session, &world.api()).await;
}
