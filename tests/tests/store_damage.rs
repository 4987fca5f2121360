//! A store that somebody damages: noticed, told, and nobody is let in by what may be wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{os::unix::fs::FileExt, path::Path};

use e2e::{World, gateway::serve, tasks::until_told};
use rustix::process::Signal;

const SESSIONS: &str = "/runtime/providers/test/sessions";
/// Turn one bit behind every place where the session's id stands; once more, and it is as it was.
fn flip(path: &Path, id: &str) {
    let bytes = std::fs::read(path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut count = 0;
    for at in 0..bytes.len() - id.len() - 8 {
        if bytes[at..].starts_with(id.as_bytes()) {
            let at = at + id.len() + 3;
            file.write_all_at(&[bytes[at] ^ 0x20], at as u64).unwrap();
            count += 1;
        }
    }
    assert!(count > 0, "the session is in the store");
}

#[tokio::test]
async fn damage_in_the_middle_is_noticed_in_use_and_at_the_start() {
    let mut world = World::start().await;
    let (session, other) = (world.session().await, world.session().await);
    let id = session.id().to_owned();
    let store = world.gateway.state().join("sluicegate.redb");
    let whole = world.gateway.cli(&["store", "check"]).await.succeeded();
    assert!(whole.starts_with("whole: "), "{whole}");
    let counted = "sluicegate_store_verifications_total{outcome=\"whole\"}";
    world.gateway.metric_reaches(counted, 1.0).await;

    // In use: nobody asks for it, and it is noticed.
    flip(&store, &id);
    let ready = async |wanted: u16| {
        let what = format!("/readyz is {wanted}");
        let looked = async || {
            let found = world.gateway.management("/readyz").await.status();
            (found == wanted).then_some(())
        };
        until_told(&what, looked).await;
    };
    ready(503).await;
    let refused = world.gateway.admin("POST", SESSIONS, "{}").await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    assert_eq!(
        refused.json()["type"],
        "urn:sluicegate:problem:store-damaged"
    );
    let target = world.plain();
    assert_eq!(session.connect(&target).await.0.status, 503);
    // What takes something away holds all the same.
    let path = format!("{SESSIONS}/{}", other.id());
    let reset = format!("{path}:reset");
    let refused = world.gateway.admin("POST", &reset, "{}").await;
    assert_eq!(refused.status(), 503, "{}", refused.text());
    let shown = world.gateway.admin("GET", &path, "").await.json();
    assert_eq!(shown["session"]["withdrawn"], true, "{shown}");
    let check = world.gateway.cli(&["store", "check"]).await;
    assert_eq!(check.code, Some(1), "{}", check.text());
    assert!(check.stderr.contains("damaged"), "{}", check.stderr);
    let counted = "sluicegate_store_verifications_total{outcome=\"failed\"}";
    world.gateway.metric_reaches(counted, 1.0).await;
    flip(&store, &id);
    ready(200).await;
    assert_eq!(session.connect(&target).await.0.status, 200);
    assert_eq!(other.connect(&target).await.0.status, 407);
    let settled = async || {
        let shown = world.gateway.admin("GET", &path, "").await.json();
        (shown["session"]["state"] == "idle").then_some(())
    };
    until_told("the reset is recorded", settled).await;

    // At rest, after a crash and after a shutdown in order: nothing is started with it, and why is told.
    for signal in [Signal::KILL, Signal::TERM] {
        world.gateway.process.signal(signal);
        world.gateway.process.wait("its end").await;
        flip(&store, &id);
        let config = world.gateway.directory().join("sluicegate.yaml");
        let mut refused = serve(&config, world.gateway.directory());
        assert_eq!(refused.wait("a refusal to start").await, 1);
        assert!(refused.said().contains("is damaged"), "{}", refused.said());
        let check = world.gateway.cli(&["store", "check"]).await;
        assert_eq!(check.code, Some(1), "{}", check.text());
        assert!(check.stderr.contains("is damaged"), "{}", check.stderr);
        flip(&store, &id);
        let whole = world.gateway.cli(&["store", "check"]).await.succeeded();
        assert!(whole.contains(" 2 sessions"), "{whole}");
        world.gateway.restart().await;
        assert_eq!(session.connect(&target).await.0.status, 200);
    }
    let file = store.display().to_string();
    let copy = ["store", "check", "--json", "--file", &file];
    let shown = world.gateway.cli(&copy).await.succeeded();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["whole"], &shown["sessions"]),
        (&true.into(), &2.into())
    );
}

#[tokio::test]
async fn a_store_that_was_emptied_or_lost_is_not_passed_over() {
    let mut world = World::start().await;
    let store = world.gateway.state().join("sluicegate.redb");
    assert!(!world.gateway.process.said().contains("has been here"));
    world.gateway.process.signal(Signal::TERM);
    world.gateway.process.wait("its end").await;
    std::fs::write(&store, b"").unwrap();
    let config = world.gateway.directory().join("sluicegate.yaml");
    let mut refused = serve(&config, world.gateway.directory());
    assert_eq!(refused.wait("a refusal to start").await, 1);
    assert!(refused.said().contains("is empty"), "{}", refused.said());
    let check = world.gateway.cli(&["store", "check"]).await;
    assert_eq!(check.code, Some(1), "{}", check.text());
    assert!(check.stderr.contains("is empty"), "{}", check.stderr);
    // On purpose, and still not without a word.
    std::fs::remove_file(&store).unwrap();
    world.gateway.restart().await;
    let said = world.gateway.process.said();
    assert!(said.contains("a gateway has been here"), "{said}");
    // The other way round.
    world.gateway.process.signal(Signal::TERM);
    world.gateway.process.wait("its end").await;
    std::fs::remove_dir_all(world.gateway.state().join("keys")).unwrap();
    world.gateway.restart().await;
    let said = world.gateway.process.said();
    assert!(said.contains("there are no signing keys"), "{said}");
}
