//! A client that is handed a dial says that it has it, or somebody else is handed it.

use sluicegate_relay::{
    flow::FlowIo,
    transport::{Choice, Connection, Endpoint, Tls, Transport},
};
use sluicegate_relay_protocol::{
    ErrorCode, Handshake,
    preamble::{Purpose, Request, Response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

use super::{echoed, ended, reset, tcp};
use crate::relay::testing::{Manner, World, tcp_service, within};

/// The session `one`, whose listener `plugin` is waited for as long; the value of its relay token.
async fn patient(world: &World, patience: &str) -> String {
    let source = format!("{{id: one, expose: {{plugin: {{dial: tcp, patience: {patience}}}}}}}");
    world.session_of(&source).await
}

/// An accept stream of a client that is gone without a word: its connection stands, and nobody takes what it is handed. Its task ends
/// when it is reset, with what came behind the answer.
async fn vanished(
    gone: &mut JoinSet<Vec<u8>>,
    world: &World,
    (over, says): (Transport, bool),
    token: &str,
) {
    match over {
        Transport::Quic => vanished_quic(gone, world, says, token).await,
        Transport::H2 => vanished_h2(gone, world, says, token).await,
        Transport::H1 => vanished_h1(gone, world, says, token).await,
    }
}

fn listener(token: &str, says_taken: bool) -> Vec<u8> {
    let name = "plugin".to_owned();
    let request = Request {
        says_taken,
        ..Request::new(Purpose::Open(Handshake::Listener { name }), token)
    };
    request.encode().unwrap()
}

async fn vanished_quic(gone: &mut JoinSet<Vec<u8>>, world: &World, says: bool, token: &str) {
    let (socket, connection) = world.quic().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&listener(token, says)).await.unwrap();
    gone.spawn(async move {
        let _held = (socket, connection, send);
        let accepted = Response::Accepted {
            instance: None,
            say_taken: says,
        };
        let accepted = accepted.encode().unwrap();
        let (mut heard, mut bytes) = (Vec::new(), [0; 1024]);
        let end = loop {
            match receive.read(&mut bytes).await {
                Ok(Some(count)) => heard.extend_from_slice(&bytes[..count]),
                end => break end,
            }
        };
        let code = quinn::VarInt::from_u32(ErrorCode::Connect.number());
        assert_eq!(end, Err(quinn::ReadError::Reset(code)));
        // A reset takes along what has not been read.
        let length = accepted.len().min(heard.len());
        assert_eq!(heard[..length], accepted[..length]);
        heard.split_off(length)
    });
}

async fn vanished_h2(gone: &mut JoinSet<Vec<u8>>, world: &World, says: bool, token: &str) {
    let tcp = TcpStream::connect(world.plain).await.unwrap();
    let (requests, driver) = h2::client::handshake(tcp).await.unwrap();
    let mut request = http::Request::builder()
        .method(http::Method::CONNECT)
        .uri("http://gateway.test/relay/v1/listeners/plugin")
        .header("authorization", format!("Bearer {token}"))
        .header("capsule-protocol", "?1");
    if says {
        request = request.header("sluicegate-taken", "?1");
    }
    let request = request
        .extension(h2::ext::Protocol::from_static("connect-tcp"))
        .body(())
        .unwrap();
    gone.spawn(async move {
        let asked = async {
            let mut requests = requests.ready().await.unwrap();
            // An extended CONNECT may be sent only after the peer's SETTINGS; an answer to anything proves they are in.
            let health = http::Request::get("http://gateway.test/healthz");
            let (first, _) = requests
                .send_request(health.body(()).unwrap(), true)
                .unwrap();
            assert_eq!(first.await.unwrap().status(), 200);
            let mut requests = requests.ready().await.unwrap();
            let (answer, _send) = requests.send_request(request, false).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut heard = Vec::new();
            loop {
                match body.data().await.expect("a reset and no end") {
                    Ok(data) => heard.extend_from_slice(&data),
                    Err(error) => {
                        assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
                        return heard;
                    }
                }
            }
        };
        tokio::select! {
            heard = asked => heard,
            ended = driver => panic!("the connection has ended: {ended:?}"),
        }
    });
}

async fn vanished_h1(gone: &mut JoinSet<Vec<u8>>, world: &World, says: bool, token: &str) {
    let mut stream = TcpStream::connect(world.plain).await.unwrap();
    let says = if says { "sluicegate-taken: ?1\r\n" } else { "" };
    let request = format!(
        "GET /relay/v1/listeners/plugin HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\n\
         Upgrade: connect-tcp\r\nCapsule-Protocol: ?1\r\nAuthorization: Bearer {token}\r\n{says}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    gone.spawn(async move {
        let mut heard = Vec::new();
        let end = stream.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        let text = String::from_utf8_lossy(&heard).into_owned();
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        let head = text.find("\r\n\r\n").unwrap() + 4;
        heard.split_off(head)
    });
}

pub(super) async fn a_client_that_came_back_is_dialled_and_not_the_one_that_is_gone(
    over: Transport,
) {
    let (world, mut tasks, mut gone) = (World::new().await, JoinSet::new(), JoinSet::new());
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = patient(&world, "60s").await;
    for _ in 0..4 {
        vanished(&mut gone, &world, (over, false), &token).await;
    }
    world.offered(4.0).await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", &url);
    world.offered(6.0).await;
    echoed(&world, b"to whoever came last").await;
}

pub(super) async fn a_dial_that_is_not_taken_is_handed_to_another_client(over: Transport) {
    let (world, mut tasks, mut gone) = (World::new().await, JoinSet::new(), JoinSet::new());
    let url = tcp_service(&mut tasks, Manner::Echo).await;
    let token = patient(&world, "60s").await;
    let client = world.client_over(Choice::Only(over), &token);
    client.expose("plugin", &url);
    world.offered(2.0).await;
    for _ in 0..2 {
        vanished(&mut gone, &world, (over, true), &token).await;
    }
    world.offered(4.0).await;
    // Both are newer, and are handed the dial first.
    echoed(&world, b"once, and whole").await;
    while let Some(heard) = within("their end", gone.join_next()).await {
        assert_eq!(heard.unwrap(), b"", "no byte of the dial's");
    }
    let record = world.record(|r| r["front"] == "listener" && r["outcome"] == "completed");
    assert_eq!(record.await["bytesUp"], 15);
}

pub(super) async fn a_dial_that_nobody_takes_fails_and_says_so(over: Transport) {
    let (world, mut gone) = (World::new().await, JoinSet::new());
    let token = patient(&world, "50ms").await;
    vanished(&mut gone, &world, (over, true), &token).await;
    world.offered(1.0).await;
    reset(tcp(&world, "plugin").await).await;
    let record = ended(&world, "listener_not_connected").await;
    let detail = record["detail"].as_str().unwrap();
    assert!(detail.contains("none was there"), "{detail}");
    let heard = within("its end", gone.join_next()).await.unwrap();
    assert_eq!(heard.unwrap(), b"");
}

/// Its reset may overtake what it said before, and is as good: the dial is not handed on.
#[tokio::test]
async fn a_client_that_refuses_a_dial_has_had_it() {
    let world = World::new().await;
    let token = patient(&world, "60s").await;
    let (_socket, connection) = world.quic().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&listener(&token, true)).await.unwrap();
    world.offered(1.0).await;
    let host = tcp(&world, "plugin").await;
    within("the dial", receive.read_exact(&mut [0; 4]))
        .await
        .unwrap();
    let code = quinn::VarInt::from_u32(ErrorCode::Refused.number());
    send.reset(code).unwrap();
    receive.stop(code).unwrap();
    reset(host).await;
    assert_eq!(ended(&world, "listener_refused").await["outcome"], "failed");
}

/// A client of before says nothing of it: it is not asked to, and its first bytes are the sandbox's.
#[tokio::test]
async fn a_client_that_does_not_say_when_it_has_a_dial_is_not_waited_for() {
    let world = World::new().await;
    let token = patient(&world, "60s").await;
    let (_socket, connection) = world.quic().await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&listener(&token, false)).await.unwrap();
    world.offered(1.0).await;
    let mut host = tcp(&world, "plugin").await;
    host.write_all(b"question").await.unwrap();
    let expected = [Response::ACCEPTED.encode().unwrap(), b"question".to_vec()].concat();
    let mut heard = vec![0; expected.len()];
    within("the dial", receive.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(heard, expected);
    send.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    within("the answer", host.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!(&answer, b"answer");
}

/// A gateway of before does not ask for it, and would take it for the sandbox's bytes.
#[tokio::test]
async fn a_client_says_that_it_has_a_dial_where_that_is_asked_for() {
    let world = World::new().await;
    let (tls, tasks) = (Tls::new(&world.trust()).unwrap(), TaskTracker::new());
    for say_taken in [true, false] {
        let gateway = world.unserved_quic();
        let url = format!("https://{}", gateway.local_addr().unwrap());
        let endpoint = Endpoint::parse(&url).unwrap();
        let serving = async {
            let connection = gateway.accept().await.unwrap().await.unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            let mut asked = vec![0; listener("token", true).len()];
            receive.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, listener("token", true));
            let accepted = Response::Accepted {
                instance: None,
                say_taken,
            };
            send.write_all(&accepted.encode().unwrap()).await.unwrap();
            let expected: &[u8] = if say_taken {
                b"\x02\0banner"
            } else {
                b"banner"
            };
            let mut heard = vec![0; expected.len()];
            receive.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, expected);
        };
        let dialled = async {
            let connecting = Connection::connect(Transport::Quic, &endpoint, &tls, &tasks);
            let connection = connecting.await.unwrap();
            let name = "plugin".to_owned();
            let target = Handshake::Listener { name };
            let flow = connection.accept(&target, "token").await.unwrap();
            let mut stream = FlowIo::new(flow);
            stream.write_all(b"banner").await.unwrap();
            stream.flush().await.unwrap();
            (connection, stream)
        };
        let both = async { tokio::join!(serving, dialled) };
        within("the banner", both).await;
    }
}

/// What comes behind the word is the sandbox's, in one piece with it or not.
#[tokio::test]
async fn the_word_of_a_client_that_has_a_dial_is_no_data() {
    use sluicegate_relay_protocol::message::Message;
    let world = World::new().await;
    let token = patient(&world, "60s").await;
    let (_socket, connection) = world.quic().await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&listener(&token, true)).await.unwrap();
    world.offered(1.0).await;
    let mut host = tcp(&world, "plugin").await;
    // Something newer stands before it.
    let said = [Message::Unknown(99), Message::Taken].map(Message::encode);
    let said = [said.concat(), b"banner".to_vec()].concat();
    send.write_all(&said).await.unwrap();
    let mut heard = [0; 6];
    within("the banner", host.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"banner");
}
