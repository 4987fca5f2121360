//! Clients that make no room for what they are answered.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::{head, service};
use crate::{
    http2,
    relay::testing::{World, within},
    session::lifecycle::Action,
};

/// Of a client that takes no byte on its streams.
fn no_room() -> quinn::TransportConfig {
    let mut none = quinn::TransportConfig::default();
    none.stream_receive_window(quinn::VarInt::from_u32(0));
    none
}

/// One whose clients may take so long to make room for a head.
async fn waiting(head_timeout: Duration) -> World {
    World::with_limits(http2::Limits {
        head_timeout,
        ..http2::Limits::default()
    })
    .await
}

/// The service's end is reset.
async fn is_reset(visitor: &mut TcpStream) {
    let end = within("its end", visitor.read(&mut [0])).await;
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Nobody would watch what was opened for it: it is not held for a client that takes no answer.
#[tokio::test]
async fn a_client_that_makes_no_room_for_an_answer_holds_no_service() {
    let world = waiting(Duration::from_secs(1)).await;
    let visited = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", visited.local_addr().unwrap());
    let token = world.session("one", &format!("{{echo: '{url}'}}")).await;
    let (_socket, connection) = world.quic_at(world.address, no_room()).await.unwrap();
    let opening = async {
        loop {
            let (mut send, receive) = connection.open_bi().await.unwrap();
            let asked = head(service("echo"), &token);
            let _ = send.write_all(&asked).await;
            tokio::select! {
                visitor = visited.accept() => return (visitor.unwrap().0, send, receive),
                // Where this was slow, its head came too late.
                _ = send.stopped() => {}
            }
        }
    };
    let (mut visitor, _send, _receive) = within("a visitor", opening).await;
    is_reset(&mut visitor).await;
    let record = world.record(|r| r["service"] == "echo" && r["outcome"] == "reset");
    assert_eq!(record.await["closedBy"], "downstream");
    assert_eq!(connection.close_reason(), None, "its connection stands");
}

/// No byte has passed, and none may: the service learns it at once.
#[tokio::test]
async fn a_right_that_ends_while_an_answer_waits_for_room_ends_what_was_opened() {
    let world = waiting(Duration::from_secs(3600)).await;
    let visited = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", visited.local_addr().unwrap());
    let token = world.session("one", &format!("{{echo: '{url}'}}")).await;
    let (_socket, connection) = world.quic_at(world.address, no_room()).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&head(service("echo"), &token))
        .await
        .unwrap();
    let (mut visitor, _) = within("a visitor", visited.accept()).await.unwrap();
    // The dial is over: what is left of the open is its answer.
    let answering = async {
        while world.metric("sluicegate_opens_pending ") > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    within("an answer", answering).await;
    let fixture = &world.fixture;
    let reset = fixture
        .registry
        .act(fixture.key("one"), Action::Reset, None);
    reset.await.unwrap();
    is_reset(&mut visitor).await;
    let record = world.record(|r| r["service"] == "echo").await;
    assert_eq!(
        (&record["outcome"], &record["reason"]),
        (&"cut".into(), &"session_revoked".into()),
        "{record}"
    );
}
