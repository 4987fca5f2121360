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

use std::time::Duration;

use sluicegate_policy::Denial;

use super::{End, Pump};
use crate::{egress::splice::Plain, outcome::Party};

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

#[tokio::test]
async fn the_first_bytes_go_up_before_the_rest() {
    let (mut client, mut downstream) = duplex(8);
    let (mut upstream, mut server) = duplex(8);
    let mut pump = Pump::new(None, b"held and ".to_vec());
    let work = pump.run(&mut downstream, &mut upstream, |_, _| Ok(Duration::ZERO));
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
            pump.run(&mut downstream, &mut upstream, |_, _| Ok(Duration::ZERO))
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
            Ok(Duration::ZERO)
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

mod bulk;
