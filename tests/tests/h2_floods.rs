//! HTTP/2 clients that attack: memory stays bounded, and the neighbours' tunnels go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::Duration;

use e2e::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, connect, frame,
};
use e2e::{RawOrigin, Session, Wire, World};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an attack may cost the process, in KiB. A flood that is buffered costs hundreds of megabytes.
const BOUND: u64 = 96 * 1024;
/// How much an attacker tries to send.
const FLOOD: usize = 64 << 20;

struct Stage {
    world: World,
    origin: RawOrigin,
    session: Session,
    target: String,
    before: u64,
    /// A neighbour's tunnel, opened before the attack.
    near: Wire,
    far: TcpStream,
}

impl Stage {
    async fn start() -> Self {
        let (world, origin, session, target) = World::with_raw().await;
        let near = session.tunnel(&target).await;
        let far = origin.accept().await;
        let mut stage = Self {
            before: 0,
            world,
            origin,
            session,
            target,
            near,
            far,
        };
        stage.neighbour().await;
        stage.before = stage.world.gateway.resident();
        stage
    }

    /// The neighbour's tunnel carries bytes both ways, and a new one opens.
    async fn neighbour(&mut self) {
        self.near.send("*1\r\n").await;
        let mut heard = [0; 4];
        e2e::within("the neighbour's bytes", self.far.read_exact(&mut heard))
            .await
            .unwrap();
        self.far.write_all(b"+OK\r\n").await.unwrap();
        assert_eq!(self.near.take(5).await, b"+OK\r\n");
        let mut another = self.session.tunnel(&self.target).await;
        // Dials that an attack began may be before it in the queue.
        let mut greeted = Vec::new();
        let mut hello = std::pin::pin!(another.take(5));
        loop {
            tokio::select! {
                biased;
                heard = &mut hello => {
                    assert_eq!(heard, b"hello");
                    break;
                }
                mut far = self.origin.accept() => {
                    let _ = far.write_all(b"hello").await;
                    greeted.push(far);
                }
            }
        }
    }

    async fn attacker(&self) -> Wire {
        let mut wire = Wire::dial(self.world.gateway.ports.plain).await;
        wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
            .await;
        wire
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.session.handle())
    }

    /// After the attack: what it cost, and that nobody else noticed.
    async fn bounded(&mut self, what: &str) {
        self.neighbour().await;
        let grown = self.world.gateway.resident().saturating_sub(self.before);
        assert!(grown < BOUND, "{what} cost {grown} KiB");
        assert_eq!(self.world.gateway.management("/readyz").await.status(), 200);
    }
}

/// The next frame: its type and its payload.
async fn next(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    let read = e2e::within("GOAWAY", stream.read_exact(&mut head)).await;
    read.expect("GOAWAY comes before the end");
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    e2e::within("a payload", stream.read_exact(&mut payload))
        .await
        .unwrap();
    (head[3], payload)
}

/// The code of the GOAWAY that ends a connection.
async fn goaway(stream: &mut (impl AsyncRead + Unpin)) -> u32 {
    loop {
        let (kind, payload) = next(stream).await;
        if kind == GOAWAY {
            return u32::from_be_bytes(payload[4..8].try_into().unwrap());
        }
    }
}

/// Sends `bytes` again and again without reading, until the gateway takes no more, hangs up, or `FLOOD` is through.
async fn flood(wire: &mut Wire, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < FLOOD {
        let write = wire.stream.write_all(bytes);
        match tokio::time::timeout(Duration::from_secs(1), write).await {
            Ok(Ok(())) => sent += bytes.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn rapid_reset() {
    let mut stage = Stage::start().await;
    let metric = "sluicegate_h2_floods_total";
    let before = stage.world.gateway.metric(metric).await;
    let mut wire = stage.attacker().await;
    let authorization = stage.authorization();
    for burst in 0..40_u32 {
        let streams = (0..250).map(|n| 2 * (burst * 250 + n) + 1);
        let bytes: Vec<u8> = streams
            .flat_map(|stream| {
                let open = connect(stream, &stage.target, &authorization);
                [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            })
            .collect();
        if wire.stream.write_all(&bytes).await.is_err() {
            break;
        }
    }
    // ENHANCE_YOUR_CALM.
    assert_eq!(goaway(&mut wire.stream).await, 0xb);
    stage.world.gateway.metric_is(metric, before + 1.0).await;
    stage.bounded("a rapid reset").await;
    // What was reset is not open: only the neighbour's tunnel is.
    let gateway = &stage.world.gateway;
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    e2e::within("the end of what was reset", async {
        while gateway.metric("sluicegate_open{kind=\"tunnel\"}").await != 1.0 {
            tick.tick().await;
        }
    })
    .await;
}

/// What a client gave up while the network stood still comes with its requests, all at once. What else it has open goes on.
#[tokio::test]
async fn requests_given_up_in_one_flight_end_no_tunnel() {
    let stage = Stage::start().await;
    let mut wire = stage.attacker().await;
    wire.send(connect(1, &stage.target, &stage.authorization()))
        .await;
    let mut far = stage.origin.accept().await;
    let (mut read, mut write) = wire.stream.split();
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gateway.test"),
        (":path", "/nothing"),
    ];
    let head = block(&fields);
    let flight: Vec<u8> = (0..200)
        .flat_map(|number| {
            let stream = 2 * number + 3;
            let given_up = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            [
                frame(HEADERS, END_STREAM | END_HEADERS, stream, &head),
                given_up,
            ]
            .concat()
        })
        .collect();
    write.write_all(&flight).await.unwrap();
    // When the tunnel has carried this, all that came before it has been read.
    write
        .write_all(&frame(DATA, 0, 1, b"*1\r\n"))
        .await
        .unwrap();
    let mut heard = [0; 4];
    e2e::within("the tunnel's bytes", far.read_exact(&mut heard))
        .await
        .unwrap();
    assert_eq!(&heard, b"*1\r\n");
    far.write_all(b"+OK\r\n").await.unwrap();
    // What was given up has no answer, or another.
    let mut answered = Vec::new();
    while !answered.ends_with(b"+OK\r\n") {
        let (kind, body) = next(&mut read).await;
        assert_ne!(kind, GOAWAY, "{}", String::from_utf8_lossy(&body));
        if kind == DATA {
            answered.extend(body);
        }
    }
    let floods = stage.world.gateway.metric("sluicegate_h2_floods_total");
    assert_eq!(floods.await, 0.0);
}

#[tokio::test]
async fn continuation_flood() {
    let mut stage = Stage::start().await;
    let mut wire = stage.attacker().await;
    let first = block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]);
    wire.send(frame(HEADERS, END_STREAM, 1, &first)).await;
    let more = block(&[("x-a", &"a".repeat(4000))]).repeat(4);
    flood(&mut wire, &frame(CONTINUATION, 0, 1, &more)).await;
    // No end of headers ever came: the connection is over, not waited for.
    wire.cut().await;
    stage.bounded("a CONTINUATION flood").await;
}

#[tokio::test]
async fn settings_flood() {
    let mut stage = Stage::start().await;
    let mut wire = stage.attacker().await;
    // Each asks for an ACK that nobody reads.
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(1000);
    flood(&mut wire, &settings).await;
    stage.bounded("a SETTINGS flood").await;
}

#[tokio::test]
async fn ping_flood() {
    let mut stage = Stage::start().await;
    let mut wire = stage.attacker().await;
    flood(&mut wire, &frame(PING, 0, 0, b"attacker").repeat(1000)).await;
    stage.bounded("a PING flood").await;
}

/// A client that takes every answer, and so would be answered for ever.
#[tokio::test]
async fn frames_that_carry_nothing_come_to_an_end() {
    let mut stage = Stage::start().await;
    let authorization = stage.authorization();
    let floods: [(&str, Vec<u8>); 7] = [
        ("PING", frame(PING, 0, 0, b"attacker")),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ("PRIORITY", frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 7])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())),
        ("DATA", frame(DATA, 0, 1, &[])),
        ("unknown", frame(0xfa, 0, 0, b"x")),
    ];
    for (what, bytes) in floods {
        let metric = "sluicegate_h2_floods_total";
        let before = stage.world.gateway.metric(metric).await;
        let mut wire = stage.attacker().await;
        wire.send(connect(1, &stage.target, &authorization)).await;
        let _far = stage.origin.accept().await;
        let many = bytes.repeat(500);
        let (mut read, mut write) = wire.stream.split();
        let (sent, code) = tokio::join!(
            async {
                let mut sent = 0;
                while sent < FLOOD && write.write_all(&many).await.is_ok() {
                    sent += many.len();
                }
                sent
            },
            goaway(&mut read)
        );
        assert_eq!(code, 0xb, "{what}");
        assert!(sent < FLOOD, "{what}: {sent} bytes were taken");
        // Empty DATA has a bound of the library's own, which is lower, and counts as well.
        stage.world.gateway.metric_is(metric, before + 1.0).await;
        stage.bounded(what).await;
    }
}

/// A keep-alive as often as anybody's, and windows for all that is sent, are no flood.
#[tokio::test]
async fn a_busy_client_is_left_in_peace() {
    let stage = Stage::start().await;
    let mut wire = stage.attacker().await;
    wire.send(connect(1, &stage.target, &stage.authorization()))
        .await;
    let mut far = stage.origin.accept().await;
    let (mut read, mut write) = wire.stream.split();
    let payload = 6 << 20;
    let upstream = async {
        // Small frames: what is written at once goes out at once.
        far.set_nodelay(true).unwrap();
        for _ in 0..payload / 1024 {
            far.write_all(&[b'x'; 1024]).await.unwrap();
        }
    };
    let client = async {
        let mut taken = 0;
        while taken < payload {
            let (kind, body) = next(&mut read).await;
            assert_ne!(kind, GOAWAY, "after {taken} bytes");
            if kind == DATA {
                taken += body.len();
                let length = u32::try_from(body.len()).unwrap().to_be_bytes();
                let mut about = frame(PING, 0, 0, b"neighbor");
                if !body.is_empty() {
                    about.extend(frame(WINDOW_UPDATE, 0, 0, &length));
                    about.extend(frame(WINDOW_UPDATE, 0, 1, &length));
                }
                write.write_all(&about).await.unwrap();
            }
        }
    };
    e2e::within("the payload", async { tokio::join!(upstream, client) }).await;
    assert_eq!(
        stage
            .world
            .gateway
            .metric("sluicegate_h2_floods_total")
            .await,
        0.0
    );
}

#[tokio::test]
async fn zero_windows() {
    let mut stage = Stage::start().await;
    let mut wire = Wire::dial(stage.world.gateway.ports.plain).await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0: nothing may be sent back, ever.
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat())
        .await;
    let authorization = stage.authorization();
    let mut origins = Vec::new();
    for stream in 0..20 {
        wire.send(connect(2 * stream + 1, &stage.target, &authorization))
            .await;
        origins.push(stage.origin.accept().await);
    }
    // Every origin sends all it can; what the client does not take is not read from them.
    let part = vec![b'x'; 64 << 10];
    let mut taken = 0;
    for origin in &mut origins {
        while let Ok(Ok(())) =
            tokio::time::timeout(Duration::from_millis(20), origin.write_all(&part)).await
        {
            taken += part.len();
            assert!(taken < 2 << 30, "no backpressure");
        }
    }
    stage.bounded("zero windows").await;
    drop(wire);
    for mut origin in origins {
        e2e::within("the end of an origin's connection", async {
            let mut rest = [0; 1];
            let _ = origin.read(&mut rest).await;
        })
        .await;
    }
}
