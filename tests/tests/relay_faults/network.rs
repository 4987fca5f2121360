//! A client behind a router that limits, loses, swallows and renumbers.

use std::path::Path;
use std::time::Duration;

use e2e::relay::TRANSPORTS;
use e2e::tasks::timed;
use e2e::{Network, Towards};

use crate::lab::{Lab, eventually, is_cut, there_and_back};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_narrow_path_slows_streams_and_breaks_none() {
    for transport in TRANSPORTS {
        let network = Network::create().await;
        let lab = Lab::inside(&network, transport).await;
        network.limit("20mbit").await;
        let (bulk, small) = (lab.echoing().await, lab.echoing().await);
        // What is small finds its way beside what fills the path.
        let questions = async {
            for number in 0..5 {
                lab.asks(&format!("question {number}")).await.unwrap();
            }
        };
        tokio::join!(there_and_back(bulk, 2 * MIB, 1), questions);
        there_and_back(small, 1000, 2).await;
    }
}

#[tokio::test]
async fn lost_packets_cost_time_and_no_byte() {
    for transport in TRANSPORTS {
        let network = Network::create().await;
        let lab = Lab::inside(&network, transport).await;
        network.lose_every(60).await;
        let (one, two) = (lab.echoing().await, lab.echoing().await);
        tokio::join!(there_and_back(one, 2 * MIB, 1), there_and_back(two, MIB, 2));
    }
}

/// It is gone before anybody can ask whose it is, and nobody else is in this network whose it could be.
#[tokio::test]
async fn a_program_that_writes_and_closes_at_once_is_heard() {
    let network = Network::create().await;
    for transport in TRANSPORTS {
        let lab = Lab::inside_alone(&network, transport).await;
        let port = lab.client.entry("told").port().to_string();
        let script = "import socket, sys
for _ in range(100):
    s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    s.sendall(b'eadded')
    s.shutdown(1)
    s.close()";
        let program = network.inside(Path::new("python3"));
        program.args(["-c", script, &port]).run().await.succeeded();
        eventually("every word", || (lab.heard("added") == 100).then_some(())).await;
    }
}

/// Nobody says that UDP is dropped, nobody is asked, and no open fails on the way to TLS and back.
#[tokio::test]
async fn udp_that_goes_nowhere_is_left_for_tls_and_found_again() {
    let network = Network::create().await;
    let lab = Lab::inside(&network, "auto").await;
    lab.asks("over QUIC").await.unwrap();
    eventually("QUIC", || {
        (lab.client.connections() == ["quic"]).then_some(())
    })
    .await;
    let open = lab.echoing().await;
    network.swallow_udp().await;
    lab.asks("asked of a path that is gone").await.unwrap();
    assert_eq!(lab.client.connections(), ["quic", "h2"]);
    // It was nowhere but on that path.
    is_cut(open, "a stream on a path that has been silent for too long").await;
    network.heal().await;
    eventually("QUIC again", || {
        (lab.client.connections() == ["quic", "h2", "quic"]).then_some(())
    })
    .await;
    lab.asks("over QUIC again").await.unwrap();
}

/// Half a path is none. The gateway's questions, or what the client sends, go on to pass, and keep nobody waiting.
#[tokio::test]
async fn udp_that_is_lost_one_way_is_left_for_tls_as_soon() {
    // 5 s of silence, a look every half second, the wait before a connection is made, two handshakes; on a slow machine less than the
    // 15 s behind which quinn gives a path up at the earliest.
    const LEFT: Duration = Duration::from_secs(14);
    // 15 s of silence and a look; on a slow machine less than the 30 s of quinn, which counts 15 s from the last question of the gateway's,
    // who gives up behind 15 s itself.
    const CUT: Duration = Duration::from_secs(28);
    for towards in [Towards::Gateway, Towards::Client] {
        let network = Network::create().await;
        let lab = Lab::inside(&network, "auto").await;
        eventually("QUIC", || {
            (lab.client.connections() == ["quic"]).then_some(())
        })
        .await;
        let open = lab.echoing().await;
        assert_eq!(lab.goes_out().await, 200);
        lab.asks("right before").await.unwrap();
        network.swallow_udp_towards(towards).await;
        let whole = async {
            let asked = async {
                match (lab.asks("on what is left").await, towards) {
                    // It has arrived, and only its answer has not: that is never said twice, and its program asks again.
                    (Err(_), Towards::Client) => lab.asks("and again").await,
                    (asked, _) => asked,
                }
            };
            let both = async { tokio::join!(asked, lab.goes_out()) };
            let ((asked, status), left) = timed(both).await;
            asked.unwrap();
            assert_eq!(status, 200, "{towards:?}");
            assert!(left < LEFT, "{towards:?}: {left:?}");
            let told = lab.says().await;
            assert_eq!(told["state"], "connected", "{told}");
            assert_eq!(told["transport"], "h2", "{told}");
            let why = "QUIC worked, and nothing came back on it any more";
            assert_eq!(told["why"], why, "{told}");
            assert_eq!(lab.client.connections(), ["quic", "h2"]);
            is_cut(open, "a stream on a path that has been silent for too long").await;
        };
        let ((), cut) = timed(whole).await;
        assert!(cut < CUT, "{towards:?}: {cut:?}");
    }
}

/// What a tunnel or a roaming radio does: a gap that is shorter than patience.
#[tokio::test]
async fn a_short_silence_breaks_no_stream() {
    let network = Network::create().await;
    let lab = Lab::inside(&network, "quic").await;
    network.limit("20mbit").await;
    let (idle, busy) = (lab.echoing().await, lab.echoing().await);
    let gap = async {
        network.swallow_udp().await;
        // The silence is the fault itself: no event ends it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        network.heal().await;
    };
    tokio::join!(there_and_back(busy, MIB, 1), gap);
    there_and_back(idle, 1000, 2).await;
}

#[tokio::test]
async fn on_quic_a_new_address_keeps_every_stream() {
    let network = Network::create().await;
    let lab = Lab::inside(&network, "auto").await;
    network.limit("20mbit").await;
    let (idle, busy) = (lab.echoing().await, lab.echoing().await);
    tokio::join!(there_and_back(busy, MIB, 1), network.renumber());
    there_and_back(idle, 1000, 2).await;
    lab.asks("from the new address").await.unwrap();
    // RFC 9000 §9: it is the same connection that has moved.
    assert_eq!(lab.client.connections(), ["quic"]);
}

/// TCP cannot move. What was open is cut and says so; what comes later is carried by the next connection.
#[tokio::test]
async fn on_h2_a_new_address_costs_what_is_open_and_nothing_later() {
    let network = Network::create().await;
    let lab = Lab::inside(&network, "h2").await;
    let open = lab.echoing().await;
    network.renumber().await;
    lab.asks("from the new address").await.unwrap();
    is_cut(
        open,
        "a stream on a connection from an address that is gone",
    )
    .await;
}
