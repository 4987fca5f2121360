//! The management listener away from loopback's trust: client certificates; keys that somebody else keeps; logs and watch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use e2e::program::{Running, binary};
use e2e::tasks::{free_port, listening};
use e2e::{Ca, Program, Settings, World};
use serde_json::{Value, json};

#[tokio::test]
async fn a_client_certificate_is_asked_for_beside_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (servers, operators, others) = (Ca::create(), Ca::create(), Ca::create());
    servers
        .issue(&["127.0.0.1"])
        .write(directory.path(), "server");
    operators.issue_host("ann").write(directory.path(), "ann");
    others
        .issue_host("mallory")
        .write(directory.path(), "mallory");
    std::fs::write(file("servers.pem"), servers.pem()).unwrap();
    std::fs::write(file("operators.pem"), operators.pem()).unwrap();
    let port = free_port().await;
    let world = World::with(Settings {
        listeners: format!(
            "  - {{kind: management, address: \"127.0.0.1:{port}\", tls: {{certificate: \"{}\", key: \"{}\", clientCa: \"{}\"}}}}\n",
            file("server.pem"),
            file("server.key"),
            file("operators.pem"),
        ),
        ..Settings::default()
    })
    .await;
    let url = format!("https://127.0.0.1:{port}");
    let token = world.gateway.state().join("admin.token");
    let status = async |who: Option<&str>, token: &Path| {
        let mut program = Program::new(binary("sluicegate"))
            .args(["status", "--json", "--admin-url", &url])
            .args(["--admin-ca-file", &file("servers.pem")])
            .arg("--admin-token-file")
            .arg(token);
        if let Some(who) = who {
            program = program
                .args(["--admin-certificate-file", &file(&format!("{who}.pem"))])
                .args(["--admin-key-file", &file(&format!("{who}.key"))]);
        }
        program.run().await
    };
    let told = status(Some("ann"), &token).await.succeeded();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["ready"], true, "{told}");
    for who in [None, Some("mallory")] {
        let refused = status(who, &token).await;
        assert_eq!(refused.code, Some(3), "{who:?}: {}", refused.text());
        assert!(
            !refused.stderr.contains("401"),
            "it came to the token: {}",
            refused.stderr
        );
    }
    // The certificate alone opens nothing.
    let wrong = directory.path().join("wrong.token");
    std::fs::write(&wrong, "a-token-that-nobody-made").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&wrong, private).unwrap();
    let refused = status(Some("ann"), &wrong).await;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
}

/// A gateway whose signing key is in its environment.
async fn with_key(directory: &Path, pem: &str, verifying: &str) -> (Running, u16) {
    let port = free_port().await;
    let config = directory.join("sluicegate.yaml");
    let yaml = format!(
        "keys: {{signingKeyEnv: SIGNING_KEY{verifying}}}\n\
         listeners: [{{kind: plain, address: \"127.0.0.1:{port}\"}}]\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let process = Program::new(binary("sluicegate"))
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(directory.join("state"))
        .env("SIGNING_KEY", pem)
        .start(&directory.join("gateway.log"));
    let address = ([127, 0, 0, 1], port).into();
    listening("the gateway", address).await;
    (process, port)
}

async fn kids(port: u16) -> Vec<String> {
    let reply = e2e::web::fetch(([127, 0, 0, 1], port).into(), "/.well-known/jwks.json").await;
    let jwks: Value = serde_json::from_slice(&reply.body).unwrap();
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_signing_key_from_the_environment_signs_and_the_old_one_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let pem = || {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
            .unwrap()
            .serialize_pem()
    };
    let (first, second) = (pem(), pem());
    let (mut process, port) = with_key(directory.path(), &first, "").await;
    let old = kids(port).await;
    assert_eq!(old.len(), 1);
    let cli = async |arguments: &[&str]| {
        Program::new(binary("sluicegate"))
            .args(arguments)
            .arg("--state-dir")
            .arg(directory.path().join("state"))
            .run()
            .await
    };
    let refused = cli(&["keys", "rotate"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.text());
    assert!(
        refused.stderr.contains("configuration"),
        "{}",
        refused.stderr
    );
    let created = cli(&["session", "create", "--id", "one", "--format", "json"]).await;
    let created: Value = serde_json::from_str(&created.succeeded()).unwrap();
    let token = created["env"]["SLUICEGATE_RELAY_TOKEN"].as_str().unwrap();
    let exchanged = async |port: u16| {
        let field = format!("Authorization: Bearer {token}\r\n");
        let address = ([127, 0, 0, 1], port).into();
        e2e::web::request(address, "POST", "/relay/v1/token", &field, "")
            .await
            .status()
    };
    assert_eq!(exchanged(port).await, 200);
    process.signal(rustix::process::Signal::TERM);
    process.wait("the first gateway's end").await;

    let kept = directory.path().join("old.pem");
    std::fs::write(&kept, &first).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&kept, private).unwrap();
    let overlap = format!(", verifyingKeyFiles: [\"{}\"]", kept.display());
    let (mut process, port) = with_key(directory.path(), &second, &overlap).await;
    let both = kids(port).await;
    assert!(both.len() == 2 && both.contains(&old[0]), "{both:?}");
    assert_eq!(
        exchanged(port).await,
        200,
        "a token of the old key, over a restart"
    );
    process.signal(rustix::process::Signal::TERM);
    process.wait("the second gateway's end").await;

    let (_process, port) = with_key(directory.path(), &second, "").await;
    assert!(!kids(port).await.contains(&old[0]));
    assert_eq!(exchanged(port).await, 401, "its key is gone");
}

#[tokio::test]
async fn logs_are_appended_paged_dropped_at_the_bound_and_followed() {
    let world = World::start().await;
    let create = ["session", "create", "--provider", "test", "--id", "one"];
    world.gateway.cli(&create).await.succeeded();
    let path = "/runtime/providers/test/sessions/one/logs";
    let append = async |from: usize, count: usize| {
        let streams = ["stdout", "stderr", "runtime"];
        let records: Vec<Value> = (from..from + count)
            .map(|n| json!({"stream": streams[n % 3], "text": format!("line {n}")}))
            .collect();
        let body = json!({ "records": records }).to_string();
        world.gateway.admin("POST", path, &body).await
    };
    for batch in 0..5 {
        let reply = append(batch * 900, 900).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        assert_eq!(reply.json()["last"], (batch + 1) * 900);
    }
    assert_eq!(append(0, 1001).await.status(), 422);
    // 4,500 came, 4,096 are kept, the oldest are dropped and counted.
    let page = world.gateway.admin("GET", path, "").await.json();
    assert_eq!(page["records"].as_array().unwrap().len(), 200, "by default");
    assert_eq!(page["first"], 405);
    assert_eq!(page["dropped"], 404, "{page:#}");
    assert_eq!(page["records"][0]["text"], "line 404");
    let most = world
        .gateway
        .admin("GET", &format!("{path}?limit=1000&after=4000"), "")
        .await;
    assert_eq!(most.json()["records"].as_array().unwrap().len(), 500);
    for bad in ["limit=1001", "limit=x", "after=-1"] {
        let refused = world
            .gateway
            .admin("GET", &format!("{path}?{bad}"), "")
            .await;
        assert_eq!(refused.status(), 400, "{bad}");
    }
    let logs = [
        "session",
        "logs",
        "one",
        "--provider",
        "test",
        "--after",
        "4498",
        "--json",
    ];
    let printed = world.gateway.cli(&logs).await.succeeded();
    let lines: Vec<Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert_eq!(lines[1]["text"], "line 4499");

    // Followed: what comes later is printed as it comes; and watched: what happens to the session.
    let run = |arguments: &[&str], log: &str| {
        Program::new(binary("sluicegate"))
            .args(arguments)
            .arg("--state-dir")
            .arg(world.gateway.state())
            .start(&world.root().join(log))
    };
    let follow = [
        "session",
        "logs",
        "one",
        "--provider",
        "test",
        "--follow",
        "--after",
        "4500",
    ];
    let following = run(&follow, "follow");
    let watch = ["session", "watch", "one", "--provider", "test", "--json"];
    let watching = run(&watch, "watch");
    // It says nothing at first: what it is not yet subscribed to it cannot print, so it is told until it does.
    let pause = ["session", "pause", "one", "--provider", "test"];
    let resume = ["session", "resume", "one", "--provider", "test"];
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while !watching.said().contains("session.paused") {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{}",
            watching.said()
        );
        world.gateway.cli(&pause).await.succeeded();
        world.gateway.cli(&resume).await.succeeded();
    }
    assert_eq!(append(4500, 1).await.status(), 200);
    e2e::until("the new line", || {
        following.said().contains("line 4500").then_some(())
    })
    .await;
    assert!(!following.said().contains("line 4499"));
}

#[tokio::test]
async fn followed_events_go_on_over_a_restart() {
    let mut world = World::start().await;
    let create = ["session", "create", "--provider", "test", "--id", "one"];
    world.gateway.cli(&create).await.succeeded();
    let following = Program::new(binary("sluicegate"))
        .args(["events", "--follow", "--json", "--after", "0"])
        .arg("--state-dir")
        .arg(world.gateway.state())
        .start(&world.root().join("followed"));
    e2e::until("what was before", || {
        following.said().contains("session.started").then_some(())
    })
    .await;
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    let stop = ["session", "stop", "one", "--provider", "test"];
    world.gateway.cli(&stop).await.succeeded();
    e2e::until("what came after", || {
        following.said().contains("session.stopped").then_some(())
    })
    .await;
    let again = following.said().matches("session.started").count();
    assert_eq!(again, 1, "{}", following.said());
}

/// Files of credentials are read again at a reload; what is signed with is read for each delivery.
#[tokio::test]
async fn rotated_credentials_of_operators_are_good_from_a_reload_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ci.token");
    let write = |path: &Path, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&file, "ci-0123456789abcdef-one");
    let world = World::with(Settings {
        more: format!(
            "admin: {{credentials: [{{name: ci, scopes: [read], tokenFile: \"{}\"}}]}}\n",
            file.display()
        ),
        ..Settings::default()
    })
    .await;
    let status = async |token: &str| {
        let credential = format!("Authorization: Bearer {token}\r\n");
        let path = "/admin/api/v1/sessions";
        let management = world.gateway.ports.management;
        e2e::web::request(management, "GET", path, &credential, "")
            .await
            .status()
    };
    assert_eq!(status("ci-0123456789abcdef-one").await, 200);
    write(&file, "ci-0123456789abcdef-two");
    let own = world.gateway.state().join("admin.token");
    let operator = std::fs::read_to_string(&own).unwrap();
    write(&own, "operator-0123456789abcdef");
    // By whoever still has the old one.
    let credential = format!("Authorization: Bearer {}\r\n", operator.trim());
    let management = world.gateway.ports.management;
    let path = "/admin/api/v1/reload";
    let reloaded = e2e::web::request(management, "POST", path, &credential, "").await;
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    assert_eq!(status("ci-0123456789abcdef-one").await, 401);
    assert_eq!(status("ci-0123456789abcdef-two").await, 200);
    assert_eq!(status(operator.trim()).await, 401);
    assert_eq!(status("operator-0123456789abcdef").await, 200);
    // A file that others can read is refused, and what was good stays so.
    std::fs::write(&file, "ci-0123456789abcdef-six").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = world.gateway.cli(&["reload"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert_eq!(status("ci-0123456789abcdef-two").await, 200);
}

/// Whoever holds requests open, or nothing but connections, keeps out neither operators nor health checks.
#[tokio::test]
async fn a_crowd_on_the_management_listener_keeps_nobody_out() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("tenant.token");
    std::fs::write(&token, "tenant-0123456789abcdef").unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&token, private).unwrap();
    let world = World::with(Settings {
        more: format!(
            "admin: {{connections: 16, requestsPerCredential: 4, credentials: [{{name: tenant, scopes: [read], namespaces: [team], tokenFile: \"{}\"}}]}}\n",
            token.display()
        ),
        ..Settings::default()
    })
    .await;
    let address = world.gateway.ports.management;
    let connect = async || tokio::net::TcpStream::connect(address).await.unwrap();
    let follow = async || {
        let mut stream = connect().await;
        let head = "GET /admin/api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer tenant-0123456789abcdef\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (stream, String::from_utf8_lossy(&status).into_owned())
    };
    let mut open = Vec::new();
    for _ in 0..4 {
        let (stream, status) = follow().await;
        assert_eq!(status, "HTTP/1.1 200");
        open.push(stream);
    }
    assert_eq!(follow().await.1, "HTTP/1.1 429");
    // Many more than there are places, and each of them nobody's.
    for _ in 0..64 {
        // It may be reset before it is known to be there.
        open.extend(tokio::net::TcpStream::connect(address).await);
    }
    // One may come while those that make room are still leaving.
    let operator = std::fs::read_to_string(world.gateway.state().join("admin.token")).unwrap();
    let asked = async |path: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            operator.trim()
        );
        let mut stream = connect().await;
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.ok()?;
        (&status == b"HTTP/1.1 200").then_some(())
    };
    for path in ["/readyz", "/admin/api/v1/status"] {
        e2e::tasks::until_told(path, async || asked(path).await).await;
    }
    // The feeds were let be, and their places are free when they end.
    for stream in &mut open[..4] {
        let mut some = [0; 4096];
        while let Ok(read) = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            stream.read(&mut some),
        )
        .await
        {
            assert_ne!(read.unwrap(), 0, "a feed was cut");
        }
    }
    drop(open);
    let again = async || (follow().await.1 == "HTTP/1.1 200").then_some(());
    e2e::tasks::until_told("a place for one more feed", again).await;
}
