#![allow(clippy::unwrap_used)]

use std::io;

use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, task::JoinSet};

use super::{Carrying, Listener, ListenerKind, accept_loop};
use crate::{
    drain::Drain,
    listen::{Accepted, Arrival, Places},
    relay::testing::within,
    telemetry::{AccessLog, Telemetry},
};

/// Options of the listener are its connections' from the start.
#[tokio::test]
async fn what_is_accepted_is_asked_whether_it_lives() {
    let listener = Listener::bind(ListenerKind::Plain, "127.0.0.1:0".parse().unwrap(), None);
    let listener = listener.unwrap();
    let connecting = TcpStream::connect(listener.address);
    let (_client, accepted) = tokio::join!(connecting, listener.socket.accept());
    let accepted = accepted.unwrap().0;
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().unwrap() && accepted.nodelay().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 15);
    assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 5);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    // It would end clients that live and take nothing.
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}

/// Its place comes before its count: who has none was here as little as if nobody had come.
#[tokio::test]
async fn what_finds_no_place_is_reset_and_no_connection() {
    // The one kind that is refused for nothing else: other tests have descriptors of this process, too.
    let (kind, any) = (ListenerKind::Management, "127.0.0.1:0".parse().unwrap());
    let listener = Listener::bind(kind, any, None).unwrap();
    let address = listener.address;
    let telemetry = Telemetry::new(AccessLog::open(&Default::default()).unwrap()).unwrap();
    let (drain, places) = (Drain::default(), Places::new(1, None));
    let (serves, mut served) = mpsc::unbounded_channel();
    let serve = move |accepted: Accepted| {
        let serves = serves.clone();
        async move {
            serves.send(accepted).unwrap();
            let stays: Carrying = Box::pin(std::future::pending());
            Some(stays)
        }
    };
    let mut accepting = JoinSet::new();
    accepting.spawn(accept_loop(
        listener,
        Arrival::default(),
        places.clone(),
        telemetry.clone(),
        drain.watch(),
        serve,
    ));
    let counts = || {
        let text = telemetry.render();
        let of = |sample: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(sample));
            value.map(|value| value.trim().to_owned())
        };
        [
            of("sluicegate_accepted_total{listener=\"management\",transport=\"tcp\"}"),
            of("sluicegate_connections{listener=\"management\",transport=\"tcp\"}"),
            of("sluicegate_connections_over_limit_total{listener=\"management\",limit=\"all\"}"),
        ]
    };
    let counted = |wanted: [Option<&str>; 3]| {
        assert_eq!(counts(), wanted.map(|count| count.map(str::to_owned)));
    };

    let taken = places.take([192, 0, 2, 1].into()).unwrap();
    // The reset may be there before the client knows that it was connected.
    let refused = async {
        let mut client = TcpStream::connect(address).await?;
        client.read(&mut [0]).await
    };
    let refused = within("a reset", refused).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset);
    assert!(served.is_empty());
    counted([None, None, Some("1")]);

    drop(taken);
    let _client = TcpStream::connect(address).await.unwrap();
    let _accepted = within("a connection", served.recv()).await.unwrap();
    counted([Some("1"), Some("1"), Some("1")]);
}
