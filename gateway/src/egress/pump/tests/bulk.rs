//! Bulk between sockets, which goes through pipes: nothing of it may differ from a copy.

use std::{collections::hash_map::DefaultHasher, hash::Hasher, time::Duration};

use rustix::net::SendFlags;
use sluicegate_policy::Denial;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
};

use super::{End, Party, Pump, carried, tcp_pair};
use crate::egress::splice::idle_pipes;

const MIB: usize = 1024 * 1024;

/// Bytes that differ from place to place, so that a lost or doubled page shows.
async fn send(to: &mut TcpStream, bytes: usize, seed: u64) -> u64 {
    let (mut digest, mut state, mut left) = (DefaultHasher::new(), seed, bytes);
    let mut chunk = vec![0_u8; 64 * 1024];
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&state.to_le_bytes());
        }
        let n = chunk.len().min(left);
        to.write_all(&chunk[..n]).await.unwrap();
        chunk[..n].iter().for_each(|byte| digest.write_u8(*byte));
        left -= n;
    }
    to.shutdown().await.unwrap();
    digest.finish()
}

async fn receive(from: &mut TcpStream) -> (usize, u64) {
    let (mut digest, mut total) = (DefaultHasher::new(), 0);
    let mut chunk = vec![0_u8; 64 * 1024];
    loop {
        let n = from.read(&mut chunk).await.unwrap();
        if n == 0 {
            return (total, digest.finish());
        }
        chunk[..n].iter().for_each(|byte| digest.write_u8(*byte));
        total += n;
    }
}

#[tokio::test]
async fn both_ways_at_once_every_byte_arrives_and_the_pipes_come_back() {
    let (client, downstream) = tcp_pair().await;
    let (upstream, server) = tcp_pair().await;
    let (mut up, mut down) = (0, 0);
    let work = carried(downstream, upstream, |party, n| {
        *(if party == Party::Downstream {
            &mut up
        } else {
            &mut down
        }) += n;
        Ok(())
    });
    let (mut from_client, mut to_client) = client.split_streams();
    let (mut from_server, mut to_server) = server.split_streams();
    let talk = async {
        tokio::join!(
            send(&mut from_client, 24 * MIB, 1),
            receive(&mut to_server),
            send(&mut from_server, 16 * MIB, 2),
            receive(&mut to_client)
        )
    };
    let (end, (sent_up, got_up, sent_down, got_down)) = tokio::join!(work, talk);
    assert!(matches!(end, End::Finished(_)), "{end:?}");
    assert_eq!(got_up, (24 * MIB, sent_up));
    assert_eq!(got_down, (16 * MIB, sent_down));
    assert_eq!((up, down), (24 * MIB, 16 * MIB), "every byte is counted");
    assert!(idle_pipes() > 0, "no pipe was used, or none came back");
}

#[tokio::test]
async fn what_comes_after_a_half_close_goes_the_other_way() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut server) = tcp_pair().await;
    let work = carried(downstream, upstream, |_, _| Ok(()));
    let talk = async {
        let sent = async {
            let sent = send(&mut client, 4 * MIB, 3).await;
            (sent, receive(&mut client).await)
        };
        let answered = async {
            let got = receive(&mut server).await;
            (got, send(&mut server, 5 * MIB, 4).await)
        };
        let ((sent, answer), (got, answered)) = tokio::join!(sent, answered);
        assert_eq!(got, (4 * MIB, sent));
        assert_eq!(answer, (5 * MIB, answered));
    };
    let (end, ()) = tokio::join!(work, talk);
    assert_eq!(end, End::Finished(Party::Downstream));
}

#[tokio::test]
async fn an_urgent_byte_is_no_end() {
    let (mut client, downstream) = tcp_pair().await;
    let (upstream, mut server) = tcp_pair().await;
    let work = carried(downstream, upstream, |_, _| Ok(()));
    let talk = async {
        let (bulk, mut got) = (vec![7; 4 * MIB], vec![0; 4 * MIB]);
        let (sent, came) = tokio::join!(client.write_all(&bulk), server.read_exact(&mut got));
        assert!(sent.is_ok() && came.unwrap() == bulk.len());
        let urgent =
            || -> std::io::Result<usize> { Ok(rustix::net::send(&client, b"!", SendFlags::OOB)?) };
        client.async_io(Interest::WRITABLE, urgent).await.unwrap();
        client.write_all(b"behind").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"behind");
        server.shutdown().await.unwrap();
        assert_eq!(client.read_to_end(&mut rest).await.unwrap(), 0);
    };
    let (end, ()) = tokio::join!(work, talk);
    assert_eq!(end, End::Finished(Party::Downstream));
}

#[tokio::test]
async fn a_reset_in_the_middle_of_bulk_is_a_reset() {
    for resetting in [Party::Downstream, Party::Upstream] {
        let (client, mut downstream) = tcp_pair().await;
        let (mut upstream, server) = tcp_pair().await;
        let (mut writer, mut reader) = (client, server);
        let mut pump = Pump::new(None, Vec::new());
        let work = pump.run(&mut downstream, &mut upstream, |_, _| Ok(()));
        let talk = async {
            let chunk = vec![1; 64 * 1024];
            let mut buffer = vec![0; 64 * 1024];
            let (mut sent, mut got) = (0, 0);
            while got < 4 * MIB {
                tokio::select! {
                    n = writer.write(&chunk) => sent += n.unwrap(),
                    n = reader.read(&mut buffer) => got += n.unwrap(),
                }
            }
            assert!(sent >= got);
            let (reset, kept) = match resetting {
                Party::Downstream => (writer, reader),
                Party::Upstream | Party::Gateway => (reader, writer),
            };
            reset.set_zero_linger().unwrap();
            drop(reset);
            kept
        };
        let (end, _kept) = tokio::join!(work, talk);
        assert_eq!(end, End::Reset(resetting));
    }
}

#[tokio::test]
async fn a_reset_is_noticed_though_the_other_side_takes_nothing() {
    let (mut client, mut downstream) = tcp_pair().await;
    let (mut upstream, _frozen) = tcp_pair().await;
    let mut pump = Pump::new(None, Vec::new());
    let work = pump.run(&mut downstream, &mut upstream, |_, _| Ok(()));
    let fill = async {
        let chunk = vec![1; 64 * 1024];
        let stalled = Duration::from_millis(300);
        while tokio::time::timeout(stalled, client.write_all(&chunk))
            .await
            .is_ok()
        {}
        client.set_zero_linger().unwrap();
        drop(client);
    };
    let (end, ()) = tokio::join!(work, fill);
    assert_eq!(end, End::Reset(Party::Downstream));
}

#[tokio::test]
async fn the_observer_stops_bulk_before_more_is_passed_on() {
    let (mut client, mut downstream) = tcp_pair().await;
    let (mut upstream, mut server) = tcp_pair().await;
    const QUOTA: usize = 6 * MIB;
    let mut left = QUOTA as i64;
    let end = {
        let mut pump = Pump::new(None, Vec::new());
        let work = pump.run(&mut downstream, &mut upstream, |_, n| {
            left -= n as i64;
            if left >= 0 {
                Ok(())
            } else {
                Err(Denial::ByteQuota)
            }
        });
        let chunk = vec![5; 64 * 1024];
        let mut buffer = vec![0; 64 * 1024];
        let (writes, reads) = (
            async { while client.write_all(&chunk).await.is_ok() {} },
            async { while server.read(&mut buffer).await.unwrap_or(0) > 0 {} },
        );
        tokio::select! {
            end = work => end,
            _ = async { tokio::join!(writes, reads) } => panic!("nothing stopped it"),
        }
    };
    assert_eq!(end, End::Cut(Denial::ByteQuota));
}

/// Two handles on one socket, so that it is written and read at once.
trait SplitStreams {
    fn split_streams(self) -> (TcpStream, TcpStream);
}

impl SplitStreams for TcpStream {
    fn split_streams(self) -> (TcpStream, TcpStream) {
        let std = self.into_std().unwrap();
        let twin = std.try_clone().unwrap();
        (
            TcpStream::from_std(std).unwrap(),
            TcpStream::from_std(twin).unwrap(),
        )
    }
}
