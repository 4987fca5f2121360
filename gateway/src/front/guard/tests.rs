#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::BTreeMap, future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use sluicegate_policy::{Admission, Denial, HostName, Target, decide};
use tokio::time::{Instant, timeout};

use super::Guard;
use crate::{
    egress::{Asked, Egress, Reached, Ways, testing::egress},
    session::testing::{Fixture, request},
    telemetry::Counters,
};

const SECOND: Duration = Duration::from_secs(1);

/// Over an exchange of a session that may make it.
pub(in crate::front) async fn watching(
    f: &Fixture,
    idle: Duration,
    counters: &Arc<Counters>,
) -> Guard {
    let asked = request("{id: one, idleTimeout: 0, egress: {allowedHosts: [a.test]}}");
    f.registry.create("local".into(), asked).await.unwrap();
    let live = f.registry.index().session(&f.key("one")).unwrap();
    let target = Target::from_authority("a.test:80").unwrap();
    let judged = live
        .session
        .judge(None, |policy| decide(&policy.grant, &target))
        .unwrap();
    Guard::new(
        judged.changes,
        judged.permit,
        Asked::new([("GET", "/")].into_iter()),
        Ways::new(Arc::new(egress())),
        idle,
        counters.clone(),
    )
}

#[tokio::test]
async fn waiting_for_bandwidth_is_no_silence() {
    let (f, counters) = (Fixture::new(), Arc::new(Counters::default()));
    let mut guard = watching(&f, SECOND, &counters).await;
    tokio::time::pause();
    let wait = counters.wait();
    let minute = timeout(60 * SECOND, poll_fn(|cx| guard.poll(cx)));
    assert!(minute.await.is_err(), "its own limit is no silence");
    drop(wait);
    let begun = Instant::now();
    let cut = poll_fn(|cx| guard.poll(cx)).await;
    assert_eq!(cut.denial, Denial::IdleTimeout);
    assert!(begun.elapsed() >= SECOND, "from the end of the wait on");
}

#[tokio::test]
async fn a_reload_that_takes_the_way_away_cuts_what_is_under_way() {
    let (f, counters) = (Fixture::new(), Arc::new(Counters::default()));
    let mut guard = watching(&f, Duration::ZERO, &counters).await;
    let live = f.registry.index().session(&f.key("one")).unwrap();
    let answering = |address: &str| {
        let name = HostName::parse("a.test").unwrap();
        let address: IpAddr = address.parse().unwrap();
        let hosts = BTreeMap::from([(name, vec![address])]);
        Arc::new(Egress {
            admission: Arc::new(Admission {
                hosts: Arc::new(hosts),
                ..Admission::default()
            }),
            ..egress()
        })
    };
    let ways = guard.ways.clone();
    let reached = Reached {
        address: "127.0.0.1:80".parse().unwrap(),
        by: None,
    };
    // One that was dialled before, and is not it yet.
    assert!(!guard.may_use(&reached));
    assert_eq!(guard.verdict(), None);
    ways.replace(answering("127.0.0.1"));
    assert!(guard.may_use(&reached));
    guard.reached(reached);
    assert_eq!(guard.verdict(), None);
    live.session.look_again();
    let waiting = timeout(Duration::ZERO, poll_fn(|cx| guard.poll(cx)));
    assert!(waiting.await.is_err(), "it is as it was");
    ways.replace(answering("127.0.0.2"));
    live.session.look_again();
    let cut = poll_fn(|cx| guard.poll(cx)).await;
    assert_eq!(cut.denial, Denial::PolicyChanged);
}
