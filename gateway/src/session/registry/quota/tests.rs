#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::time::{Duration, SystemTime};

use super::*;
use crate::session::{
    Behalf, LogLine, RegistryConfig,
    lifecycle::Action,
    testing::{Fixture, config, patch, request},
};

fn of_owners(quota: Quota) -> RegistryConfig {
    RegistryConfig {
        owner_quota: quota,
        ..config()
    }
}

async fn create(f: &Fixture, id: &str, owner: &str) -> Result<(), RegistryError> {
    let asked = request(&format!("{{id: {id}, owner: {owner}, idleTimeout: 0}}"));
    let created = f.registry.create("local".into(), asked).await;
    created.map(drop)
}

async fn stop(f: &Fixture, id: &str) {
    let stopped = f.registry.act(f.key(id), Action::Stop, None).await;
    stopped.unwrap();
}

/// What there is, and what there may be; and of what.
fn refused(done: Result<(), RegistryError>) -> (u64, u64, &'static str) {
    match done.unwrap_err() {
        RegistryError::Quota {
            in_use,
            limit,
            what,
            ..
        } => (in_use, limit, what),
        other => panic!("{other:?}"),
    }
}

/// Long after everything stopped is to be forgotten.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(2 * 86_400)
}

#[tokio::test]
async fn stopped_sessions_are_held_to_a_bound_until_they_are_forgotten() {
    let f = Fixture::with(of_owners(Quota {
        sessions: Some(1),
        records: Some(3),
        ..Quota::default()
    }));
    for id in ["one", "two", "three"] {
        create(&f, id, "ann").await.unwrap();
        stop(&f, id).await;
    }
    let more = create(&f, "four", "ann").await;
    let told = more.as_ref().unwrap_err().to_string();
    assert!(
        told.starts_with("owner \"ann\" has 3 of 3 records"),
        "{told}"
    );
    assert_eq!(refused(more), (3, 3, Held::Records.what()));
    // Not the neighbour's matter, nor that of what has no owner.
    create(&f, "four", "bob").await.unwrap();
    let asked = request("{id: five}");
    f.registry.create("local".into(), asked).await.unwrap();
    let f = f.restarted_with(of_owners(Quota {
        sessions: Some(1),
        records: Some(3),
        ..Quota::default()
    }));
    assert!(create(&f, "six", "ann").await.is_err(), "over a restart");
    f.sweep(later());
    create(&f, "six", "ann").await.unwrap();
    let used = f.registry.use_of("default", Some("ann")).unwrap();
    assert_eq!((used.sessions, used.records), (1, 1));
}

/// Names that take more than 32 KiB, and less than 48.
fn many() -> String {
    let name = |n: usize| format!("host-{n:04}.{}.example.com", "x".repeat(30));
    (0..700).map(name).collect::<Vec<_>>().join(", ")
}

fn records(f: &Fixture) -> usize {
    f.registry.use_of("default", Some("ann")).unwrap().records
}

/// Whoever may have a few records has no few megabytes of each: what a session asks for counts, whether it was made so or became so.
#[tokio::test]
async fn a_record_counts_by_what_its_session_asks_for() {
    let bound = || {
        of_owners(Quota {
            records: Some(4),
            ..Quota::default()
        })
    };
    let f = Fixture::with(bound());
    let large = async |f: &Fixture, id: &str| {
        let asked = format!("{{id: {id}, owner: ann, allow: [{}]}}", many());
        let made = f.registry.create("local".into(), request(&asked)).await;
        made.map(drop)
    };
    let grow = async |f: &Fixture, id: &str| {
        let larger = patch(&format!("{{allow: [{}]}}", many()));
        f.registry.patch(f.key(id), larger).await.map(drop)
    };
    large(&f, "one").await.unwrap();
    assert_eq!(records(&f), 3);
    assert_eq!(
        refused(large(&f, "two").await),
        (3, 4, Held::Records.what())
    );
    create(&f, "two", "ann").await.unwrap();
    assert_eq!(refused(grow(&f, "two").await), (4, 4, Held::Records.what()));
    // What makes it no larger is let be.
    let other = patch("{allow: [other.example.com]}");
    f.registry.patch(f.key("two"), other).await.unwrap();
    grow(&f, "one").await.unwrap();
    stop(&f, "one").await;
    let f = f.restarted_with(bound());
    assert_eq!(records(&f), 4, "over a restart");
    assert!(grow(&f, "two").await.is_err());
    f.sweep(later());
    assert_eq!(records(&f), 1);
    grow(&f, "two").await.unwrap();
    assert_eq!(records(&f), 3);
}

/// Thousands of those may stay for a day: none is compiled, at a start neither. What it was granted can still be asked.
#[tokio::test]
async fn what_is_over_holds_no_compiled_grant() {
    let f = Fixture::new();
    create(&f, "one", "ann").await.unwrap();
    let holds = |f: &Fixture| {
        let entry = f.registry.entry(&f.key("one")).unwrap();
        entry.policy.is_some()
    };
    assert!(holds(&f));
    stop(&f, "one").await;
    assert!(!holds(&f));
    let f = f.restarted();
    assert!(!holds(&f));
    assert!(f.registry.grant_in_force(&f.key("one")).is_ok());
}

/// A line whose record takes a little more than 1,000 bytes.
async fn append(f: &Fixture, id: &str, lines: usize) -> Result<(), RegistryError> {
    let line = LogLine {
        time: Some("2026-11-20T21:04:05Z".into()),
        stream: "stdout",
        text: "x".repeat(1000),
    };
    let (key, lines, by) = (f.key(id), vec![line; lines], Behalf::nobody());
    let appended = f.registry.change(&by, move |all, by, now| {
        all.append_log_at(by, &key, lines, now)
    });
    appended.await.map(drop)
}

/// Bytes of an owner's logs; what is counted is what is stored.
fn logged(f: &Fixture, owner: &str, ids: &[&str]) -> u64 {
    let stored = f.registry.store().load().unwrap().logs;
    let rows: Vec<String> = ids.iter().map(|id| format!("default/local/{id}")).collect();
    let own = stored.iter().filter(|(row, _)| rows.contains(row));
    let sum = own.map(|(_, bytes)| bytes).sum::<u64>();
    let used = f.registry.use_of("default", Some(owner)).unwrap();
    assert_eq!(used.logs, sum);
    sum
}

#[tokio::test]
async fn a_full_log_makes_room_for_itself_and_another_is_refused() {
    let bound = || {
        of_owners(Quota {
            logs: Some(10_000),
            ..Quota::default()
        })
    };
    let f = Fixture::with(bound());
    for (id, owner) in [("one", "ann"), ("two", "ann"), ("other", "bob")] {
        create(&f, id, owner).await.unwrap();
    }
    append(&f, "one", 9).await.unwrap();
    let full = logged(&f, "ann", &["one", "two"]);
    assert!((9_000..=10_000).contains(&full), "{full}");
    // More of the same: its oldest records go.
    append(&f, "one", 3).await.unwrap();
    assert_eq!(logged(&f, "ann", &["one", "two"]), full);
    let by = Behalf::nobody();
    let page = f.registry.log(&by, f.key("one"), 0, 1, Duration::ZERO);
    let page = page.await.unwrap();
    assert_eq!((&page["first"], &page["last"]), (&4.into(), &12.into()));
    // Of another's there is nothing to take.
    let told = refused(append(&f, "two", 1).await);
    assert_eq!(told, (full, 10_000, Held::LogBytes.what()));
    let told = refused(append(&f, "one", 10).await);
    assert_eq!(told.0, full, "more than there may be at all");
    append(&f, "other", 9).await.unwrap();
    let f = f.restarted_with(bound());
    assert_eq!(logged(&f, "ann", &["one", "two"]), full);
    assert!(append(&f, "two", 1).await.is_err(), "over a restart");
    // Nothing takes nothing away, whatever the bound is now.
    let none = Quota {
        logs: Some(1),
        ..Quota::default()
    };
    let f = f.restarted_with(of_owners(none));
    append(&f, "one", 0).await.unwrap();
    assert_eq!(logged(&f, "ann", &["one", "two"]), full);
    let f = f.restarted_with(bound());
    stop(&f, "one").await;
    f.sweep(later());
    append(&f, "two", 9).await.unwrap();
    assert_eq!(logged(&f, "ann", &["two"]), full);
}
