//! Ends: each is carried as what it is.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use sluicegate_relay::transport::{Choice, Transport};

use crate::relay::testing::{Client, TRANSPORTS, World, within};

/// A program's socket and the service's, joined through a gateway.
async fn joined(over: Transport) -> (World, Client, TcpStream, TcpStream) {
    let (world, client, program, service, _listener) = joined_with_listener(over).await;
    (world, client, program, service)
}

async fn joined_with_listener(
    over: Transport,
) -> (World, Client, TcpStream, TcpStream, TcpListener) {
    let world = World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let token = world
        .session("closes", &format!("{{service: '{url}'}}"))
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    let mut program = TcpStream::connect(client.forward("service").await)
        .await
        .unwrap();
    let service = within("its own connection", met(&mut program, &listener)).await;
    (world, client, program, service, listener)
}

/// The service's end of this program's stream. An open whose connection dies before the answer, as it may where the machine is
/// busy for seconds, is made again: what the service has accepted then is nobody's, and another connection follows.
async fn met(program: &mut TcpStream, listener: &TcpListener) -> TcpStream {
    let mut heard = [0];
    let (mut service, _) = listener.accept().await.unwrap();
    loop {
        // Nobody reads what is said to nobody.
        let _ = service.write_all(b"!").await;
        tokio::select! {
            biased;
            read = program.read_exact(&mut heard) => {
                assert_eq!((read.unwrap(), heard), (1, *b"!"));
                return service;
            }
            accepted = listener.accept() => service = accepted.unwrap().0,
        }
    }
}

/// Every transport, from either end.
fn each() -> impl Iterator<Item = (Transport, bool)> {
    TRANSPORTS
        .into_iter()
        .flat_map(|over| [(over, true), (over, false)])
}

async fn read(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    within("read", socket.read_to_end(&mut bytes))
        .await
        .map(|_| bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_close_either_way_then_data() {
    for (over, program_first) in each() {
        let (world, _client, program, service) = joined(over).await;
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
    for (over, program_first) in each() {
        let (world, _client, program, service) = joined(over).await;
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
            "{over}, program first: {program_first}"
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

/// The bytes of one direction are there to the last, and then its end; the other direction is not touched by it.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_comes_after_every_byte() {
    let block: Vec<u8> = (0..5_000_000u32).flat_map(u32::to_le_bytes).collect();
    for (over, program_first) in each() {
        let (_world, _client, program, service) = joined(over).await;
        let (mut first, mut second) = if program_first {
            (program, service)
        } else {
            (service, program)
        };
        let sending = async {
            first.write_all(&block).await.unwrap();
            first.shutdown().await.unwrap();
        };
        let (heard, ()) = tokio::join!(read(&mut second), sending);
        assert!(heard.unwrap() == block, "{over} {program_first}");
        let answering = async {
            second.write_all(&block).await.unwrap();
            // Closed, with nothing unread.
            drop(second);
        };
        let (heard, ()) = tokio::join!(read(&mut first), answering);
        assert!(heard.unwrap() == block, "{over} {program_first}");
    }
}

/// In the middle of a flood: what arrives is a beginning of what was sent, and its end is a reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_flood_ends_in_a_reset() {
    for (over, program_first) in each() {
        let (_world, _client, program, service) = joined(over).await;
        let (mut first, mut second) = if program_first {
            (program, service)
        } else {
            (service, program)
        };
        let flood: Vec<u8> = (0..400_000u32).flat_map(u32::to_le_bytes).collect();
        first.write_all(&flood).await.unwrap();
        first.set_zero_linger().unwrap();
        drop(first);
        let mut heard = Vec::new();
        let end = within("read", second.read_to_end(&mut heard)).await;
        assert_eq!(
            end.map_err(|error| error.kind()),
            Err(ErrorKind::ConnectionReset),
            "{over} {program_first}"
        );
        assert!(flood.starts_with(&heard), "{over} {program_first}");
    }
}

/// A reset is heard by an end that only sends, and by one that has had the other's FIN.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_reaches_who_does_not_read() {
    for (over, program_first) in each() {
        let (_world, _client, program, service) = joined(over).await;
        let (mut first, mut second) = if program_first {
            (program, service)
        } else {
            (service, program)
        };
        first.shutdown().await.unwrap();
        assert_eq!(read(&mut second).await.unwrap(), b"");
        second.write_all(b"unread").await.unwrap();
        within("unread", first.readable()).await.unwrap();
        // Closed with bytes unread, after its own FIN.
        drop(first);
        let failed = within("the writer's error", async {
            loop {
                if let Err(error) = second.write_all(b"more").await {
                    return error.kind();
                }
                tokio::task::yield_now().await;
            }
        });
        let kind = failed.await;
        assert!(
            matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{over} {program_first}: {kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_resets_both_and_later_opens_wait_for_it() {
    for over in TRANSPORTS {
        let (mut world, client, mut program, mut service, listener) =
            joined_with_listener(over).await;
        program.write_all(b"hello").await.unwrap();
        within("hello", service.read_exact(&mut [0; 5]))
            .await
            .unwrap();
        world.crash_and_return().await;
        assert_eq!(
            read(&mut program).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{over}"
        );
        assert_eq!(
            read(&mut service).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{over}"
        );
        // The listener never went away; the next stream finds the new gateway.
        let stream = within("open after restart", client.session.open("service")).await;
        assert!(stream.is_ok(), "{over}: {:?}", stream.err());
        within("accept", listener.accept()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_lets_open_streams_finish_and_opens_go_elsewhere() {
    for over in TRANSPORTS {
        let (world, client, mut program, mut service) = joined(over).await;
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
        assert_eq!(cut, 0, "{over}: nothing had to be forced");
    }
}
