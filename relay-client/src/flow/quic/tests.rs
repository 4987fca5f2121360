#![allow(clippy::unwrap_used, clippy::panic)]

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use sluicegate_relay_protocol::ErrorCode;
use tokio::{task::JoinSet, time::timeout};

use super::{super::testing::*, Broken, Flow, QuicFlow, code};

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
