//! One run: every check of the plan once, each within its deadline.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use sluicegate_policy::{Direction, decide_service};
use sluicegate_relay::transport::H2Connection;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    check::{Check, Finding},
    plan::{Maker, Plan, Road, Way},
    proxy::Proxy,
    relay, road,
    track::Last,
};
use crate::{clock::unix_seconds, secret::Secret, session::Granted};

/// What mends QUIC that does not get through, where UDP cannot be let through.
pub(super) const QUIC_SETTING: &str = "listeners[].quic";

/// Host services that are asked at once: each may have a socket open until its deadline.
const AT_ONCE: usize = 64;

/// Credentials of the probe's session for one run.
pub(super) struct Credentials {
    pub(super) relay: Secret,
    pub(super) egress: Secret,
}

/// What was found, by check.
pub(super) type Found = BTreeMap<Check, Last>;

/// Make every check once that is this process's to make. `credentials` are absent where none could be minted, and why.
pub(super) async fn run(plan: &Arc<Plan>, credentials: Result<Credentials, String>) -> Found {
    let mut found = Found::new();
    let inward = async {
        match (&plan.way, plan.from, credentials) {
            (None, _, _) | (_, Maker::Agent, _) => Found::new(),
            (Some(way), Maker::Own, Ok(credentials)) => way_in(way, &credentials).await,
            (Some(way), Maker::Own, Err(why)) => {
                let token = (Check::Token, at_once(Finding::fail(why, "store")));
                completed(way, Found::from([token]))
            }
        }
    };
    let (inward, services, resolver) = tokio::join!(inward, services(plan), resolver(plan));
    found.extend(inward);
    found.extend(services);
    found.extend(resolver);
    found
}

/// Every check of the way in, once.
pub(super) async fn way_in(way: &Arc<Way>, credentials: &Credentials) -> Found {
    let found = inward(way, &way.road, credentials).await;
    completed(way, found.into_iter().collect())
}

/// With what another check's failure kept from being made.
fn completed(way: &Way, mut found: Found) -> Found {
    for check in way.checks() {
        found.entry(check).or_insert_with(|| {
            at_once(Finding::Unknown(
                "not looked at: what it depends on fails".to_owned(),
            ))
        });
    }
    found
}

/// By the public URL: reach, certificate, then relay and proxy side by side.
async fn inward(way: &Way, road: &Road, credentials: &Credentials) -> Vec<(Check, Last)> {
    let mut found = Vec::new();
    let (tcp, last) = timed(
        way.timeout,
        &at(road, "connecting to"),
        road::dial(way, road),
    )
    .await;
    found.push((Check::Reach, last));
    let Some(tcp) = tcp else { return found };
    let tasks = TaskTracker::new();
    let (connection, last) = over_tls(way, road, tcp, &tasks, &mut found).await;
    let Some(last) = last else { return found };
    found.push((Check::Http2, last));
    let relay = async {
        match &connection {
            Some(connection) => {
                let trip = relay::round_trip(connection, &credentials.relay);
                let what = at(road, "a relay stream by");
                let (_, last) = timed(way.timeout, &what, trip).await;
                Some((Check::Token, last))
            }
            None => None,
        }
    };
    let quic = over_quic(way, road, &credentials.relay, &tasks);
    let (relay, quic, proxy) = tokio::join!(relay, quic, proxy(way, road, &credentials.egress));
    found.extend(relay);
    found.extend(quic);
    found.extend(proxy);
    drop(connection);
    found
}

/// TLS, then HTTP/2 on it. The second is absent where there was nothing to ask for HTTP/2 on.
async fn over_tls(
    way: &Way,
    road: &Road,
    tcp: TcpStream,
    tasks: &TaskTracker,
    found: &mut Vec<(Check, Last)>,
) -> (Option<H2Connection>, Option<Last>) {
    let (io, last) = timed(
        way.timeout,
        &at(road, "TLS with"),
        road::secure(road, tcp, road::Alpn::H2),
    )
    .await;
    if road.tls {
        found.push((Check::Certificate, last));
    }
    let Some(io) = io else { return (None, None) };
    let (connection, last) = timed(
        way.timeout,
        &at(road, "HTTP/2 with"),
        relay::http2(road, io, tasks),
    )
    .await;
    (connection, Some(last))
}

/// Over UDP, beside everything that goes over TCP.
async fn over_quic(
    way: &Way,
    road: &Road,
    token: &Secret,
    tasks: &TaskTracker,
) -> Option<(Check, Last)> {
    let tls = road.quic.as_ref()?;
    let what = (
        format!("QUIC with {} (UDP port {})", road.url(), road.target.port()),
        QUIC_SETTING.to_owned(),
    );
    let trip = async {
        let addresses = road::addresses(way, road).await?;
        relay::over_quic(road, &addresses, tls, token, tasks).await
    };
    let (_, last) = timed(way.timeout, &what, trip).await;
    Some((Check::Quic, last))
}

async fn proxy(way: &Way, road: &Road, token: &Secret) -> Vec<(Check, Last)> {
    let proxy = Proxy { way, road, token };
    let (within, what) = (way.timeout, at(road, "a CONNECT to"));
    let (refuses, judges, carries) = tokio::join!(
        timed(within, &what, proxy.refuses()),
        timed(within, &what, proxy.judges()),
        timed(within, &what, proxy.carries()),
    );
    let mut found = vec![
        (Check::Refuses, refuses.1),
        (Check::Judges, judges.1),
        (Check::Carries, carries.1),
    ];
    if let Some(target) = &way.canary {
        let what = (format!("the canary {target}"), "probe.canary".to_owned());
        let (_, last) = timed(within, &what, proxy.canary(target)).await;
        found.push((Check::Canary, last));
    }
    found
}

/// Each host service in its own way; one that is written in several places is asked once.
async fn services(plan: &Arc<Plan>) -> Vec<(Check, Last)> {
    let mut places: Vec<Vec<Granted>> = Vec::new();
    for one in &plan.asked.services {
        let same = |other: &Granted| other.compiled() == one.compiled();
        match places
            .iter_mut()
            .find(|known| known.first().is_some_and(same))
        {
            Some(known) => known.push(one.clone()),
            None => places.push(vec![one.clone()]),
        }
    }
    let one = |places| {
        let plan = plan.clone();
        async move { service(&plan, places).await }
    };
    let asked: Vec<_> = places.into_iter().map(one).collect();
    let found = in_turn(AT_ONCE, asked).await;
    found.into_iter().flatten().collect()
}

/// What comes of each, so many at once.
async fn in_turn<T: Send + 'static>(
    most: usize,
    work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let (mut begun, mut done) = (JoinSet::new(), Vec::new());
    for one in work {
        if begun.len() >= most {
            done.extend(begun.join_next().await.and_then(Result::ok));
        }
        begun.spawn(one);
    }
    while let Some(one) = begun.join_next().await {
        done.extend(one.ok());
    }
    done
}

/// One host service, told of each place where it is written.
async fn service(plan: &Plan, places: Vec<Granted>) -> Vec<(Check, Last)> {
    let start = Instant::now();
    let answer = match places.first() {
        Some(first) => timeout(plan.timeout, health(plan, first)).await,
        None => return Vec::new(),
    };
    let took = milliseconds(start);
    let at = unix_seconds(SystemTime::now());
    let told = |one: Granted| {
        let called = &one.called;
        let finding = match &answer {
            Ok(Health::Well) => Finding::Pass,
            Ok(Health::Unwell(why)) => {
                Finding::fail(format!("{called} is not well: {why}"), one.setting)
            }
            Ok(Health::Unasked(why)) => Finding::Unknown(why.clone()),
            Err(_) => Finding::fail(no_answer(called, plan.timeout), one.setting),
        };
        (Check::Service(one.service), Last { finding, at, took })
    };
    places.into_iter().map(told).collect()
}

/// What a host service said.
enum Health {
    Well,
    Unwell(String),
    Unasked(String),
}

async fn health(plan: &Plan, one: &Granted) -> Health {
    let service = one.compiled();
    let prefix = service.and_then(|service| service.grpc_method_prefix.as_ref());
    let method = prefix.map(|prefix| prefix.as_str());
    let name = &one.service.name;
    let permit = match decide_service(&one.grant, None, name, Direction::In, method) {
        Ok(permit) => permit,
        Err(refusal) => return Health::Unasked(refusal.denial.reason().to_owned()),
    };
    match plan.services.health(&permit).await {
        Ok(()) => Health::Well,
        Err(why) => Health::Unwell(why),
    }
}

async fn resolver(plan: &Plan) -> Option<(Check, Last)> {
    let name = plan.name.as_ref()?;
    let what = (format!("resolving {name}"), "dns.servers".to_owned());
    let asked = async {
        plan.resolver
            .lookup(name)
            .await
            .map_err(|(denial, detail)| {
                let reason = format!("{name} does not resolve: {} ({detail})", denial.reason());
                Finding::fail(reason, what.1.clone())
            })
    };
    let (_, last) = timed(plan.timeout, &what, asked).await;
    Some((Check::Resolver, last))
}

/// A check of the way in: what does not answer there is not the gateway.
fn at(road: &Road, doing: &str) -> What {
    (format!("{doing} {}", road.url()), "publicUrl".to_owned())
}

/// What is asked, and the setting that mends it where no answer comes.
type What = (String, String);

/// A check within its deadline: what it gave, and the finding with its time.
async fn timed<T>(
    within: Duration,
    what: &What,
    check: impl Future<Output = Result<T, Finding>>,
) -> (Option<T>, Last) {
    let start = Instant::now();
    let (value, finding) = match timeout(within, check).await {
        Ok(Ok(value)) => (Some(value), Finding::Pass),
        Ok(Err(finding)) => (None, finding),
        Err(_) => {
            let reason = no_answer(&what.0, within);
            (None, Finding::fail(reason, what.1.clone()))
        }
    };
    let took = milliseconds(start);
    let at = unix_seconds(SystemTime::now());
    (value, Last { finding, at, took })
}

fn no_answer(what: &str, within: Duration) -> String {
    format!("{what}: no answer within {within:?}")
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn at_once(finding: Finding) -> Last {
    Last {
        finding,
        at: unix_seconds(SystemTime::now()),
        took: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_are_begun_at_once_than_may_be() {
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = (0..20_usize).map(|n| {
            let (open, most) = (open.clone(), most.clone());
            async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..n {
                    tokio::task::yield_now().await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
                n
            }
        });
        let mut done = in_turn(3, work).await;
        done.sort_unstable();
        assert_eq!(done, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }
}
