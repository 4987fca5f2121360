//! Many bytes, many streams, and neighbours that stand still.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use sluicegate_relay::transport::{Choice, Transport};

use crate::relay::testing::{
    Manner, TRANSPORTS, World, call, digest, tcp_service, tls_service, unix_service, within,
};

const MIB: usize = 1 << 20;

/// 64 MiB of a pattern that no shift or repeat of a buffer leaves the same.
fn block(number: usize) -> Vec<u8> {
    (0..MIB / 8)
        .flat_map(|word| {
            ((number * MIB + word) as u64)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_each_way_over_each_kind_of_service() {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let unix = unix_service(
        &mut tasks,
        &world.fixture.dir.path().join("echo.sock"),
        Manner::Echo,
    );
    let tcp = tcp_service(&mut tasks, Manner::Echo).await;
    let tls = tls_service(
        &mut tasks,
        world.service_tls("service.test"),
        "service.test",
        Manner::Echo,
    )
    .await;
    let token = world
        .session(
            "bulk",
            &format!("{{unix: '{unix}', tcp: '{tcp}', tls: '{tls}'}}"),
        )
        .await;
    let ways = TRANSPORTS.map(|over| (over, world.client_over(Choice::Only(over), &token)));
    let each = ways
        .iter()
        .flat_map(|way| ["unix", "tcp", "tls"].map(|service| (way.0, &way.1, service)));
    for (over, client, service) in each {
        let front = match over {
            Transport::Quic => "quic",
            Transport::H2 | Transport::H1 => "connect-tcp",
        };
        let address = client.forward(service).await;
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let mut sending = JoinSet::new();
        sending.spawn(async move {
            for number in 0..64 {
                write.write_all(&block(number)).await.unwrap();
            }
            write.shutdown().await.unwrap();
        });
        let mut expected = std::io::Cursor::new((0..64).flat_map(block).collect::<Vec<_>>());
        let heard = within(service, digest(&mut read)).await.unwrap();
        assert!(
            heard == digest(&mut expected).await.unwrap(),
            "{over} {service}"
        );
        let record = world
            .record(|record| record["service"] == service && record["front"] == front)
            .await;
        assert_eq!(
            (&record["bytesUp"], &record["bytesDown"]),
            (&(64 * MIB).into(), &(64 * MIB).into()),
            "{record}"
        );
        assert_eq!(&record["outcome"], "completed", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_streams_one_after_another_and_a_hundred_at_once() {
    for over in TRANSPORTS {
        a_thousand_and_a_hundred(over).await;
    }
}

async fn a_thousand_and_a_hundred(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let url = tcp_service(&mut tasks, Manner::Digest).await;
    let token = world.session("many", &format!("{{digest: '{url}'}}")).await;
    let client = world.client_over(Choice::Only(over), &token);
    let address = client.forward("digest").await;
    let expected = |question: &[u8]| {
        use sha2::Digest;
        sha2::Sha256::digest(question).to_vec()
    };
    for number in 0..1000usize {
        let question = number.to_le_bytes();
        assert_eq!(
            within("sequential", call(address, &question))
                .await
                .unwrap(),
            expected(&question),
            "{number}"
        );
    }
    let mut calls = JoinSet::new();
    for number in 0..100 {
        let question = block(number);
        calls.spawn(async move { (call(address, &question).await.unwrap(), question) });
    }
    while let Some(done) = within("concurrent", calls.join_next()).await {
        let (answer, question) = done.unwrap();
        assert_eq!(answer, expected(&question));
    }
}

/// Streams whose service reads nothing fill up and stand; the others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_streams_do_not_stall_their_neighbours() {
    for over in TRANSPORTS {
        frozen_and_healthy(over).await;
    }
}

async fn frozen_and_healthy(over: Transport) {
    let world = World::new().await;
    let mut tasks = JoinSet::new();
    let frozen = tcp_service(&mut tasks, Manner::Frozen).await;
    let echo = tcp_service(&mut tasks, Manner::Echo).await;
    let token = world
        .session("frozen", &format!("{{frozen: '{frozen}', echo: '{echo}'}}"))
        .await;
    let client = world.client_over(Choice::Only(over), &token);
    let (to_frozen, to_echo) = (client.forward("frozen").await, client.forward("echo").await);
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut tcp = TcpStream::connect(to_frozen).await.unwrap();
        // Until nothing more is taken: kernel buffers and this stream's window are full.
        while tokio::time::timeout(Duration::from_millis(200), tcp.write_all(&[7; 64 << 10]))
            .await
            .is_ok()
        {}
        stuck.push(tcp);
    }
    // And clients that read nothing of what comes back, in dribs: many small frames.
    for _ in 0..5 {
        let mut tcp = TcpStream::connect(to_echo).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        for _ in 0..200 {
            tcp.write_all(b"x").await.unwrap();
        }
        stuck.push(tcp);
    }
    let mut worst = Duration::ZERO;
    for number in 0..200usize {
        let start = Instant::now();
        assert_eq!(
            within("neighbour", call(to_echo, &number.to_le_bytes()))
                .await
                .unwrap(),
            number.to_le_bytes()
        );
        worst = worst.max(start.elapsed());
    }
    let bulk = block(1);
    assert!(within("bulk", call(to_echo, &bulk)).await.unwrap() == bulk);
    assert!(
        worst < Duration::from_secs(20),
        "a neighbour waited {worst:?}"
    );
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let token = world
        .session("first", &format!("{{greeter: '{url}'}}"))
        .await;
    let client = world.client(&token);
    let mut program = TcpStream::connect(client.forward("greeter").await)
        .await
        .unwrap();
    let (mut service, _) = within("accept", listener.accept()).await.unwrap();
    service.write_all(b"220 ready").await.unwrap();
    let mut greeting = [0; 9];
    within("greeting", program.read_exact(&mut greeting))
        .await
        .unwrap();
    assert_eq!(&greeting, b"220 ready");
}
