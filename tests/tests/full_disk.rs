//! A disk that is full under a running gateway: it is said, what lives goes on, and it is over when there is room.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::apart::{inside, sh};
use e2e::tasks::until_told;
use e2e::{Gateway, World};
use rustix::process::Signal;
use serde_json::json;

const SESSIONS: &str = "/runtime/providers/test/sessions";

/// Sessions with so many names, until one more does not fit.
async fn fill(gateway: &Gateway, names: usize) {
    let names: Vec<String> = (0..names)
        .map(|n| format!("host-{n}.example.com"))
        .collect();
    for _ in 0..2000 {
        let body = json!({ "start": false, "allow": names }).to_string();
        let reply = gateway.admin("POST", SESSIONS, &body).await;
        match reply.status() {
            201 => {}
            503 => return,
            other => panic!("{other}: {}", reply.text()),
        }
    }
    panic!("the store found room for everything");
}

#[test]
fn a_full_disk_is_told_and_what_lives_goes_on() {
    inside("a_full_disk_is_told_and_what_lives_goes_on", async {
        let mut world = World::start().await;
        let session = world.session().await;
        let target = world.plain();
        assert_eq!(session.connect(&target).await.0.status, 200);

        // The same state on a small disk of its own.
        world.gateway.process.signal(Signal::TERM);
        world.gateway.process.wait("its end").await;
        let state = world.gateway.state().display().to_string();
        sh(&format!(
            "mv {state} {state}.old && mkdir -m 700 {state}
             mount -t tmpfs -o size=8m,mode=700 none {state}
             cp -a {state}.old/. {state}/"
        ))
        .await;
        world.gateway.restart().await;
        assert_eq!(session.connect(&target).await.0.status, 200);
        sh(&format!(
            "dd if=/dev/zero of={state}/filler bs=4k 2>/dev/null || true"
        ))
        .await;

        // Whatever room the file still has within itself goes first.
        for names in [8000, 500, 1] {
            fill(&world.gateway, names).await;
        }
        until_told("/readyz says so", async || {
            fill(&world.gateway, 1).await;
            let reply = world.gateway.management("/readyz").await;
            let told = reply.status() == 503 && reply.text().contains("store");
            told.then_some(())
        })
        .await;
        assert_eq!(world.gateway.management("/healthz").await.status(), 200);
        assert_eq!(session.connect(&target).await.0.status, 200);

        std::fs::remove_file(format!("{state}/filler")).unwrap();
        until_told("/readyz is as before", async || {
            let status = world.gateway.management("/readyz").await.status();
            (status == 200).then_some(())
        })
        .await;
        let made = world.gateway.admin("POST", SESSIONS, "{}").await;
        assert_eq!(made.status(), 201, "{}", made.text());
        assert_eq!(session.connect(&target).await.0.status, 200);
    });
}
