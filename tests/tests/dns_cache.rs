//! How long answers are kept: as their TTL says, within the operator's floor and ceiling, "no such name" likewise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::IpAddr;
use std::time::Duration;

use e2e::dns::Answer;
use e2e::{Ask, Ca, Dns, Gateway, RawOrigin, Session, Settings};

/// Opens `name` over and over until the name server is asked again: how often it was opened, and how long that took.
struct Watch<'a> {
    dns: &'a Dns,
    session: &'a Session,
    name: &'a str,
    port: u16,
}

impl Watch<'_> {
    async fn open(&self) -> u16 {
        let target = format!("{}:{}", self.name, self.port);
        self.session.connect(&target).await.0.status
    }

    fn asked(&self) -> usize {
        // The other family has nothing, and that is kept for another time.
        let queries = self.dns.queries();
        let own =
            |one: &&(String, _)| one.0 == self.name && one.1 == hickory_proto::rr::RecordType::A;
        queries.iter().filter(own).count()
    }

    /// The status of one open, and how long its answer is kept.
    async fn life(&self) -> (u16, Duration) {
        let status = self.open().await;
        let (asked, since) = (self.asked(), tokio::time::Instant::now());
        let again = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            while self.asked() == asked {
                tick.tick().await;
                assert_eq!(self.open().await, status);
            }
        };
        e2e::within(self.name, again).await;
        (status, since.elapsed())
    }
}

#[tokio::test]
async fn answers_live_within_floor_and_ceiling() {
    let (dns, ca, origin) = (Dns::start().await, Ca::create(), RawOrigin::start().await);
    let here = || Answer::Addresses(vec![IpAddr::from([127, 0, 0, 1])]);
    dns.set_with_ttl("short.allowed.test", here(), 0);
    dns.set_with_ttl("long.allowed.test", here(), 86_400);
    dns.set_with_ttl("gone.allowed.test", Answer::Gone, 86_400);
    dns.set_with_ttl("fleeting.allowed.test", Answer::Gone, 0);
    let more = format!(
        "dns: {{servers: [\"{}\"], minTtl: 1s, maxTtl: 3s, negativeTtl: 3s}}\n",
        dns.address
    );
    let settings = Settings {
        more,
        ..Settings::default()
    };
    let gateway = Gateway::start(&settings).await;
    let ask = Ask {
        allow: &["*.allowed.test:*"],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &ca, ask).await;
    for (name, status, least, most) in [
        // No time at all is raised to the floor, a day is lowered to the ceiling. Lives are counted in whole seconds.
        ("short.allowed.test", 200, 300, 2500),
        ("long.allowed.test", 200, 2000, 15_000),
        ("fleeting.allowed.test", 502, 300, 2500),
        ("gone.allowed.test", 502, 2000, 15_000),
    ] {
        let watch = Watch {
            dns: &dns,
            session: &session,
            name,
            port: origin.address.port(),
        };
        let bounds = Duration::from_millis(least)..Duration::from_millis(most);
        let mut lives = Vec::new();
        // A machine that stood still in between makes a life longer, or shorter by what was lost before it is watched: that happens now
        // and then, and a wrong bound is wrong each time.
        while lives.len() < 4 && lives.last().is_none_or(|life| !bounds.contains(life)) {
            let (found, life) = watch.life().await;
            assert_eq!(found, status, "{name}");
            lives.push(life);
        }
        assert!(
            bounds.contains(&lives[lives.len() - 1]),
            "{name}: {lives:?}"
        );
    }
}
