//! Changes of effective profiles, and a store that cannot be written.

use super::*;
use crate::store::testing::{Manner, Minded};

/// A prober over a store whose manner can change. The fixture has its directory.
fn minded() -> (Fixture, Arc<Minded>, Arc<Prober>) {
    let fixture = Fixture::new();
    let store = Minded::open(&fixture.dir.path().join("minded.redb"));
    let config = advertising(HostServiceAccess::Relay, EgressMode::Hostname);
    let keys = fixture.registry.keys().clone();
    let registry = Registry::open(store.clone(), keys, config, SystemTime::now()).unwrap();
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let prober = testing::idle(&registry, &telemetry);
    (fixture, store, prober)
}

/// What cannot be recorded shows, and is an event once it can be: one.
#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_told_when_it_can() {
    let (_fixture, store, prober) = minded();
    let (registry, telemetry) = (&prober.registry, &prober.telemetry);
    three(&prober, &all_but(&prober, &[])).await;
    let leak = Finding::fail("it let pass what it must refuse", "publicUrl");
    let bad = all_but(&prober, &[(Check::Refuses, leak)]);
    store.be(Manner::Refuse);
    three(&prober, &bad).await;
    assert_eq!(short(&prober).1, EgressMode::None);
    assert!(
        !telemetry
            .render()
            .contains("sluicegate_profile_changes_total 1")
    );
    store.be(Manner::Serve);
    three(&prober, &bad).await;
    let events = registry.events_after(0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    let lost: Value = serde_json::from_slice(&events[1].body).unwrap();
    assert_eq!(lost["provider"]["before"]["egressMode"], "hostname");
    assert_eq!(lost["provider"]["after"]["egressMode"], "none");
    assert!(
        telemetry
            .render()
            .contains("sluicegate_profile_changes_total 1")
    );
}

/// What fell and came back meanwhile is two changes; of too many, the oldest are counted.
#[tokio::test]
async fn changes_that_could_not_be_recorded_are_told_in_their_order() {
    let (_fixture, store, prober) = minded();
    let (registry, telemetry) = (&prober.registry, &prober.telemetry);
    let good = all_but(&prober, &[]);
    three(&prober, &good).await;
    let leak = Finding::fail("it let pass what it must refuse", "publicUrl");
    let bad = all_but(&prober, &[(Check::Refuses, leak)]);
    let told = async |after: usize| {
        let events = registry.events_after(0, 100).await.unwrap();
        let body = |event: &crate::store::StoredEvent| -> Value {
            serde_json::from_slice(&event.body).unwrap()
        };
        events.iter().skip(after).map(body).collect::<Vec<_>>()
    };
    let modes = |event: &Value| {
        let mode = |of: &str| {
            event["provider"][of]["egressMode"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        (mode("before"), mode("after"))
    };
    let (fell, came_back) = (
        ("hostname".to_owned(), "none".to_owned()),
        ("none".to_owned(), "hostname".to_owned()),
    );
    store.be(Manner::Refuse);
    three(&prober, &bad).await;
    three(&prober, &good).await;
    store.be(Manner::Serve);
    prober.found(&good).await;
    let pair = told(1).await;
    let both: Vec<_> = pair.iter().map(modes).collect();
    assert_eq!(both, [fell, came_back]);
    assert_eq!(pair[0]["reason"], "it let pass what it must refuse");
    assert_eq!(pair[1].get("reason"), None);
    for event in &pair {
        assert!(event["provider"]["since"].is_u64(), "{event}");
        assert_eq!(event["provider"].get("missed"), None);
    }
    let changes = "sluicegate_profile_changes_total 2";
    assert!(telemetry.render().contains(changes));
    prober.found(&good).await;
    assert_eq!(told(3).await.len(), 0, "once each");

    // One more than are kept, the first of which it fell by.
    store.be(Manner::Refuse);
    for _ in 0..16 {
        three(&prober, &bad).await;
        three(&prober, &good).await;
    }
    three(&prober, &bad).await;
    store.be(Manner::Serve);
    prober.found(&bad).await;
    let kept = told(3).await;
    assert_eq!(kept.len(), 32);
    assert_eq!(kept[0]["provider"]["missed"], 1);
    let same = ("hostname".to_owned(), "hostname".to_owned());
    assert_eq!(modes(&kept[0]), same);
    assert_eq!(kept[1]["provider"].get("missed"), None);
    assert_eq!(kept[31]["provider"]["after"]["egressMode"], "none");
}
