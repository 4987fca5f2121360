#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::session::{
    lifecycle::Action,
    testing::{Fixture, request},
};

fn said(state: &'static str, reason: Option<&'static str>, generation: Option<u64>) -> Observation {
    Observation {
        state,
        reason,
        generation,
    }
}

/// Every word in every state: what the session is afterwards.
async fn observe(f: &Fixture, said: Observation) -> (Issued, bool) {
    let key = f.key("one");
    f.registry
        .change(&Behalf::nobody(), move |all, by, now| {
            all.observe_at(by, &key, &said, now)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn each_word_of_a_runtime_in_each_state() {
    for word in Observation::STATES {
        for (before, actions) in [
            ("idle", &[Action::Reset][..]),
            ("running", &[]),
            ("paused", &[Action::Pause]),
            ("stopped", &[Action::Stop]),
        ] {
            let f = Fixture::new();
            let create = request("{id: one}");
            f.registry.create("local".into(), create).await.unwrap();
            for action in actions {
                f.registry.act(f.key("one"), *action, None).await.unwrap();
            }
            let said = said(word, Some("oom"), Some(1));
            let (issued, current) = observe(&f, said).await;
            assert!(current);
            let over = matches!(word, "stopped" | "destroyed");
            let after = match before {
                "running" | "paused" if over => "idle",
                other => other,
            };
            assert_eq!(issued.view["state"], after, "{word} in {before}");
            assert_eq!(issued.view["observed"]["state"], word);
            assert_eq!(issued.view["observed"]["reason"], "oom");
            let ended = after != before;
            if ended {
                assert_eq!(issued.view["reason"], format!("runtime: {word}, oom"));
                assert!(f.registry.index().session(&f.key("one")).is_none());
            }
            let expected = if ended {
                "session.ended"
            } else {
                "session.observed"
            };
            assert_eq!(f.events().await.last().unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn a_late_word_of_an_earlier_generation_changes_nothing() {
    let f = Fixture::new();
    f.registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap();
    for action in [Action::Reset, Action::Start] {
        f.registry.act(f.key("one"), action, None).await.unwrap();
    }
    let events = f.events().await.len();
    let late = said("destroyed", None, Some(1));
    let (issued, current) = observe(&f, late).await;
    assert!(!current);
    assert_eq!(issued.view["state"], "running");
    assert_eq!(f.events().await.len(), events);
    let now = said("destroyed", None, Some(2));
    let (issued, current) = observe(&f, now).await;
    assert!(current);
    assert_eq!(issued.view["state"], "idle");
}

#[tokio::test]
async fn what_is_said_again_is_no_news() {
    let f = Fixture::new();
    f.registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap();
    let running = || said("running", None, None);
    let (first, _) = observe(&f, running()).await;
    let events = f.events().await.len();
    let (again, current) = observe(&f, running()).await;
    assert!(current);
    assert_eq!(f.events().await.len(), events);
    assert_eq!(first.view["etag"], again.view["etag"]);
    observe(&f, said("stopping", None, None)).await;
    assert_eq!(f.events().await.len(), events + 1);
}

/// How a sandbox ended is not overwritten by what was said before it did, and comes later; nor by another reason.
#[tokio::test]
async fn a_word_that_comes_after_the_end_changes_nothing() {
    for stop in [false, true] {
        let f = Fixture::new();
        let create = request("{id: one}");
        f.registry.create("local".into(), create).await.unwrap();
        observe(&f, said("stopped", Some("oom"), Some(1))).await;
        if stop {
            f.registry
                .act(f.key("one"), Action::Stop, None)
                .await
                .unwrap();
        }
        let events = f.events().await.len();
        for late in [
            said("running", None, Some(1)),
            said("starting", None, None),
            said("stopped", Some("completed"), Some(1)),
        ] {
            let (issued, current) = observe(&f, late.clone()).await;
            assert!(!current, "{late:?}");
            assert_eq!(issued.view["observed"]["state"], "stopped");
            assert_eq!(issued.view["observed"]["reason"], "oom");
        }
        assert_eq!(f.events().await.len(), events);
        // Said again, and gone further: the reason stays.
        assert!(observe(&f, said("stopped", None, Some(1))).await.1);
        let gone = said("destroyed", Some("completed"), Some(1));
        let (issued, current) = observe(&f, gone).await;
        assert!(current);
        assert_eq!(issued.view["observed"]["state"], "destroyed");
        assert_eq!(issued.view["observed"]["reason"], "oom");
        assert!(!observe(&f, said("stopped", None, Some(1))).await.1);
        assert_eq!(f.events().await.len(), events + 1);
    }
}

/// Two words in turn are told as seldom as one that is repeated, and anew of a new generation.
#[tokio::test]
async fn words_in_turn_are_told_once_a_minute() {
    let f = Fixture::new();
    let create = request("{id: one}");
    f.registry.create("local".into(), create).await.unwrap();
    let events = f.events().await.len();
    for _ in 0..5 {
        for state in ["starting", "running"] {
            let (issued, _) = observe(&f, said(state, None, None)).await;
            assert_eq!(issued.view["observed"]["state"], state);
        }
    }
    assert_eq!(f.events().await.len(), events + 2);
    for action in [Action::Reset, Action::Start] {
        f.registry.act(f.key("one"), action, None).await.unwrap();
    }
    let events = f.events().await.len();
    observe(&f, said("starting", None, None)).await;
    assert_eq!(f.events().await.len(), events + 1);
}

/// A word that was held back is told with the next one, though that says nothing new; and once.
#[tokio::test]
async fn what_was_held_back_is_told_with_the_next_word() {
    let f = Fixture::new();
    let create = request("{id: one}");
    f.registry.create("local".into(), create).await.unwrap();
    let now = SystemTime::now();
    let observe = |state: &'static str, seconds: u64| {
        let at = now + std::time::Duration::from_secs(seconds);
        let word = said(state, None, Some(1));
        let observed = f
            .registry
            .observe_at(&Behalf::nobody(), &f.key("one"), &word, at);
        assert!(observed.unwrap().1, "{state} at {seconds}");
    };
    let began = f.events().await.len();
    // The third is held back: it is less than a minute since it was told.
    for (state, seconds) in [("starting", 0), ("running", 1), ("starting", 2)] {
        observe(state, seconds);
    }
    assert_eq!(f.events().await.len(), began + 2);
    observe("starting", 30);
    assert_eq!(f.events().await.len(), began + 2, "still held back");
    observe("starting", 61);
    assert_eq!(f.events().await.len(), began + 3);
    let events = f.registry.events_after(0, 100).await.unwrap();
    let last: serde_json::Value = serde_json::from_slice(&events.last().unwrap().body).unwrap();
    assert_eq!(last["type"], "session.observed");
    assert_eq!(last["reason"], "runtime: starting");
    observe("starting", 200);
    assert_eq!(f.events().await.len(), began + 3, "nothing is owed");
}

/// What may be asked for without end is told now and then.
#[tokio::test]
async fn keepalives_and_fresh_credentials_are_told_once_a_minute() {
    let f = Fixture::new();
    let create = request("{id: one}");
    f.registry.create("local".into(), create).await.unwrap();
    let began = f.events().await.len();
    let keep = Action::Keepalive(std::time::Duration::from_secs(60));
    for _ in 0..5 {
        for action in [keep, Action::Start] {
            f.registry.act(f.key("one"), action, None).await.unwrap();
        }
    }
    let told = f.events().await;
    let expected = ["session.extended", "session.credentialIssued"];
    assert_eq!(told[began..], expected);
    let later = SystemTime::now() + std::time::Duration::from_secs(61);
    let key = f.key("one");
    let by = Behalf::nobody();
    f.registry
        .act_at(&by, &key, Action::Start, None, later)
        .unwrap();
    assert_eq!(f.events().await.len(), began + 3);
    // What is a transition always is told.
    for action in [Action::Pause, Action::Resume, Action::Pause] {
        f.registry.act(f.key("one"), action, None).await.unwrap();
    }
    assert_eq!(f.events().await.len(), began + 6);
}
