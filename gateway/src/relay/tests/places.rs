//! Places of a session's connections, held by clients that do as they like.

use std::time::Duration;

use sluicegate_relay::{
    session::Credential,
    transport::{self, Endpoint, Tls, Transport, windows},
};
use sluicegate_relay_protocol::{
    Handshake,
    preamble::{Purpose, Request, Response},
};
use tokio::{
    io::{AsyncWriteExt, copy, sink},
    net::TcpStream,
    task::JoinSet,
    time::interval,
};
use tokio_util::task::TaskTracker;

use crate::{
    http2,
    relay::testing::{Manner, TRANSPORTS, World, tcp_service, within},
    session::lifecycle::Action,
};

/// A connection that stays, whatever it is told.
struct Stays {
    _socket: quinn::Endpoint,
    connection: quinn::Connection,
    /// Its control streams, left open.
    control: Vec<(quinn::SendStream, quinn::RecvStream)>,
}

impl Stays {
    async fn connect(world: &World) -> Self {
        let (socket, connection) = world.quic().await.unwrap();
        Self {
            _socket: socket,
            connection,
            control: Vec::new(),
        }
    }

    /// Show a token; the reason where it is refused.
    async fn shows(&mut self, token: &str) -> Result<(), String> {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        let head = Request::new(Purpose::Control, token).encode().unwrap();
        send.write_all(&head).await.unwrap();
        let mut read = Vec::new();
        let answer = loop {
            if let Some((answer, _)) = Response::decode(&read).unwrap() {
                break answer;
            }
            let chunk = within("the verdict", receive.read_chunk(1024, true)).await;
            read.extend_from_slice(&chunk.unwrap().expect("a verdict").bytes);
        };
        self.control.push((send, receive));
        match answer {
            Response::Accepted { .. } => Ok(()),
            Response::Refused { body, .. } => {
                let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
                Err(json["reason"].as_str().unwrap().to_owned())
            }
        }
    }
}

/// Another relay token of the session `one`.
async fn another(world: &World) -> String {
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    let issued = registry.act(key, Action::Start, None).await.unwrap();
    let env = issued.bundle.unwrap().env;
    let token = env
        .into_iter()
        .find(|(name, _)| name == "SLUICEGATE_RELAY_TOKEN");
    token.unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_revoked_token_keep_no_place() {
    let limits = http2::Limits {
        of_session: 2,
        ..http2::Limits::default()
    };
    let world = World::with_limits(limits).await;
    let leaked = world.session("one", "{}").await;
    let full = Err("too_many_connections".to_owned());
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut one = Stays::connect(&world).await;
        assert_eq!(one.shows(&leaked).await, Ok(()));
        theirs.push(one);
    }
    let fresh = another(&world).await;
    for _ in 0..2 {
        let mut one = Stays::connect(&world).await;
        assert_eq!(one.shows(&fresh).await, full);
        ours.push(one);
    }
    let revoked = world.fixture.registry.revoke_credential(leaked);
    assert!(revoked.await.unwrap());
    for one in &mut ours {
        assert_eq!(one.shows(&fresh).await, Ok(()));
    }
    for one in &mut theirs {
        assert_eq!(one.connection.close_reason(), None, "it stays");
        // Come by what is good, it is one more like any other.
        assert_eq!(one.shows(&fresh).await, full);
    }
    ours.pop();
    // The gateway hears of that when it does.
    within("a place", async {
        let mut tick = interval(Duration::from_millis(5));
        while theirs[0].shows(&fresh).await.is_err() {
            tick.tick().await;
        }
    })
    .await;
    assert_eq!(theirs[1].shows(&fresh).await, full);
}

/// Bulk is gone around, but not to where the stream's session has no place and would be waited for in vain.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_to_the_connection_that_has_a_place() {
    let limits = http2::Limits {
        of_session: 2,
        ..http2::Limits::default()
    };
    let world = World::with_limits(limits).await;
    let mut tasks = JoinSet::new();
    let service = tcp_service(&mut tasks, Manner::Echo).await;
    let services = format!("{{echo: '{service}'}}");
    let (one, two) = (
        world.session("one", &services).await,
        world.session("two", &services).await,
    );
    let client = world.client(&one);
    let name = "echo".to_owned();
    let (target, by) = (Handshake::Service { name }, Credential::new(&two, None));
    let open = || {
        client
            .session
            .open_as(&target, &by, Duration::from_secs(60))
    };
    // The second session has a place on the client's first connection; its other one is somebody else's.
    let _first = within("a stream", open()).await.unwrap();
    let mut theirs = Stays::connect(&world).await;
    assert_eq!(theirs.shows(&two).await, Ok(()));

    let bulk = TcpStream::connect(client.forward("echo").await).await;
    let (mut read, mut write) = bulk.unwrap().into_split();
    tasks.spawn(async move {
        let block = vec![7; 64 << 10];
        while write.write_all(&block).await.is_ok() {}
    });
    tasks.spawn(async move { drop(copy(&mut read, &mut sink()).await) });
    within("a further connection", async {
        let mut tick = interval(Duration::from_millis(20));
        while client.session.connections() < 2 {
            tick.tick().await;
            drop(client.session.open("echo").await.unwrap());
        }
    })
    .await;
    let _second = within("another stream", open()).await.unwrap();
    assert_eq!(theirs.connection.close_reason(), None);
}

/// A client opens no more streams on an HTTP/2 connection than the other end's SETTINGS take (RFC 9113 §6.5.2), with room left for
/// accept streams and what is asked for shortly.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_as_many_places_as_its_peer_takes() {
    const TAKEN: u32 = 50;
    let limits = http2::Limits {
        streams: TAKEN,
        ..http2::Limits::default()
    };
    let world = World::with_limits(limits).await;
    let endpoint = Endpoint::parse(&format!("https://{}", world.address)).unwrap();
    let (tls, tasks) = (Tls::new(&world.trust()).unwrap(), TaskTracker::new());
    for transport in TRANSPORTS {
        let connecting = transport::Connection::connect(transport, &endpoint, &tls, &tasks);
        let connection = within("a connection", connecting).await.unwrap();
        let free = connection.free();
        if transport == Transport::H2 {
            let beside = TAKEN as usize - free;
            assert!(free > 0 && beside > windows::OFFERS, "{free}");
        } else if transport == Transport::Quic {
            // QUIC says by itself when there is room; what bounds it is the window.
            assert_eq!(free, windows::LARGE_STREAMS);
            let connecting =
                transport::Connection::connect_further(transport, &endpoint, &tls, &tasks);
            let further = within("a further connection", connecting).await.unwrap();
            assert_eq!(further.free(), windows::STREAMS);
            assert!(further.stream_window() < connection.stream_window());
        } else {
            // HTTP/1.1 has a connection for each.
            assert_eq!(free, windows::STREAMS, "{transport}");
        }
    }
}
