#![allow(clippy::unwrap_used)]
//! Where dials and accept streams meet, over the lives of those who came.

use std::{io::ErrorKind, net::TcpStream, sync::Arc};

use super::{Reverse, doorway::Doorway};
use crate::{
    drain::Drain,
    session::testing::{Fixture, request},
    telemetry::{AccessLog, AccessSink, Telemetry},
};

/// Who came first saw the generation by a credential of its own, which has ended.
#[tokio::test]
async fn a_place_meets_its_accept_streams_whoever_came_before_it() {
    let f = Fixture::new();
    let log = AccessSink::File(f.dir.path().join("access.jsonl"));
    let telemetry = Telemetry::new(AccessLog::open(&log).unwrap()).unwrap();
    let drain = Drain::default();
    let reverse = Reverse::new(telemetry, drain.watch());
    let mut offers = f.registry.dials().take_offers().unwrap();
    let mut places = Vec::new();
    for id in ["one", "two"] {
        let source = format!("{{id: {id}, expose: {{plugin: tcp}}}}");
        f.registry
            .create("local".into(), request(&source))
            .await
            .unwrap();
        places.push(offers.try_recv().unwrap());
    }
    let [place, other] = places.as_slice() else {
        unreachable!("two places")
    };
    let grant = place.session.policy().unwrap().grant.clone();
    let narrowed = place.session.narrowed(1, grant);
    let before = reverse.board(&narrowed, &place.name);
    let served = reverse.board_of(place);
    assert!(Arc::ptr_eq(&before, &served));
    drop(narrowed);
    // With it those leave whose generation is over.
    reverse.board_of(other);
    let after = reverse.board(&place.session, &place.name);
    assert!(Arc::ptr_eq(&served, &after));
}

/// Whoever has gone before anybody accepted leaves no door open, behind which dials would hang.
#[tokio::test]
async fn a_door_is_open_for_those_who_are_here_and_as_long_as_somebody_accepts() {
    let f = Fixture::new();
    let mut offers = f.registry.dials().take_offers().unwrap();
    let asked = request("{id: one, expose: {plugin: tcp}}");
    let issued = f.registry.create("local".into(), asked).await.unwrap();
    let target = issued.view.pointer("/dialTargets/plugin");
    let target = target.and_then(serde_json::Value::as_str).unwrap();
    let address = target.strip_prefix("tcp://").unwrap();
    let is_open = || match TcpStream::connect(address) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            false
        }
    };
    let place = offers.try_recv().unwrap();
    let doorway = Arc::new(Doorway::default());
    // Before it is served, and after.
    for _ in 0..2 {
        assert!(!is_open() && !doorway.attend(&place.door));
        let here = doorway.enter(Some(place.door.clone()));
        assert!(is_open());
        drop(here);
        assert!(!is_open());
        doorway.serve(&place.door);
    }
    let here = doorway.enter(None);
    assert!(doorway.attend(&place.door));
    drop(here);
    assert!(is_open(), "who accepts waits for somebody to come back");
    assert!(doorway.shut(&place.door, || ()).is_some());
    assert!(!is_open());
    doorway.forget(&place.door);
    let _here = doorway.enter(Some(place.door.clone()));
    assert!(!is_open(), "it is served no more");
}

/// A place is bound anew, as its terms have changed, while who accepted at the one before has not heard of it.
#[tokio::test]
async fn who_accepts_at_the_door_before_keeps_no_other_one_open() {
    let f = Fixture::new();
    let mut offers = f.registry.dials().take_offers().unwrap();
    let mut places = Vec::new();
    for id in ["one", "two"] {
        let source = format!("{{id: {id}, expose: {{plugin: tcp}}}}");
        let issued = f.registry.create("local".into(), request(&source)).await;
        let target = issued.unwrap().view;
        let target = target.pointer("/dialTargets/plugin").cloned().unwrap();
        places.push((offers.try_recv().unwrap(), target));
    }
    let [(before, _), (place, target)] = places.as_slice() else {
        unreachable!("two places")
    };
    let address = target.as_str().unwrap().strip_prefix("tcp://").unwrap();
    let doorway = Arc::new(Doorway::default());
    doorway.serve(&before.door);
    let here = doorway.enter(None);
    assert!(doorway.attend(&before.door));
    doorway.serve(&place.door);
    TcpStream::connect(address).unwrap();
    // Too late by now.
    assert!(doorway.attend(&before.door));
    drop(here);
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
