#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::poll_fn;

use bytes::Bytes;
use sluicegate_relay_protocol::capsule::{DATA, FINAL_DATA, Head};
use tokio::task::JoinSet;

use super::{
    super::testing::{Watched, capsule_pair},
    Broken, CapsuleFlow, Chunk, Flow,
};

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

/// An empty capsule is a sign of life and no data, and what comes with it is not lost.
#[tokio::test]
async fn who_says_nothing_is_heard_all_the_same() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    let mut waiting = Box::pin(flow.heard());
    let not_yet = poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
    assert!(not_yet.await, "nothing has come");
    send.send_data(Chunk::capsule(DATA, Bytes::new()), false)
        .unwrap();
    assert_eq!(waiting.await, Ok(()));
    send.send_data(Chunk::capsule(DATA, Bytes::from_static(b"x")), false)
        .unwrap();
    send.send_data(Chunk::capsule(FINAL_DATA, Bytes::new()), true)
        .unwrap();
    assert_eq!(read(&mut flow).await, Ok(Some(Bytes::from_static(b"x"))));
    assert_eq!(read(&mut flow).await, Ok(None));
}

#[tokio::test]
async fn whoever_ends_without_a_word_was_not_heard() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    send.send_data(Chunk::default(), true).unwrap();
    assert_eq!(flow.heard().await, Err(Broken::Truncated));
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
    // What is no data may come.
    send.send_data(Chunk::capsule(UNKNOWN, Bytes::from_static(b"y")), false)
        .unwrap();
    send.send_data(Chunk::capsule(DATA, Bytes::from_static(b"z")), false)
        .unwrap();
    let broken = poll_fn(|cx| flow.poll_broken(cx)).await;
    assert_eq!(broken, Broken::Malformed);
}

/// A type that nobody knows.
const UNKNOWN: u64 = 0x1234;

#[tokio::test]
async fn what_is_no_data_may_follow_the_end() {
    let mut drivers = JoinSet::new();
    let ((mut send, _receive), server) = capsule_pair(&mut drivers).await;
    let mut flow = CapsuleFlow::new(server.0, server.1);
    for (kind, end) in [(FINAL_DATA, false), (UNKNOWN, false), (UNKNOWN, true)] {
        let capsule = Chunk::capsule(kind, Bytes::from_static(b"x"));
        send.send_data(capsule, end).unwrap();
    }
    assert_eq!(read(&mut flow).await, Ok(Some(Bytes::from_static(b"x"))));
    assert_eq!(read(&mut flow).await, Ok(None));
    let over = poll_fn(|cx| {
        assert!(flow.poll_broken(cx).is_pending());
        if flow.over {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    over.await;
}

/// What comes at once with the end is looked at before it is one; what comes later resets.
#[tokio::test]
async fn data_after_the_end_of_an_upgraded_connection_is_refused() {
    use super::super::{SocketFlow, testing::*};
    use sluicegate_relay_protocol::capsule::Head;

    let capsule =
        |kind, payload: &[u8]| [Head::new(kind, payload.len()).as_slice(), payload].concat();
    for at_once in [true, false] {
        let (near, far) = tcp_pair().await;
        let (end, more) = (capsule(FINAL_DATA, b"x"), capsule(DATA, b"y"));
        let first = if at_once {
            [end, more.clone()].concat()
        } else {
            end
        };
        let mut flow = CapsuleFlow::upgraded(SocketFlow::new(far), first.into());
        let near = crate::flow::Shared::from(near);
        let data = poll_fn(|cx| flow.poll_read(cx)).await;
        assert_eq!(data, Ok(Some(Bytes::from_static(b"x"))));
        let end = poll_fn(|cx| flow.poll_read(cx)).await;
        if at_once {
            assert_eq!(end, Err(Broken::Malformed));
        } else {
            assert_eq!(end, Ok(None));
            write(&near, &more).await;
            let broken = poll_fn(|cx| flow.poll_broken(cx)).await;
            assert_eq!(broken, Broken::Malformed);
        }
        drop(flow);
        assert_reset(read_all(&near).await.1, "the other half");
    }
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

/// What a socket that is never empty gives at once, of TCP or of a unix stream.
async fn full_read(unix: bool) -> Bytes {
    use super::super::{FULL, SocketFlow, testing::*};

    let (program, near) = pair(unix).await;
    let mut flow = SocketFlow::new(near);
    let mut writing = JoinSet::new();
    // Cut off when enough is read.
    writing.spawn(async move {
        loop {
            write(&program, &noise(4 * FULL, 1)).await;
        }
    });
    loop {
        let chunk = poll_fn(|cx| flow.poll_read(cx)).await.unwrap().unwrap();
        assert!(chunk.len() <= FULL, "{} at once", chunk.len());
        if chunk.len() == FULL {
            return chunk;
        }
    }
}

/// No remainder that would be a frame, and a write, of its own.
#[tokio::test]
async fn a_full_read_is_one_frame() {
    use sluicegate_relay_protocol::capsule::Head;

    for unix in [false, true] {
        let mut chunk = full_read(unix).await;
        let wanted = Head::USUAL_MAX + chunk.len();
        let mut drivers = JoinSet::new();
        let (client, mut server) = capsule_pair(&mut drivers).await;
        let mut flow = CapsuleFlow::new(client.0, client.1);
        poll_fn(|cx| flow.poll_write(cx, &mut chunk)).await.unwrap();
        assert!(chunk.is_empty());
        let frame = server.1.data().await.unwrap().unwrap();
        assert_eq!(frame.len(), wanted);
    }
}

/// On an upgraded connection a capsule is a record: a full read is four, with nothing left over for a fifth.
#[tokio::test]
async fn a_full_read_is_four_records() {
    use super::super::{SocketFlow, chunk::CAPSULE, testing::*};
    use sluicegate_relay_protocol::capsule::Head;

    let mut chunk = full_read(false).await;
    let (near, far) = tcp_pair().await;
    let mut flow = CapsuleFlow::upgraded(SocketFlow::new(far), Bytes::new());
    let near = crate::flow::Shared::from(near);
    let payload = CAPSULE - Head::USUAL_MAX;
    let record = Head::new(DATA, payload).as_slice().len() + payload;
    assert!(record <= CAPSULE);
    let writing = async {
        let mut capsules = 0;
        while !chunk.is_empty() {
            poll_fn(|cx| flow.poll_write(cx, &mut chunk)).await.unwrap();
            capsules += 1;
        }
        capsules
    };
    let (capsules, written) = tokio::join!(writing, read_exactly(&near, 4 * record));
    assert_eq!(capsules, 4);
    assert!(
        written
            .chunks(record)
            .all(|one| one.first() == written.first())
    );
}

/// A connection cut in every way there is reads as one, never as an end; so does an abort of ours.
#[tokio::test]
async fn an_upgraded_connection_that_ends_early_is_cut() {
    use super::super::{SocketFlow, testing::*};
    use sluicegate_relay_protocol::capsule::Head;

    for whole in [true, false] {
        let (near, far) = tcp_pair().await;
        let mut flow = CapsuleFlow::upgraded(SocketFlow::new(far), Bytes::new());
        let near = crate::flow::Shared::from(near);
        let head = Head::new(DATA, if whole { 4 } else { 9 });
        write(&near, &[head.as_slice(), b"half"].concat()).await;
        near.shutdown().unwrap();
        let data = poll_fn(|cx| flow.poll_read(cx)).await;
        assert_eq!(data, Ok(Some(Bytes::from_static(b"half"))));
        let end = poll_fn(|cx| flow.poll_read(cx)).await;
        assert_eq!(end, Err(Broken::Truncated), "whole capsules: {whole}");
        drop(flow);
        assert_reset(read_all(&near).await.1, "the other half");
    }
}

/// Bytes read before the upgrade come first, and both FINs end the connection with FIN.
#[tokio::test]
async fn an_upgraded_connection_ends_in_order() {
    use super::super::{SocketFlow, testing::*};
    use sluicegate_relay_protocol::capsule::Head;

    let (near, far) = tcp_pair().await;
    let early = [Head::new(DATA, 5).as_slice(), b"early"].concat();
    let mut flow = CapsuleFlow::upgraded(SocketFlow::new(far), early.into());
    let near = crate::flow::Shared::from(near);
    write(&near, Head::new(FINAL_DATA, 0).as_slice()).await;
    let data = poll_fn(|cx| flow.poll_read(cx)).await;
    assert_eq!(data, Ok(Some(Bytes::from_static(b"early"))));
    assert_eq!(poll_fn(|cx| flow.poll_read(cx)).await, Ok(None));
    poll_fn(|cx| flow.poll_finish(cx)).await.unwrap();
    let (closed, (heard, end)) = tokio::join!(poll_fn(|cx| flow.poll_close(cx)), async {
        let heard = read_all(&near).await;
        near.shutdown().unwrap();
        heard
    });
    let () = closed;
    drop(flow);
    assert_eq!(heard, Head::new(FINAL_DATA, 0).as_slice());
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn what_was_read_and_what_was_written_is_not_held() {
    // The head of a capsule that is dropped: nothing of it is handed on.
    let frame = Bytes::copy_from_slice(Head::new(0x2a, 3).as_slice());
    let mut below = Watched::default();
    below.gives.push_back(frame.clone());
    let taken = below.taken.clone();
    let mut flow = CapsuleFlow::upgraded(below, Bytes::new());
    let read = poll_fn(|cx| std::task::Poll::Ready(flow.poll_read(cx).is_pending()));
    assert!(read.await);
    assert!(frame.is_unique());
    let mut payload = Bytes::from_static(b"payload");
    let written = poll_fn(|cx| flow.poll_write(cx, &mut payload)).await;
    assert_eq!(written, Ok(()));
    let taken = taken.lock().unwrap();
    assert!(!taken.is_empty() && taken.iter().all(Bytes::is_unique));
    drop(flow);
}

#[tokio::test]
async fn the_frame_of_a_fin_is_not_held() {
    let frame = Bytes::copy_from_slice(Head::new(FINAL_DATA, 0).as_slice());
    let mut below = Watched::default();
    below.gives.push_back(frame.clone());
    let mut flow = CapsuleFlow::upgraded(below, Bytes::new());
    let read = poll_fn(|cx| flow.poll_read(cx)).await;
    assert_eq!(read, Ok(None));
    assert!(frame.is_unique());
    drop(flow);
}

#[tokio::test]
async fn bytes_behind_an_upgrade_do_not_hold_what_they_were_read_into() {
    let whole = Bytes::from(vec![0; 16 * 1024]);
    let mut rest = whole.clone();
    bytes::Buf::advance(&mut rest, whole.len());
    let flow = CapsuleFlow::upgraded(Watched::default(), rest);
    assert!(whole.is_unique());
    drop(flow);
}
