//! Ends: each is carried as what it is.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::relay::testing::{Client, World, within};

/// A program's socket and the service's, joined through a gateway.
async fn joined() -> (World, Client, TcpStream, TcpStream) {
    let (world, client, program, service, _listener) = joined_with_listener().await;
    (world, client, program, service)
}

async fn joined_with_listener() -> (World, Client, TcpStream, TcpStream, TcpListener) {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let token = world
        .session("closes", &format!("{{service: '{url}'}}"))
        .await;
    let client = world.client(&token);
    let program = TcpStream::connect(client.forward("service").await)
        .await
        .unwrap();
    let (service, _) = within("accept", listener.accept()).await.unwrap();
    (world, client, program, service, listener)
}

async fn read(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    within("read", socket.read_to_end(&mut bytes))
        .await
        .map(|_| bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_either_way_then_data() {
    for program_first in [true, false] {
        let (world, _client, program, service) = joined().await;
        let (mut first, mut second) = if program_first {
            (program, service)
        } else {
            (service, program)
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        assert_eq!(read(&mut second).await.unwrap(), b"question");
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        assert_eq!(read(&mut first).await.unwrap(), b"answer");
        let record = world.record(|r| r["service"] == "service").await;
        let by = if program_first {
            "downstream"
        } else {
            "upstream"
        };
        assert_eq!(
            (&record["outcome"], &record["closedBy"]),
            (&"completed".into(), &by.into()),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_either_way() {
    for program_first in [true, false] {
        let (world, _client, program, service) = joined().await;
        let (mut first, mut second) = if program_first {
            (program, service)
        } else {
            (service, program)
        };
        first.write_all(b"hello").await.unwrap();
        within("hello", second.read_exact(&mut [0; 5]))
            .await
            .unwrap();
        first.set_zero_linger().unwrap();
        drop(first);
        let error = read(&mut second).await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "program first: {program_first}"
        );
        let record = world.record(|r| r["service"] == "service").await;
        let by = if program_first {
            "downstream"
        } else {
            "upstream"
        };
        assert_eq!(
            (&record["outcome"], &record["closedBy"]),
            (&"reset".into(), &by.into()),
            "{record}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_resets_both_and_later_opens_wait_for_it() {
    let (mut world, client, mut program, mut service, listener) = joined_with_listener().await;
    program.write_all(b"hello").await.unwrap();
    within("hello", service.read_exact(&mut [0; 5]))
        .await
        .unwrap();
    world.crash_and_return().await;
    assert_eq!(
        read(&mut program).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        read(&mut service).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    // The listener never went away; the next stream finds the new gateway.
    let stream = within("open after restart", client.session.open("service")).await;
    assert!(stream.is_ok(), "{:?}", stream.err());
    within("accept", listener.accept()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_lets_open_streams_finish_and_opens_go_elsewhere() {
    let (world, client, mut program, mut service) = joined().await;
    let World { drain, .. } = &world;
    let draining = drain.run(
        std::time::Duration::ZERO,
        std::time::Duration::from_secs(30),
    );
    let talking = async {
        let mut watch = drain.watch();
        watch.reached(crate::drain::Stage::Draining).await;
        program.write_all(b"question").await.unwrap();
        program.shutdown().await.unwrap();
        assert_eq!(read(&mut service).await.unwrap(), b"question");
        service.write_all(b"answer").await.unwrap();
        drop(service);
        assert_eq!(read(&mut program).await.unwrap(), b"answer");
        drop(client);
    };
    let (cut, ()) = within("drain", async { tokio::join!(draining, talking) }).await;
    assert_eq!(cut, 0, "nothing had to be forced");
}
