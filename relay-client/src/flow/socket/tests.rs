#![allow(clippy::unwrap_used)]

use std::{future::poll_fn, task::Poll, time::Duration};

use super::{
    super::testing::{abort, assert_reset, pair, read_all, write},
    Broken, Flow, SocketFlow,
};

async fn read(flow: &mut SocketFlow) -> Option<bytes::Bytes> {
    poll_fn(|cx| flow.poll_read(cx)).await.unwrap()
}

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The byte that is kept in a unix queue is passed on exactly once, whatever the sizes.
#[tokio::test]
async fn unix_reads_lose_and_repeat_nothing() {
    let (program, near) = pair(true).await;
    let mut flow = SocketFlow::new(near);
    let mut wanted = Vec::new();
    for size in [1, 1, 2, 3, 1, 4096, 4097, 65_536, 1, 100_000, 1] {
        let part = super::super::testing::noise(size, size as u32);
        wanted.extend_from_slice(&part);
        let mut heard = Vec::new();
        let (program, part) = (program.clone(), part.clone());
        let writing = async move { write(&program, &part).await };
        let reading = async {
            while heard.len() < size {
                heard.extend_from_slice(&read(&mut flow).await.unwrap());
            }
        };
        tokio::join!(writing, reading);
        assert!(heard == wanted.split_off(0), "{size}");
    }
    program.shutdown().unwrap();
    assert_eq!(read(&mut flow).await, None);
}

#[tokio::test]
async fn an_orderly_unix_close_is_no_reset() {
    let (program, near) = pair(true).await;
    let mut flow = SocketFlow::new(near);
    write(&program, b"hello").await;
    assert_eq!(read(&mut flow).await.unwrap(), "hello");
    program.shutdown().unwrap();
    assert_eq!(read(&mut flow).await, None);
    poll_fn(|cx| flow.poll_finish(cx)).await.unwrap();
    drop(flow);
    assert!(read_all(&program).await.1.is_ok());
}

#[tokio::test]
async fn a_flow_dropped_early_resets() {
    for unix in [true, false] {
        let (program, near) = pair(unix).await;
        let mut flow = SocketFlow::new(near);
        write(&program, b"hello").await;
        assert_eq!(read(&mut flow).await.unwrap(), "hello");
        // Even with its own half ended in order.
        poll_fn(|cx| flow.poll_finish(cx)).await.unwrap();
        drop(flow);
        let end = read_all(&program).await.1;
        if unix {
            assert_reset(end, "unix");
        }
    }
}

/// An urgent byte is in nobody's stream; what stands before and after it is, and wakes the reader.
#[tokio::test]
async fn urgent_data_costs_no_other_byte() {
    for unix in [true, false] {
        let (program, near) = pair(unix).await;
        let mut flow = SocketFlow::new(near);
        let mut heard = Vec::new();
        for round in 0..20 {
            write(&program, b"abc").await;
            if round % 2 == 1 {
                // The mark then stands at the front of the queue.
                let reading = tokio::time::timeout(PATIENCE, read(&mut flow)).await;
                heard.extend_from_slice(&reading.unwrap().unwrap());
            }
            let urgent = rustix::net::send(&program, b"X", rustix::net::SendFlags::OOB);
            if unix && urgent.is_err() {
                // A kernel without it.
                return;
            }
            urgent.unwrap();
            write(&program, b"def|").await;
            let until = (round + 1) * 7;
            while heard.len() < until {
                let reading = tokio::time::timeout(PATIENCE, read(&mut flow)).await;
                heard.extend_from_slice(&reading.unwrap().unwrap());
            }
        }
        assert_eq!(heard, b"abcdef|".repeat(20), "unix: {unix}");
        program.shutdown().unwrap();
        let end = tokio::time::timeout(PATIENCE, read(&mut flow)).await;
        assert_eq!(end.unwrap(), None, "unix: {unix}");
    }
}

/// What the kernel closes for a process that is gone has no `drop`.
#[tokio::test]
async fn until_both_ends_are_said_a_close_is_a_reset() {
    let lingers = |flow: &SocketFlow| {
        let linger = socket2::SockRef::from(&flow.socket).linger().unwrap();
        linger == Some(Duration::ZERO)
    };
    for finish_first in [true, false] {
        let (program, near) = pair(false).await;
        let mut flow = SocketFlow::new(near);
        assert!(lingers(&flow));
        if finish_first {
            poll_fn(|cx| flow.poll_finish(cx)).await.unwrap();
        }
        program.shutdown().unwrap();
        assert_eq!(read(&mut flow).await, None);
        if !finish_first {
            assert!(lingers(&flow));
            let mut last = bytes::Bytes::from(vec![7; 1 << 20]);
            while !last.is_empty() {
                let writing = async { poll_fn(|cx| flow.poll_write(cx, &mut last)).await };
                if tokio::time::timeout(Duration::from_millis(50), writing)
                    .await
                    .is_err()
                {
                    break;
                }
            }
            let sent = (1 << 20) - last.len();
            poll_fn(|cx| flow.poll_finish(cx)).await.unwrap();
            assert!(!lingers(&flow));
            let socket = flow.socket.clone();
            drop(flow);
            let linger = socket2::SockRef::from(&socket).linger().unwrap();
            assert_eq!(linger, None);
            drop(socket);
            // A full queue still goes out behind the close.
            let (heard, end) = read_all(&program).await;
            assert!(heard.len() == sent && end.is_ok());
            continue;
        }
        assert!(!lingers(&flow));
        // It is a cut after all.
        flow.reset();
        let socket = flow.socket.clone();
        drop(flow);
        let linger = socket2::SockRef::from(&socket).linger().unwrap();
        assert_eq!(linger, Some(Duration::ZERO));
    }
}

/// What listened for a reset while nobody read goes with the first read that waits, which hears of one itself.
#[tokio::test]
async fn who_reads_keeps_no_watch() {
    let (program, near) = pair(false).await;
    let mut flow = SocketFlow::new(near);
    poll_fn(|cx| {
        assert!(flow.poll_broken(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(flow.watch.is_some());
    poll_fn(|cx| {
        assert!(flow.poll_read(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(flow.watch.is_none());
    abort(program);
    let read = tokio::time::timeout(PATIENCE, poll_fn(|cx| flow.poll_read(cx)));
    assert_eq!(read.await.unwrap(), Err(Broken::Reset));
}
