//! A client behind a link with delay, jitter and loss, from seeds.

use std::time::Duration;

use e2e::relay::TRANSPORTS;
use e2e::{Weather, until};

use crate::lab::{Lab, eventually, there_and_back};

const BAD: Weather = Weather {
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(4),
    lost: 15,
};

#[tokio::test]
async fn far_away_and_losing_packets_every_byte_arrives() {
    for transport in TRANSPORTS {
        for seed in 1..=2 {
            let (lab, link) = Lab::behind(transport, BAD, seed).await;
            let (one, two) = (lab.echoing().await, lab.echoing().await);
            tokio::join!(
                there_and_back(one, 700_000, seed),
                there_and_back(two, 300_000, seed + 10)
            );
            lab.asks("and a short one").await.unwrap();
            // On TCP a loss is a pause, and counts as none.
            assert_eq!(link.lost() > 0, transport == "quic", "{transport}");
        }
    }
}

/// A NAT in between that forgets its clients: they come from another port all of a sudden.
#[tokio::test]
async fn a_forgetful_nat_costs_no_quic_stream() {
    let (lab, link) = Lab::behind("auto", Weather::default(), 1).await;
    let (idle, busy) = (lab.echoing().await, lab.echoing().await);
    let forget = async {
        for _ in 0..3 {
            // In the middle of what goes to and fro.
            let then = link.seen() + 100;
            until("packets", || (link.seen() >= then).then_some(())).await;
            link.forget();
        }
    };
    tokio::join!(there_and_back(busy, 4_000_000, 1), forget);
    there_and_back(idle, 1000, 2).await;
    assert_eq!(lab.client.connections(), ["quic"]);
}

#[tokio::test]
async fn where_udp_never_works_tls_carries_from_the_start() {
    let (lab, link) = Lab::behind("quic", Weather::default(), 1).await;
    // The link is there for another client, which has not seen UDP work.
    link.swallow_udp(true);
    let listen = [e2e::RelayClient::tcp("told")];
    let more = ["--url", &link.url()];
    let client = e2e::RelayClient::up_with(&lab.session, &more, &listen).await;
    let connected = eventually("a connection", || client.connections().first().cloned()).await;
    assert_eq!(connected, "h2");
}
