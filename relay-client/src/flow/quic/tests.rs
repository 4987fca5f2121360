#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use quinn::ConnectionError;
use sluicegate_relay_protocol::ErrorCode;
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{super::testing::*, Broken, Flow, QuicFlow, code};
use crate::transport::{closing, tuning, windows};

const PATIENCE: Duration = Duration::from_secs(60);

async fn read(flow: &mut QuicFlow) -> Result<Option<Bytes>, Broken> {
    let read = poll_fn(|cx| flow.poll_read(cx));
    timeout(PATIENCE, read).await.unwrap()
}

async fn write(flow: &mut QuicFlow, bytes: &'static [u8]) {
    let mut chunk = Bytes::from_static(bytes);
    while !chunk.is_empty() {
        poll_fn(|cx| flow.poll_write(cx, &mut chunk)).await.unwrap();
    }
}

#[tokio::test]
async fn a_reset_behind_data_is_never_an_end() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    write(&mut near, b"half").await;
    assert_eq!(read(&mut far).await, Ok(Some(Bytes::from_static(b"half"))));
    near.reset();
    assert_eq!(read(&mut far).await, Err(Broken::Reset));
    // quinn by itself would now tell an end.
    assert_eq!(read(&mut far).await, Err(Broken::Reset));
}

#[tokio::test]
async fn a_head_with_nothing_behind_it_is_not_held() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    write(&mut near, b"head").await;
    let whole = |read: &[u8]| Ok::<_, Broken>((read.len() >= 4).then_some(((), 4)));
    let head = timeout(PATIENCE, far.head(whole)).await;
    assert_eq!(head.unwrap(), Ok(()));
    // The only piece of a buffer would be unique; of none, it is not.
    assert!(far.ahead.is_empty() && !far.ahead.is_unique());
}

/// Counted by who sends: what a client that does not read is sent on one stream, to the byte.
#[tokio::test]
async fn a_stream_of_a_first_connection_has_more_in_flight() {
    for (tuned, window) in [
        (tuning::client().config, windows::STREAM),
        (tuning::first_client().config, windows::LARGE_STREAM),
    ] {
        let mut drivers = JoinSet::new();
        let (client, server) = quic_connection_tuned(&mut drivers, tuned).await;
        let (mut asking, _unread) = client.open_bi().await.unwrap();
        asking.write_all(b"?").await.unwrap();
        let accepted = timeout(PATIENCE, server.accept_bi()).await;
        let (mut far, _) = accepted.unwrap().unwrap();
        let all = vec![0; usize::try_from(window).unwrap()];
        let written = timeout(PATIENCE, far.write_all(&all)).await;
        written.unwrap().unwrap();
        let more = poll_fn(|cx| Poll::Ready(pin!(far.write(b"!")).poll(cx).is_pending()));
        assert!(more.await, "its window has room for no more");
    }
}

#[tokio::test]
async fn every_code_is_a_reset_and_so_is_a_drop() {
    for reason in [
        Some(ErrorCode::Done),
        Some(ErrorCode::Cancelled),
        Some(ErrorCode::Connect),
        None,
    ] {
        let mut drivers = JoinSet::new();
        let (mut near, mut far) = quic_pair(&mut drivers).await;
        if let Some(reason) = reason {
            near.abort(reason);
        }
        drop(near);
        assert_eq!(read(&mut far).await, Err(Broken::Reset), "{reason:?}");
    }
}

/// An open stream does not hold what opening it waited for; who asks again hears all the same.
#[tokio::test]
async fn who_asks_no_longer_holds_nothing_for_it() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    poll_fn(|cx| {
        assert!(near.poll_broken(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(near.send.waits());
    near.unwatched();
    assert!(!near.send.waits());
    far.receive.stop(code(ErrorCode::Connect));
    let broken = timeout(PATIENCE, poll_fn(|cx| near.poll_broken(cx)));
    assert_eq!(broken.await.unwrap(), Broken::Reset);
}

#[tokio::test]
async fn stop_sending_is_heard_by_who_does_not_write() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    far.receive.stop(code(ErrorCode::Connect));
    let broken = timeout(PATIENCE, poll_fn(|cx| near.poll_broken(cx)));
    assert_eq!(broken.await.unwrap(), Broken::Reset);
    drop(far);
}

#[tokio::test]
async fn an_end_is_one_only_when_it_has_arrived() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    write(&mut near, b"all").await;
    let finished = timeout(PATIENCE, poll_fn(|cx| near.poll_finish(cx)));
    finished.await.unwrap().unwrap();
    assert_eq!(read(&mut far).await, Ok(Some(Bytes::from_static(b"all"))));
    assert_eq!(read(&mut far).await, Ok(None));
    // The other half goes on.
    write(&mut far, b"answer").await;
    assert_eq!(
        read(&mut near).await,
        Ok(Some(Bytes::from_static(b"answer")))
    );
    // What the path loses before that is not.
    let (mut near, far) = quic_pair(&mut drivers).await;
    near.send.write(Bytes::from_static(b"x")).await.unwrap();
    drop(drivers);
    let finished = timeout(PATIENCE, poll_fn(|cx| near.poll_finish(cx)));
    assert_eq!(finished.await.unwrap(), Err(Broken::Lost));
    drop(far);
}

#[tokio::test]
async fn what_stands_behind_a_head_is_payload() {
    let mut drivers = JoinSet::new();
    let (mut near, mut far) = quic_pair(&mut drivers).await;
    near.send_head(b"head+payload".to_vec()).await.unwrap();
    let decode = |bytes: &[u8]| Ok::<_, ()>((bytes.len() >= 5).then_some(((), 5)));
    timeout(PATIENCE, far.head(decode)).await.unwrap().unwrap();
    assert_eq!(
        read(&mut far).await,
        Ok(Some(Bytes::from_static(b"payload")))
    );
    near.send_head(b"cut".to_vec()).await.unwrap();
    near.send.finish().unwrap();
    let cut = timeout(PATIENCE, far.head(decode)).await.unwrap();
    assert_eq!(cut, Err(Broken::Truncated));
}

/// Carries datagrams between a client and `server`; while it is shut, none of the client's.
async fn wall(socket: UdpSocket, server: SocketAddr, shut: Arc<AtomicBool>) {
    let (mut packet, mut client) = (vec![0; 65_535], None);
    loop {
        // An error is about a datagram sent before.
        let Ok((length, from)) = socket.recv_from(&mut packet).await else {
            continue;
        };
        let to = if from == server {
            client
        } else {
            client = Some(from);
            (!shut.load(Ordering::Relaxed)).then_some(server)
        };
        if let Some(to) = to {
            let _ = socket.send_to(&packet[..length], to).await;
        }
    }
}

#[tokio::test]
async fn a_close_is_told_though_no_more_may_be_on_the_way() {
    let (mut drivers, mut walls) = (JoinSet::new(), JoinSet::new());
    let shut = Arc::new(AtomicBool::new(false));
    let way = async |server| {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        walls.spawn(wall(socket, server, shut.clone()));
        address
    };
    let (client, server) = quic_connection_by(&mut drivers, way).await;
    let (mut ask, _answer) = client.open_bi().await.unwrap();
    ask.write_all(b"?").await.unwrap();
    let (mut answer, _ask) = server.accept_bi().await.unwrap();
    shut.store(true, Ordering::Relaxed);
    let before = server.stats().udp_tx.bytes;
    // More than may be on the way; none of it is acknowledged.
    let taken = answer.write(&[0; 256 * 1024]).await.unwrap();
    assert!(taken > 0);
    timeout(PATIENCE, async {
        loop {
            let stats = server.stats();
            let sent = stats.udp_tx.bytes - before;
            if sent + 2 * u64::from(stats.path.current_mtu) > stats.path.cwnd {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    closing::close(&server, code(ErrorCode::Protocol), b"enough");
    match timeout(PATIENCE, client.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(closed) => {
            assert_eq!(closed.error_code, code(ErrorCode::Protocol));
            assert_eq!(&closed.reason[..], b"enough");
        }
        other => panic!("{other}"),
    }
}

/// Who is not heard any more may hear the other all the same. What counts is what is acknowledged.
#[tokio::test]
async fn what_comes_acknowledges_nothing_that_did_not_arrive() {
    let (mut drivers, mut walls) = (JoinSet::new(), JoinSet::new());
    let shut = Arc::new(AtomicBool::new(false));
    let way = async |server| {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        walls.spawn(wall(socket, server, shut.clone()));
        address
    };
    let (client, server) = quic_connection_by(&mut drivers, way).await;
    let (mut ask, mut heard) = client.open_bi().await.unwrap();
    ask.write_all(b"?").await.unwrap();
    let (mut answer, _ask) = server.accept_bi().await.unwrap();
    shut.store(true, Ordering::Relaxed);
    ask.write_all(b"?").await.unwrap();
    let unheard = async {
        loop {
            let (before, came) = (closing::answered(&client), client.stats().udp_rx.datagrams);
            for _ in 0..10 {
                answer.write_all(b"!").await.unwrap();
                heard.read_exact(&mut [0]).await.unwrap();
            }
            assert!(client.stats().udp_rx.datagrams > came);
            // What arrived before may be acknowledged late.
            if closing::answered(&client) == before {
                return before;
            }
        }
    };
    let before = timeout(PATIENCE, unheard).await.unwrap();
    shut.store(false, Ordering::Relaxed);
    let heard_again = async {
        while closing::answered(&client) == before {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, heard_again).await.unwrap();
}
