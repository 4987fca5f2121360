//! Clients that go on from another address, or say so.

use sluicegate_relay_protocol::{
    ErrorCode,
    preamble::{Purpose, Response},
};
use tokio::task::JoinSet;

use super::{ask, head, refusal, service};
use crate::relay::testing::{Manner, World, tcp_service, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_its_clients_address() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world.session("moves", &format!("{{echo: '{echo}'}}")).await;
    let (socket, connection) = world.quic().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&head(service("echo"), &token))
        .await
        .unwrap();
    within("the answer", receive.read_exact(&mut [0; 2]))
        .await
        .unwrap();
    for (word, ip) in [(b"one", "127.0.0.1"), (b"two", "127.0.0.2")] {
        let before = socket.local_addr().unwrap();
        go_on_from(&socket, ip);
        assert_ne!(socket.local_addr().unwrap(), before);
        send.write_all(word).await.unwrap();
        let mut heard = [0; 3];
        within("an echo", receive.read_exact(&mut heard))
            .await
            .unwrap();
        assert_eq!(&heard, word);
    }
}

/// The client sends from this address from here on.
fn go_on_from(socket: &quinn::Endpoint, ip: &str) {
    let bound = std::net::UdpSocket::bind((ip, 0)).unwrap();
    socket.rebind(bound).unwrap();
}

/// The source of a packet is whatever its sender writes there; that of the handshake is where it was answered.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_client_came_from_and_where_it_is_have_both_to_be_allowed() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let session = async |id: &str, sources: &str| {
        let asked = format!("{{id: {id}, sources: [{sources}], services: {{echo: '{echo}'}}}}");
        world.session_of(&asked).await
    };
    let first = session("first", "'127.0.0.1/32'").await;
    let second = session("second", "'127.0.0.2/32'").await;
    let both = session("both", "'127.0.0.0/8'").await;
    let any = session("any", "").await;
    let (socket, connection) = world.quic().await.unwrap();
    let from = socket.local_addr().unwrap().to_string();
    let open = async |token: &str| {
        let asked = [head(service("echo"), token), b"x".to_vec()].concat();
        ask(&connection, &asked).await
    };
    let opened = [Response::ACCEPTED.encode().unwrap(), b"x".to_vec()].concat();
    let elsewhere = (403, "source_not_allowed".to_owned());
    assert_eq!(refusal(&open(&second).await), elsewhere);
    go_on_from(&socket, "127.0.0.2");
    assert_eq!(refusal(&open(&second).await), elsewhere, "the handshake's");
    assert_eq!(refusal(&open(&first).await), elsewhere, "the present one");
    for (id, token) in [("both", &both), ("any", &any)] {
        assert_eq!(open(token).await, opened, "{id}");
        let record = world.record(|r| r["session"]["id"] == id).await;
        assert_eq!(record["downstream"], from.as_str(), "{id}: what was proved");
    }
    for purpose in [Purpose::Control, Purpose::Refresh] {
        let asked = head(purpose, &first);
        assert_eq!(refusal(&ask(&connection, &asked).await), elsewhere);
    }
    go_on_from(&socket, "127.0.0.1");
    assert_eq!(open(&first).await, opened);
    assert_eq!(refusal(&open(&second).await), elsewhere);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_where_its_session_may_not_be_used_is_cut() {
    let (world, mut tasks) = (World::new().await, JoinSet::new());
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let asked = format!("{{id: stays, sources: ['127.0.0.1/32'], services: {{echo: '{echo}'}}}}");
    let token = world.session_of(&asked).await;
    let (socket, connection) = world.quic().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let open = [head(service("echo"), &token), b"one".to_vec()].concat();
    send.write_all(&open).await.unwrap();
    within("an echo", receive.read_exact(&mut [0; 5]))
        .await
        .unwrap();
    go_on_from(&socket, "127.0.0.2");
    match within("the cut", connection.closed()).await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code, ErrorCode::Forced.number().into());
        }
        other => panic!("{other}"),
    }
    let record = world.record(|r| r["session"]["id"] == "stays").await;
    assert_eq!(record["outcome"], "reset");
}
