//! A client behind a link with delay, jitter and loss, from seeds.

use std::time::Duration;

use e2e::relay::TRANSPORTS;
use e2e::{Tasks, Weather, Wire, until};
use tokio::io::AsyncReadExt;

use crate::lab::{FLOOD, Lab, by_quic, eventually, there_and_back};

const BAD: Weather = Weather {
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(4),
    lost: 15,
    cut: 0,
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

/// What a program says goes ahead of the answer. Here it arrives, and the answer does not: asked on the next connection, the
/// gateway says so, and nothing is said twice.
#[tokio::test]
async fn a_lost_answer_is_a_reset_and_no_second_delivery() {
    let (lab, link) = Lab::behind("auto", Weather::default(), 1).await;
    lab.asks("over QUIC").await.unwrap();
    assert_eq!(lab.client.connections(), ["quic"]);
    link.swallow_answers(true);
    let lost = lab.asks("the lost one").await.unwrap_err();
    assert!(lost.contains("ConnectionReset"), "{lost}");
    let told = || (lab.heard("the lost one") > 0).then_some(());
    until("the service to be told", told).await;
    eventually("TLS", || {
        (lab.client.connections() == ["quic", "h2"]).then_some(())
    })
    .await;
    let refused = |record: &e2e::Record| record.text("reason") == "already_opened";
    let asked = || lab.world.gateway.records().into_iter().find(refused);
    eventually("the question", asked).await;
    lab.asks("the next one").await.unwrap();
    let heard = ["the lost one", "the next one"].map(|question| lab.heard(question));
    assert_eq!(heard, [1, 1]);
}

/// Here it does not arrive either: what has gone into the silence is sent again, and no open is lost.
#[tokio::test]
async fn what_was_said_into_the_silence_is_said_again_once() {
    let (lab, link) = Lab::behind("auto", Weather::default(), 1).await;
    lab.asks("over QUIC").await.unwrap();
    assert_eq!(lab.client.connections(), ["quic"]);
    link.swallow_udp(true);
    let questions: Vec<_> = (0..8).map(|number| format!("unheard {number}")).collect();
    let asked = Tasks::default();
    for question in questions.clone() {
        let entry = lab.client.entry("told");
        asked.spawn(async move { Lab::asks_at(entry, &question).await.unwrap() });
    }
    asked.finish().await;
    for question in &questions {
        assert_eq!(lab.heard(question), 1, "{question}");
    }
    assert_eq!(lab.client.connections(), ["quic", "h2"]);
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

#[tokio::test]
async fn the_metrics_say_why_a_transport_carries() {
    let (lab, link) = Lab::behind("h2", Weather::default(), 1).await;
    let listen = [e2e::RelayClient::tcp("told")];
    let url = link.url();
    let more = ["--url", &url, "--status", "127.0.0.1:0"];
    let start = async || e2e::RelayClient::up_with(&lab.session, &more, &listen).await;
    let client = by_quic(start).await;
    let said = client.event("status").await;
    let place = said["address"].as_str().unwrap().to_owned();
    let address = place.strip_prefix("http://").unwrap().parse().unwrap();
    let told = async |sample: &str| {
        e2e::tasks::until_told(sample, async || {
            let metrics = e2e::web::fetch(address, "/metrics").await.text();
            metrics.lines().any(|line| line == sample).then_some(())
        })
        .await;
    };
    let name = "sluicegate_relay_transport_info";
    told(&format!(
        "{name}{{transport=\"quic\",reason=\"preferred\"}} 1"
    ))
    .await;
    link.swallow_udp(true);
    told(&format!("{name}{{transport=\"h2\",reason=\"udp_lost\"}} 1")).await;
    link.swallow_udp(false);
    told(&format!(
        "{name}{{transport=\"quic\",reason=\"recovered\"}} 1"
    ))
    .await;
    told("sluicegate_relay_chosen_total{transport=\"h2\",reason=\"udp_lost\"} 1").await;
}

/// On a far and wide path what holds a download up is its window: it grows while its reader keeps up.
#[tokio::test]
async fn far_away_a_download_gets_a_larger_window() {
    let far = Weather {
        delay: Duration::from_millis(50),
        ..Weather::default()
    };
    let (lab, link) = Lab::behind("h2", far, 1).await;
    let listen = [e2e::RelayClient::tcp("told")];
    let (url, status) = (["--url", &link.url()], ["--status", "127.0.0.1:0"]);
    let more = [["--transport", "h2"], url, status].concat();
    let client = e2e::RelayClient::up_with(&lab.session, &more, &listen).await;
    client.event("connected").await;
    let said = client.event("status").await;
    let place = said["address"].as_str().unwrap();
    let address = place.strip_prefix("http://").unwrap().parse().unwrap();
    let window = async || {
        let told = e2e::web::fetch(address, "/status").await.json();
        told["streamWindow"].as_u64()
    };
    let mut download = Wire::dial(client.entry("told")).await;
    assert_eq!(window().await, Some(512 * 1024));
    download.send([FLOOD]).await;
    let mut chunk = vec![0; 64 * 1024];
    let reading = async { while download.stream.read(&mut chunk).await.unwrap() > 0 {} };
    let grows = e2e::tasks::until_told("a larger window", async || {
        (window().await > Some(512 * 1024)).then_some(())
    });
    tokio::select! {
        () = reading => panic!("it has no end"),
        () = grows => {}
    }
}
