#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
};

use std::{sync::Arc, time::Duration};

use sluicegate_policy::{Denial, Limits};
use sluicegate_relay::flow::Pacing;

use super::{End, Observe, Pump};
use crate::{
    egress::{Guarded, splice::Plain},
    outcome::Party,
    session::{Budget, Way},
};

impl Plain for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }

    fn tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Plain for tokio::io::DuplexStream {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }

    fn tcp(&self) -> Option<&TcpStream> {
        None
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, server) = tokio::join!(client, listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// Carry to the end, and let go of both as a tunnel does.
async fn carried(
    downstream: TcpStream,
    upstream: TcpStream,
    observe: impl FnMut(Party, usize) -> Result<(), Denial>,
) -> End {
    let (mut downstream, mut upstream) = (Guarded::new(downstream), Guarded::new(upstream));
    let mut pump = Pump::new(None, Vec::new());
    let end = pump.run(&mut downstream, &mut upstream, observe).await;
    if matches!(end, End::Finished(_)) {
        downstream.release();
        upstream.release();
    }
    end
}

#[tokio::test]
async fn the_first_bytes_go_up_before_the_rest() {
    let (mut client, mut downstream) = duplex(8);
    let (mut upstream, mut server) = duplex(8);
    let mut pump = Pump::new(None, b"held and ".to_vec());
    let work = pump.run(&mut downstream, &mut upstream, |_, _| Ok(()));
    let talk = async {
        client.write_all(b"sent on").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "held and sent on");
        let mut answer = String::new();
        let write = async {
            server
                .write_all(b"answer after the other side's FIN")
                .await
                .unwrap();
            server.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(write, client.read_to_string(&mut answer));
        read.unwrap();
        assert_eq!(answer, "answer after the other side's FIN");
    };
    let (end, ()) = tokio::join!(work, talk);
    assert_eq!(end, End::Finished(Party::Downstream));
}

#[tokio::test]
async fn both_sockets_end_in_fin_whichever_side_is_first() {
    for first in [Party::Downstream, Party::Upstream] {
        // The last bytes come with the end, or have arrived before it.
        for together in [true, false] {
            let (client, downstream) = tcp_pair().await;
            let (upstream, server) = tcp_pair().await;
            let (mut early, mut late) = match first {
                Party::Downstream => (client, server),
                Party::Upstream | Party::Gateway => (server, client),
            };
            let answer = vec![7; 64 * 1024];
            let work = carried(downstream, upstream, |_, _| Ok(()));
            let talk = async {
                early.write_all(b"question").await.unwrap();
                early.shutdown().await.unwrap();
                let mut asked = String::new();
                late.read_to_string(&mut asked).await.unwrap();
                assert_eq!(asked, "question");
                late.write_all(&answer).await.unwrap();
                let mut got = vec![0; if together { 0 } else { answer.len() }];
                early.read_exact(&mut got).await.unwrap();
                late.shutdown().await.unwrap();
                // A reset would be an error.
                early.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, answer);
            };
            let (end, ()) = tokio::join!(work, talk);
            assert_eq!(end, End::Finished(first));
            for peer in [early, late] {
                assert!(peer.take_error().unwrap().is_none(), "a reset behind FIN");
            }
        }
    }
}

#[tokio::test]
async fn a_reset_by_either_side_is_told_apart_from_an_end() {
    for resetting in [Party::Downstream, Party::Upstream] {
        let (client, mut downstream) = tcp_pair().await;
        let (mut upstream, server) = tcp_pair().await;
        let (reset, _kept) = if resetting == Party::Downstream {
            (client, server)
        } else {
            (server, client)
        };
        reset.set_zero_linger().unwrap();
        drop(reset);
        let mut pump = Pump::new(None, Vec::new());
        assert_eq!(
            pump.run(&mut downstream, &mut upstream, |_, _| Ok(()))
                .await,
            End::Reset(resetting)
        );
    }
}

#[tokio::test]
async fn every_byte_is_observed_and_the_observer_can_stop_it() {
    let (mut client, mut downstream) = duplex(1024);
    let (mut upstream, mut server) = duplex(1024);
    let mut left = 100_000_i64;
    let mut pump = Pump::new(None, Vec::new());
    let work = pump.run(&mut downstream, &mut upstream, move |party, n| {
        assert_eq!(party, Party::Downstream);
        left -= i64::try_from(n).unwrap();
        if left > 0 {
            Ok(())
        } else {
            Err(Denial::ByteQuota)
        }
    });
    let write = async {
        let mut sent = 0;
        while client.write_all(&[7; 1000]).await.is_ok() && sent < 300_000 {
            sent += 1000;
        }
        sent
    };
    let read = async {
        let mut buf = [0; 4096];
        while server.read(&mut buf).await.unwrap_or(0) > 0 {}
    };
    tokio::select! {
        end = work => assert_eq!(end, End::Cut(Denial::ByteQuota)),
        _ = async { tokio::join!(write, read) } => panic!("the observer did not stop it"),
    }
}

/// A tunnel of a session with a bandwidth.
#[derive(Clone, Copy)]
struct Paced<'a>(&'a Arc<Budget>);

impl Observe for Paced<'_> {
    fn moved(&mut self, _: Party, _: usize) -> Result<(), Denial> {
        Ok(())
    }

    fn piece(&self) -> Option<usize> {
        self.0.piece()
    }

    fn pace(&self, by: Party, bytes: usize) -> Option<Pacing> {
        let way = match by {
            Party::Downstream => Way::Up,
            Party::Upstream | Party::Gateway => Way::Down,
        };
        self.0.pace(way, bytes)
    }
}

#[tokio::test(start_paused = true)]
async fn bandwidth_binds_short_tunnels_and_their_first_bytes() {
    let limits = Limits {
        bandwidth: Some(10_000),
        ..Limits::default()
    };
    let budget = Arc::new(Budget::new(limits, None));
    let start = tokio::time::Instant::now();
    for _ in 0..10 {
        let (mut client, mut downstream) = duplex(64 * 1024);
        let (mut upstream, mut server) = duplex(64 * 1024);
        let mut pump = Pump::new(None, vec![1; 1500]);
        let work = pump.run(&mut downstream, &mut upstream, Paced(&budget));
        let talk = async {
            client.write_all(&[2; 1500]).await.unwrap();
            client.shutdown().await.unwrap();
            server.write_all(&[3; 3000]).await.unwrap();
            server.shutdown().await.unwrap();
            let (mut up, mut down) = (Vec::new(), Vec::new());
            server.read_to_end(&mut up).await.unwrap();
            client.read_to_end(&mut down).await.unwrap();
            assert_eq!(up, [vec![1; 1500], vec![2; 1500]].concat());
            assert_eq!(down, vec![3; 3000]);
        };
        let (end, ()) = tokio::join!(work, talk);
        assert!(matches!(end, End::Finished(_)), "{end:?}");
    }
    // 30,000 bytes each way; a tenth of a second's worth and one piece go ahead.
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(2_750)..Duration::from_millis(3_100)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_tunnel_moves_a_piece_at_a_time_and_may_be_polled_anew() {
    let limits = Limits {
        bandwidth: Some(100),
        ..Limits::default()
    };
    let budget = Arc::new(Budget::new(limits, None));
    let (_client, mut downstream) = duplex(64 * 1024);
    let (mut upstream, mut server) = duplex(64 * 1024);
    let mut pump = Pump::new(None, vec![1; 60_000]);
    for second in 1..=120_usize {
        // Dropped in the middle of a wait, and begun again, as for a change of policy.
        let turn = pump.run(&mut downstream, &mut upstream, Paced(&budget));
        let ended = tokio::time::timeout(Duration::from_secs(1), turn).await;
        assert!(ended.is_err());
        assert!(pump.waits(), "what waits is not silent");
        let mut seen = vec![0; 64 * 1024];
        let read = tokio::time::timeout(Duration::from_millis(1), server.read(&mut seen)).await;
        let moved = read.map_or(0, Result::unwrap);
        assert!(moved <= 300, "{moved} bytes in second {second}");
    }
}

mod bulk;
mod gated;

/// Every open tunnel has one.
#[test]
fn a_pump_is_small() {
    assert!(size_of::<Pump>() <= 1024, "{}", size_of::<Pump>());
}
