//! The process: reloading, draining, dying; and what survives.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use e2e::gateway::Ports;
use e2e::program::binary;
use e2e::raw::drain;
use e2e::tasks::timed;
use e2e::{Ask, Ca, Program, Settings, Wire, World, until, web, within};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn revoking_cuts_tunnels_within_a_second_and_ends_the_credential() {
    let (world, origin, session, target) = World::with_raw().await;
    let other = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0open").await;
    let _far = origin.accept().await;
    let mut kept = other.tunnel(&target).await;
    kept.send("\0open").await;
    let _kept_far = origin.accept().await;
    session.revoke(&world.gateway).await;
    assert!(wire.cut().await < Duration::from_secs(1));
    assert_eq!(session.connect(&target).await.0.status, 407);
    kept.stays_quiet().await;
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("cut", "session_revoked")
    );
    assert_eq!(record.0["session"]["id"], session.json["id"]);
}

/// A pause refuses what is new. What is open is cut, or goes on where its session says so, until the generation ends.
#[tokio::test]
async fn a_pause_cuts_tunnels_or_holds_them() {
    let world = World::start().await;
    let (origin, target) = world.raw_origin().await;
    for (mode, reason) in [("close", "session_paused"), ("hold", "session_revoked")] {
        let ask = Ask {
            allow: &[&target],
            more: &["--on-pause", mode],
            ..Ask::default()
        };
        let session = world.session_for(ask).await;
        let mut wire = session.tunnel(&target).await;
        wire.send("\0before").await;
        let mut far = Wire::over(origin.accept().await);
        far.through(b"before").await;
        let pause = ["session", "pause", session.id()];
        world.gateway.cli(&pause).await.succeeded();
        assert_eq!(session.connect(&target).await.0.status, 403, "{mode}");
        if mode == "hold" {
            wire.send(", after").await;
            far.through(b", after").await;
            far.send("and back").await;
            wire.through(b"and back").await;
            session.revoke(&world.gateway).await;
        }
        wire.cut().await;
        world
            .gateway
            .record("the tunnel's record", |record| {
                record.text("outcome") == "cut" && record.text("reason") == reason
            })
            .await;
    }
}

#[tokio::test]
async fn drain_refuses_new_work_keeps_the_old_and_then_exits() {
    let (mut world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0before").await;
    let mut far = origin.accept().await;
    world.gateway.terminate();
    // Unready first: management answers while the rest goes.
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while world.gateway.management("/readyz").await.status() == 200 {
        assert!(tokio::time::Instant::now() < deadline, "it stays ready");
    }
    // New work is refused: by a closed port, by an answer, or by the end of a connection that was not taken any more.
    if let Ok(mut late) = TcpStream::connect(world.gateway.ports.plain).await {
        let mut start = [0; 12];
        let asked = async {
            let head = session.connect_head(&target);
            late.write_all(head.as_bytes()).await?;
            late.read_exact(&mut start).await
        };
        if within("an answer or an end", asked).await.is_ok() {
            assert_eq!(&start, b"HTTP/1.1 503");
        }
    }
    // The tunnel still carries.
    wire.send(", during").await;
    wire.finish().await;
    assert_eq!(drain(&mut far).await.0, b"\0before, during");
    drop(far);
    let (code, took) = timed(world.gateway.process.wait("the end of the drain")).await;
    assert_eq!(code, 0);
    assert!(
        took < Duration::from_secs(5),
        "the last tunnel ended, and it went on for {took:?}"
    );
}

#[tokio::test]
async fn drain_forces_what_does_not_end_by_the_deadline() {
    let limits = "  drainTimeout: 1s\n".into();
    let mut world = World::with(Settings {
        limits,
        ..Settings::default()
    })
    .await;
    let (origin, target) = world.raw_origin().await;
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0open").await;
    let _far = origin.accept().await;
    world.gateway.terminate();
    let took = wire.cut().await;
    assert!(took < Duration::from_secs(5), "cut after {took:?}");
    assert_eq!(world.gateway.process.wait("the forced end").await, 0);
    let record = world.gateway.record_of(&target).await;
    assert_eq!(
        (
            record.text("outcome"),
            record.text("reason"),
            record.text("closedBy")
        ),
        ("cut", "draining", "gateway"),
        "{record:?}"
    );
}

#[tokio::test]
async fn drain_does_not_wait_for_idle_keep_alive_connections() {
    let mut world = World::start().await;
    let session = world.session().await;
    let mut wire = session.dial().await;
    let plain = world.plain();
    let host = format!("Host: {plain}\r\n");
    session
        .ask(&mut wire, &format!("GET http://{plain}/echo"), &host)
        .await;
    assert_eq!(wire.reply().await.status(), 200);
    world.gateway.terminate();
    let (code, took) = timed(world.gateway.process.wait("the end of the drain")).await;
    assert_eq!(code, 0);
    assert!(
        took < Duration::from_secs(5),
        "nothing was open, and it went on for {took:?}"
    );
    wire.cut().await;
}

#[tokio::test]
async fn reload_applies_a_good_configuration_and_keeps_the_old_over_a_bad_one() {
    let world = World::start().await;
    let session = world.session().await;
    let mut kept = session.tunnel(&world.plain()).await;
    let dns = Some(world.dns.address);
    let hint = async || {
        let (head, mut wire) = session.connect("evil.test:443").await;
        let length = head.value("content-length").parse().unwrap();
        let body = wire.take(length).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["hint"].is_string()
    };
    assert!(hint().await);
    world.gateway.reconfigure(&Settings {
        dns,
        detail: "minimal",
        ..Settings::default()
    });
    let said = world.gateway.cli(&["reload"]).await.succeeded();
    assert!(said.contains("sluicegate.yaml applied"), "{said}");
    assert!(
        said.contains("session(s) have another policy by it"),
        "{said}"
    );
    assert!(said.contains("open in 1 session(s)"), "{said}");
    assert!(!hint().await, "the new configuration is in force");
    let more = "surprise: 1\n".into();
    world.gateway.reconfigure(&Settings {
        dns,
        more,
        ..Settings::default()
    });
    let refused = world.gateway.cli(&["reload"]).await;
    assert_ne!(refused.code, Some(0), "a bad configuration is refused");
    let said = format!("{}{}", refused.text(), refused.stderr);
    assert!(said.contains("surprise"), "and named: {said}");
    assert!(!hint().await, "the old one stays in force");
    // The same by signal: the gateway's own log says why.
    let before = world.gateway.process.said().matches("surprise").count();
    world.gateway.reload();
    until("the refusal in the log", || {
        (world.gateway.process.said().matches("surprise").count() > before).then_some(())
    })
    .await;
    world.gateway.reconfigure(&Settings {
        dns,
        ..Settings::default()
    });
    world.gateway.reload();
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while !hint().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "SIGHUP never applied the file"
        );
    }
    kept.send("GET /echo HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
        .await;
    assert_eq!(
        kept.reply().await.status(),
        200,
        "an open tunnel outlives reloads"
    );
}

#[tokio::test]
async fn sessions_and_revocations_survive_a_kill() {
    let mut world = World::start().await;
    let (lives, dead) = (world.session().await, world.session().await);
    dead.revoke(&world.gateway).await;
    world.gateway.process.signal(Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    lives.tunnel(&world.plain()).await;
    assert_eq!(dead.connect(&world.plain()).await.0.status, 407);
    let wire = Wire::dial(world.gateway.ports.public).await;
    // The authority is still the one that clients were told to trust.
    wire.tls(lives.gateway_tls(&[b"http/1.1"]), "127.0.0.1")
        .await;
}

/// Nobody comes in on a session that ended while the gateway was away, not even first.
#[tokio::test]
async fn what_ended_while_the_gateway_was_away_opens_nothing() {
    let mut world = World::start().await;
    let mut ended = Vec::new();
    for _ in 0..8 {
        let ask = Ask {
            more: &["--ttl", "1s"],
            ..Ask::default()
        };
        ended.push(world.session_for(ask).await);
    }
    // The last of them was made before now: by then its second is over.
    let over = tokio::time::Instant::now() + Duration::from_secs(1);
    world.gateway.process.signal(Signal::KILL);
    world.gateway.process.wait("the kill").await;
    tokio::time::sleep_until(over).await;
    world.gateway.restart().await;
    for session in &ended {
        assert_eq!(session.connect(&world.plain()).await.0.status, 407);
    }
}

#[tokio::test]
async fn sessions_are_listed_shown_and_printed_for_a_shell() {
    let world = World::start().await;
    let session = world.session().await;
    let list = world
        .gateway
        .cli(&["session", "list", "--json"])
        .await
        .succeeded();
    assert!(list.contains(session.id()), "{list}");
    let shown = [
        "session",
        "show",
        "--provider",
        "test",
        session.id(),
        "--json",
    ];
    let shown = world.gateway.cli(&shown).await.succeeded();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["id"], session.json["id"], "{shown}");
    assert!(
        !shown.to_string().contains(session.handle()),
        "the credential is shown again"
    );
    let create = [
        "session",
        "create",
        "--provider",
        "test",
        "--allow",
        "a.test",
        "--format",
    ];
    let env = world
        .gateway
        .cli(&[&create[..], &["env"]].concat())
        .await
        .succeeded();
    let script = format!("{env}\nprintf %s \"$HTTPS_PROXY\"");
    let shell = Program::new("sh")
        .args(["-c", &script])
        .run()
        .await
        .succeeded();
    assert!(shell.starts_with("http://sluicegate:"), "{shell}");
    let dotenv = world
        .gateway
        .cli(&[&create[..], &["dotenv"]].concat())
        .await
        .succeeded();
    assert!(
        dotenv.lines().any(|line| line.starts_with("HTTPS_PROXY=")),
        "{dotenv}"
    );
}

#[tokio::test]
async fn a_session_cannot_ask_for_more_than_its_operator_admits() {
    let world = World::start().await;
    for more in [
        ["--allow", "10.1.2.3:443"],
        ["--resolve", "x.test=10.0.0.1"],
        ["--allow", "*"],
    ] {
        let refused = e2e::Session::attempt(
            &world.gateway,
            Ask {
                more: &more,
                ..Ask::default()
            },
        );
        let refused = refused.await;
        let said = format!("{}{}", refused.text(), refused.stderr);
        assert_ne!(refused.code, Some(0), "{more:?}: {said}");
        let value = more[1].split('=').next_back().unwrap();
        assert!(
            said.contains(value.split(':').next().unwrap()),
            "{more:?} is named: {said}"
        );
    }
}

#[tokio::test]
async fn a_session_ends_with_its_ttl() {
    let world = World::start().await;
    let (origin, target) = world.raw_origin().await;
    // Long enough to open a tunnel meanwhile, on a machine that is busy too.
    let ask = Ask {
        allow: &[&target],
        more: &["--ttl", "8s"],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0open").await;
    let _far = origin.accept().await;
    assert!(wire.cut().await < Duration::from_secs(12));
    let reply = session.fetch(&target, "/").await;
    assert_eq!(
        reply.status(),
        407,
        "expired is told as unknown: {}",
        reply.text()
    );
}

#[tokio::test]
async fn new_tls_files_are_shown_after_a_reload_and_a_live_tunnel_goes_on() {
    let files = tempfile::tempdir().unwrap();
    let (old, new) = (Ca::create(), Ca::create());
    let (certificate, key) = old.issue(&["127.0.0.1"]).write(files.path(), "gateway");
    let tls = format!(
        "tls: {{certificate: \"{}\", key: \"{}\"}}\n",
        certificate.display(),
        key.display()
    );
    let world = World::with(Settings {
        more: tls,
        ..Settings::default()
    })
    .await;
    let (origin, target) = world.raw_origin().await;
    let ask = Ask {
        allow: &[&target],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let public = world.gateway.ports.public;
    let dial = async |ca: &Ca| {
        let wire = Wire::dial(public).await;
        wire.try_tls(ca.client(&[b"http/1.1"]), "127.0.0.1").await
    };
    let mut live = dial(&old).await.unwrap();
    live.send(session.connect_head(&target)).await;
    assert_eq!(live.head().await.status, 200);
    live.send("\0before").await;
    let mut far = Wire::over(origin.accept().await);
    far.through(b"before").await;
    new.issue(&["127.0.0.1"]).write(files.path(), "gateway");
    world.gateway.reload();
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while dial(&new).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "never the new one");
    }
    assert!(dial(&old).await.is_err(), "the old one is still shown");
    live.send(", after").await;
    far.through(b", after").await;
    far.send("and back").await;
    live.through(b"and back").await;
    // Files that are no certificate change nothing, and are said.
    std::fs::write(&certificate, "rubbish").unwrap();
    world.gateway.reload();
    until("the old configuration to stay", || {
        let said = world.gateway.process.said();
        said.contains("the old configuration stays").then_some(())
    })
    .await;
    dial(&new).await.unwrap();
    live.send("still").await;
    far.through(b"still").await;
}

#[tokio::test]
async fn a_disk_that_fills_up_while_serving_is_told_and_recovered_from() {
    let (state, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ports = Ports::free().await;
    let config = files.path().join("sluicegate.yaml");
    let log = files.path().join("access.jsonl");
    std::fs::write(&config, Settings::default().yaml(ports, &log)).unwrap();
    // A mount namespace of the process's own, which we look into from outside.
    let script = format!(
        "mount -t tmpfs -o size=8m,mode=700 none {} && exec \"$0\" \"$@\"",
        state.path().display()
    );
    let process = Program::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(binary("sluicegate"))
        .args(["serve", "--config"])
        .arg(&config)
        .arg("--state-dir")
        .arg(state.path())
        .start(&files.path().join("gateway.log"));
    e2e::tasks::listening("the gateway", ports.management).await;
    let root = format!("/proc/{}/root{}", process.id(), state.path().display());
    let token = until("the admin token", || {
        std::fs::read_to_string(format!("{root}/admin.token")).ok()
    })
    .await;
    let authorization = format!("Authorization: Bearer {}\r\n", token.trim());
    let create = async || {
        let path = "/admin/api/v1/runtime/providers/test/sessions";
        web::request(ports.management, "POST", path, &authorization, "{}").await
    };
    assert_eq!(create().await.status(), 201);
    let filler = format!("{root}/filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    // The store's file has some room of its own.
    let mut refused = None;
    for _ in 0..5_000 {
        let reply = create().await;
        if reply.status() != 201 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("a full disk is noticed");
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let problem = refused.json();
    assert_eq!(problem["type"], "urn:sluicegate:problem:store-unavailable");
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while create().await.status() != 201 {
        assert!(tokio::time::Instant::now() < deadline, "{}", process.said());
    }
    let ready = web::fetch(ports.management, "/readyz").await;
    assert_eq!(ready.status(), 200, "{}", ready.text());
}

#[tokio::test]
async fn nothing_is_acknowledged_after_the_store_was_taken_away() {
    let world = World::start().await;
    let (store, aside) = (
        world.gateway.state().join("sluicegate.redb"),
        world.gateway.state().join("aside"),
    );
    std::fs::rename(&store, &aside).unwrap();
    let path = "/runtime/providers/test/sessions";
    let refused = world.gateway.admin("POST", path, "{}").await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert_eq!(
        refused.json()["type"],
        "urn:sluicegate:problem:store-unavailable"
    );
    std::fs::rename(&aside, &store).unwrap();
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    while world.gateway.admin("POST", path, "{}").await.status() != 201 {
        assert!(tokio::time::Instant::now() < deadline);
    }
}
