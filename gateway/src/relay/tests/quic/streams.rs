//! How many streams a client may open.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use sluicegate_relay::transport::windows;
use sluicegate_relay_protocol::preamble::Purpose;

use super::head;
use crate::{
    http2,
    relay::testing::{World, within},
};

type Stream = (quinn::SendStream, quinn::RecvStream);

/// A stream, where there is room for one as far as the client knows.
async fn open_now(connection: &quinn::Connection) -> Option<Stream> {
    let mut opening = pin!(connection.open_bi());
    let opened = poll_fn(|cx| Poll::Ready(opening.as_mut().poll(cx))).await;
    match opened {
        Poll::Ready(opened) => Some(opened.unwrap()),
        Poll::Pending => None,
    }
}

/// The beginning of a head whose rest is still to come.
async fn begin(stream: &mut Stream) {
    stream.0.write_all(&[1]).await.unwrap();
}

/// quinn keeps entries for each stream that might be opened: most are made once they may be needed, and then for the limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_open_more_streams_once_it_has_opened_many_up_to_the_limit() {
    let limits = http2::Limits {
        // Streams stay open without a head.
        head_timeout: Duration::from_secs(3600),
        ..http2::Limits::default()
    };
    let world = World::with_limits(limits).await;
    let (_socket, connection) = world.quic().await.unwrap();
    let mut open = Vec::new();
    // Of these the gateway sees nothing yet.
    while let Some(stream) = open_now(&connection).await {
        open.push(stream);
    }
    assert_eq!(open.len(), windows::AT_FIRST as usize);
    for stream in &mut open {
        begin(stream).await;
    }
    let all = limits.streams as usize;
    let rest = async {
        while open.len() < all {
            let mut stream = connection.open_bi().await.unwrap();
            begin(&mut stream).await;
            open.push(stream);
        }
    };
    within("the rest", rest).await;
    assert!(
        open_now(&connection).await.is_none(),
        "one beyond the limit"
    );
    // What ends makes room, which is told in parts of an eighth.
    open.truncate(all / 2);
    within("room", connection.open_bi()).await.unwrap();
    assert_eq!(connection.close_reason(), None);
}

/// Half of what a connection begins with is as many as a relay client has.
#[tokio::test(flavor = "multi_thread")]
async fn few_streams_leave_it_at_what_a_connection_begins_with() {
    let limits = http2::Limits {
        head_timeout: Duration::from_secs(3600),
        ..http2::Limits::default()
    };
    let world = World::with_limits(limits).await;
    let (_socket, connection) = world.quic().await.unwrap();
    let mut open = Vec::new();
    for _ in 0..windows::AT_FIRST / 2 {
        let mut stream = connection.open_bi().await.unwrap();
        begin(&mut stream).await;
        open.push(stream);
    }
    // They were all seen: the last of them is answered.
    let (mut send, mut receive) = open.pop().unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    let _ = send.finish();
    within("an answer", receive.read_to_end(1 << 20))
        .await
        .unwrap();
    drop((send, receive));
    while let Some(stream) = open_now(&connection).await {
        open.push(stream);
    }
    let taken = open.len();
    assert_eq!(taken, windows::AT_FIRST as usize - 1);
}

/// A connection with nothing else is idle, and yet each of them is a stream.
#[tokio::test(flavor = "multi_thread")]
async fn control_streams_are_streams_for_which_there_is_more_room() {
    let world = World::new().await;
    let token = world.session("control", "{}").await;
    let (_socket, connection) = world.quic().await.unwrap();
    let at_first = windows::AT_FIRST as usize;
    let mut open = Vec::new();
    for _ in 0..=at_first / 2 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let asked = head(Purpose::Control, &token);
        send.write_all(&asked).await.unwrap();
        within("the verdict", receive.read_exact(&mut [0; 1]))
            .await
            .unwrap();
        open.push((send, receive));
    }
    let rest = async {
        while open.len() <= at_first {
            open.push(connection.open_bi().await.unwrap());
        }
    };
    within("room for more", rest).await;
    assert_eq!(connection.close_reason(), None);
}
