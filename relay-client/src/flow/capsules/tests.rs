#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::poll_fn;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{super::testing::capsule_pair, Broken, CapsuleFlow, Chunk, DATA, FINAL_DATA, Flow};

async fn read(flow: &mut CapsuleFlow) -> Result<Option<Bytes>, Broken> {
    poll_fn(|cx| flow.poll_read(cx)).await
}

#[tokio::test]
async fn a_stream_that_ends_without_final_data_is_cut() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    send.send_data(Chunk::capsule(DATA, Bytes::from_static(b"half")), true)
        .unwrap();
    assert_eq!(read(&mut flow).await, Ok(Some(Bytes::from_static(b"half"))));
    assert_eq!(read(&mut flow).await, Err(Broken::Truncated));
}

#[tokio::test]
async fn every_reset_code_is_a_reset() {
    use h2::Reason;
    for code in [
        Reason::CANCEL,
        Reason::NO_ERROR,
        Reason::CONNECT_ERROR,
        Reason::INTERNAL_ERROR,
    ] {
        let mut drivers = JoinSet::new();
        let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
        let mut flow = CapsuleFlow::new(server.0, server.1);
        send.send_reset(code);
        assert_eq!(read(&mut flow).await, Err(Broken::Reset), "{code:?}");
    }
}

#[tokio::test]
async fn data_after_the_end_is_refused() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    send.send_data(Chunk::capsule(FINAL_DATA, Bytes::from_static(b"x")), false)
        .unwrap();
    assert_eq!(read(&mut flow).await, Ok(Some(Bytes::from_static(b"x"))));
    assert_eq!(read(&mut flow).await, Ok(None));
}

#[tokio::test]
async fn an_abort_says_connect_error() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    drop(CapsuleFlow::new(server.0, server.1));
    let code = poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
    assert_eq!(code, h2::Reason::CONNECT_ERROR);
}

/// More one-byte frames than h2's budget for unread ones: a slow reader must not cost the connection.
#[tokio::test]
async fn many_small_frames_wait_without_harm() {
    const FRAMES: usize = 40_000;
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    for place in 0..FRAMES {
        let payload = Bytes::copy_from_slice(&[place as u8]);
        send.send_data(Chunk::capsule(DATA, payload), false)
            .unwrap();
        tokio::task::yield_now().await;
        // Nobody reads; the pump only listens whether it broke.
        poll_fn(|cx| match flow.poll_broken(cx) {
            std::task::Poll::Ready(broken) => panic!("{broken} after {place} frames"),
            std::task::Poll::Pending => std::task::Poll::Ready(()),
        })
        .await;
    }
    send.send_data(Chunk::capsule(FINAL_DATA, Bytes::new()), true)
        .unwrap();
    let mut heard = Vec::new();
    while let Some(data) = read(&mut flow).await.unwrap() {
        heard.extend_from_slice(&data);
    }
    assert!(
        heard.len() == FRAMES
            && heard
                .iter()
                .enumerate()
                .all(|(place, byte)| *byte == place as u8)
    );
}
