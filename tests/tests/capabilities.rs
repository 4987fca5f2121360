//! Capabilities over the real command line and real tunnels.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::raw::RawOrigin;
use e2e::{Ask, Settings, World};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

const CATALOGUE: &str = "
capabilities:
  plain:
    description: the plain origin
    egress: {allowedHosts: [\"plain.allowed.test:*\"]}
    secrets: [plain-token]
  raw:
    egress: {allowedHosts: [\"raw.allowed.test:*\"]}
  files:
    services: [files]
services:
  files: \"tcp://127.0.0.1:9\"
";

async fn world() -> World {
    World::with(Settings {
        more: CATALOGUE.to_owned(),
        ..Settings::default()
    })
    .await
}

#[tokio::test]
async fn a_capability_opens_and_closes_a_way_and_cuts_exactly_its_tunnels() {
    let world = world().await;
    let (origin, target) = world.raw_origin().await;
    let own = RawOrigin::start().await;
    let kept_target = format!("raw.allowed.test:{}", own.address.port());
    let ask = Ask {
        allow: &[&kept_target],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let run = async |arguments: &[&str]| world.gateway.cli(arguments).await;
    assert_eq!(session.connect(&target).await.0.status, 403);

    run(&["capability", "install", session.id(), "raw"])
        .await
        .succeeded();
    let mut wire = session.tunnel(&target).await;
    wire.send("\0open").await;
    let _far = origin.accept().await;
    let mut kept = session.tunnel(&kept_target).await;
    kept.send("\0open").await;
    let mut kept_far = own.accept().await;

    run(&["capability", "disable", session.id(), "raw"])
        .await
        .succeeded();
    wire.cut().await;
    assert_eq!(session.connect(&target).await.0.status, 403);
    kept_far.write_all(b"still here").await.unwrap();
    assert_eq!(kept.take(10).await, b"still here");

    for (action, status) in [("enable", 200), ("uninstall", 403), ("install", 200)] {
        run(&["capability", action, session.id(), "raw"])
            .await
            .succeeded();
        assert_eq!(session.connect(&target).await.0.status, status, "{action}");
    }
    let missing = run(&["capability", "uninstall", session.id(), "files"]).await;
    assert_eq!(missing.code, Some(4), "{}", missing.stderr);
    let unknown = run(&["capability", "install", session.id(), "nothing"]).await;
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("nothing"), "{}", unknown.stderr);
}

#[tokio::test]
async fn bindings_are_listed_resolved_and_survive_a_kill() {
    let mut world = world().await;
    let ask = Ask {
        more: &["--capability", "plain", "--capability", "files"],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    assert_eq!(session.connect(&world.plain()).await.0.status, 200);

    let json = async |arguments: &[&str]| -> Value {
        let arguments = [arguments, &["--json"]].concat();
        let output = world.gateway.cli(&arguments).await.succeeded();
        serde_json::from_str(&output).unwrap()
    };
    let catalogue = json(&["capability", "list"]).await;
    assert_eq!(catalogue["capabilities"][1]["name"], "plain");
    let bound = json(&["capability", "list", session.id()]).await;
    assert_eq!(bound["capabilities"][0]["enabled"], true);
    let resolved = json(&["capability", "resolved", session.id()]).await;
    let from = |value: &Value| value["from"].clone();
    assert_eq!(
        from(&resolved["egress"]["allowedHosts"][0]),
        serde_json::json!(["capability:plain"])
    );
    assert_eq!(resolved["services"]["files"]["addressFrom"], "catalogue");
    let table = world
        .gateway
        .cli(&["capability", "resolved", session.id()])
        .await
        .succeeded();
    assert!(table.contains("capability:plain"), "{table}");
}

#[tokio::test]
async fn a_capability_taken_from_the_catalogue_pauses_who_is_bound_to_it() {
    let world = world().await;
    let ask = Ask {
        more: &["--capability", "plain"],
        ..Ask::default()
    };
    let bound = world.session_for(ask).await;
    let free = world.session().await;
    world.gateway.reconfigure(&Settings {
        dns: Some(world.dns.address),
        ..Settings::default()
    });
    let said = world.gateway.cli(&["reload"]).await.succeeded();
    assert!(said.contains(bound.id()), "{said}");
    assert_eq!(bound.connect(&world.plain()).await.0.status, 403);
    assert_eq!(free.connect(&world.plain()).await.0.status, 200);
    let resume = world.gateway.cli(&["session", "resume", bound.id()]).await;
    assert_eq!(resume.code, Some(2));
    assert!(resume.stderr.contains("plain"), "{}", resume.stderr);
}

/// What a script reads: with `--json` every command that asks a gateway writes JSON and nothing else, one value or one a
/// line, and fails without a word there.
#[tokio::test]
async fn every_command_speaks_json() {
    let world = world().await;
    let commands = [
        "session create --id one --provider test",
        "session list",
        "session show one --provider test",
        "session start one --provider test",
        "session pause one --provider test",
        "session resume one --provider test",
        "session keepalive one --provider test",
        "session observe one running --provider test",
        "session logs one --provider test",
        "capability list",
        "capability install one raw --provider test",
        "capability list one --provider test",
        "capability disable one raw --provider test",
        "capability enable one raw --provider test",
        "capability update one raw --provider test",
        "capability resolved one --provider test",
        "capability uninstall one raw --provider test",
        "credential revoke AAAAAAAAAAAAAAAAAAAAAA",
        "webhook list",
        "session revoke one --provider test",
        "session stop one --provider test",
        "provider list",
        "provider check",
        "placement check --provider test --default-action allow",
        "keys list",
        "keys rotate",
        "keys retire KID",
        "ca show",
        "ca show --bundle",
        "events",
        "status",
        "policy explain api.example.com --provider test",
        "reload",
        "drain",
    ];
    for command in commands {
        if command.starts_with("session logs") {
            let record = r#"{"records": [{"stream": "stdout", "text": "begun"}]}"#;
            let path = "/runtime/providers/test/sessions/one/logs";
            let appended = world.gateway.admin("POST", path, record).await;
            assert_eq!(appended.status(), 200, "{}", appended.text());
        }
        let old = world.gateway.admin("GET", "/keys", "").await.json();
        let mut old = old["keys"].as_array().unwrap().iter();
        let old = old.rfind(|key| key["signing"] == false);
        let old = old.map_or("KID", |key| key["kid"].as_str().unwrap());
        let command = command.replace("KID", old);
        let mut words: Vec<&str> = command.split(' ').collect();
        words.push("--json");
        let ended = world.gateway.cli(&words).await;
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
        let read =
            serde_json::Deserializer::from_slice(&ended.stdout).into_iter::<serde_json::Value>();
        let values: Result<Vec<_>, _> = read.collect();
        assert!(
            values.as_ref().is_ok_and(|values| !values.is_empty()),
            "{command}: {values:?} {ended:?}"
        );
    }
}
