//! HTTP/3 clients that attack or break the protocol: their connection ends with the code that says so, memory stays
//! bounded, and the neighbours' tunnels go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::{Http3, RawOrigin, Session, Wire, World};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an attack may cost the process, in KiB.
const BOUND: u64 = 96 * 1024;
/// H3_EXCESSIVE_LOAD.
const EXCESSIVE_LOAD: u64 = 0x107;

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
        let before = world.gateway.resident();
        Self {
            world,
            origin,
            session,
            target,
            before,
            near,
            far,
        }
    }

    async fn attacker(&self) -> Http3 {
        Http3::connect(&self.world, &self.session).await
    }

    fn connect<'a>(&'a self, bearer: &'a str) -> [(&'a str, &'a str); 3] {
        [
            (":method", "CONNECT"),
            (":authority", &self.target),
            ("proxy-authorization", bearer),
        ]
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.session.handle())
    }

    /// After the attack: what it cost, and that the neighbour did not notice.
    async fn bounded(&mut self, what: &str) {
        self.near.send("*1\r\n").await;
        let mut heard = [0; 4];
        e2e::within("the neighbour's bytes", self.far.read_exact(&mut heard))
            .await
            .unwrap();
        self.far.write_all(b"+OK\r\n").await.unwrap();
        assert_eq!(self.near.take(5).await, b"+OK\r\n");
        let grown = self.world.gateway.resident().saturating_sub(self.before);
        assert!(grown < BOUND, "{what} cost {grown} KiB");
        assert_eq!(self.world.gateway.management("/readyz").await.status(), 200);
    }
}

#[tokio::test]
async fn rapid_reset() {
    let mut stage = Stage::start().await;
    let mut attacker = stage.attacker().await;
    let bearer = stage.bearer();
    let fields = json!(stage.connect(&bearer));
    let burst = json!({"op": "burst", "count": 500, "fields": fields});
    attacker.tell(burst.clone()).await;
    attacker.tell(burst).await;
    assert_eq!(attacker.closed().await, EXCESSIVE_LOAD);
    stage.bounded("a rapid reset").await;
    // What was reset is not open: only the neighbour's tunnel is.
    let gateway = &stage.world.gateway;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
    e2e::within("the end of what was reset", async {
        while gateway.metric("sluicegate_open{kind=\"tunnel\"}").await != 1.0 {
            tick.tick().await;
        }
    })
    .await;
}

/// An answer makes no difference where nothing else comes of it.
#[tokio::test]
async fn tunnels_that_are_answered_and_reset() {
    let mut stage = Stage::start().await;
    let mut attacker = stage.attacker().await;
    let bearer = stage.bearer();
    // Of these some are forgiven, one a second: the third round is too many on any machine.
    for _ in 0..3 {
        let (mut open, mut far) = (Vec::new(), Vec::new());
        for _ in 0..120 {
            open.push(attacker.request(&stage.connect(&bearer), false).await);
            far.push(stage.origin.accept().await);
        }
        for stream in &open {
            assert_eq!(attacker.head(*stream).await.status, 200);
        }
        for stream in open {
            attacker
                .tell(json!({"op": "leave", "stream": stream}))
                .await;
        }
    }
    assert_eq!(attacker.closed().await, EXCESSIVE_LOAD);
    stage.bounded("tunnels that are reset").await;
}

/// Bytes do: what carried something is nobody's waste, however it ends.
#[tokio::test]
async fn tunnels_that_carried_something_may_be_reset() {
    let mut stage = Stage::start().await;
    let mut client = stage.attacker().await;
    let bearer = stage.bearer();
    for round in 0..300 {
        let stream = client.request(&stage.connect(&bearer), false).await;
        assert_eq!(client.head(stream).await.status, 200, "{round}");
        let mut far = stage.origin.accept().await;
        client.data(stream, b"*1\r\n", false).await;
        let mut heard = [0; 4];
        e2e::within("the client's bytes", far.read_exact(&mut heard))
            .await
            .unwrap();
        client.tell(json!({"op": "leave", "stream": stream})).await;
    }
    stage.bounded("tunnels that were of use").await;
    let stream = client.request(&stage.connect(&bearer), false).await;
    assert_eq!(client.head(stream).await.status, 200);
}

#[tokio::test]
async fn many_unidirectional_streams() {
    let mut stage = Stage::start().await;
    let mut attacker = stage.attacker().await;
    for _ in 0..80 {
        // A type nobody knows (RFC 9114 §6.2.3); each is stopped, and by and by they are too many.
        attacker
            .tell(json!({"op": "raw", "uni": true, "bytes": "21", "end": true}))
            .await;
    }
    assert_eq!(attacker.closed().await, EXCESSIVE_LOAD);
    stage.bounded("many streams").await;
}

#[tokio::test]
async fn large_heads() {
    let mut stage = Stage::start().await;
    let mut attacker = stage.attacker().await;
    // Announced too long, and decoded too long (what Huffman makes short): both are 431, and the connection goes on.
    let announced = attacker.raw(false, b"\x01\x80\x10\x00\x00abc", false).await;
    assert_eq!(attacker.head(announced).await.status, 431);
    let long = "a".repeat(4000);
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "gateway.test"),
        (":path", "/healthz"),
    ];
    let fine = fields.clone();
    fields.extend([("x-long", long.as_str()); 17]);
    let (head, _) = attacker.fetch(&fields).await;
    assert_eq!(head.status, 431);
    assert_eq!(attacker.fetch(&fine).await.0.status, 200);
    stage.bounded("large heads").await;
}

/// Tunnels whose upstream takes nothing hold no more than their windows.
#[tokio::test]
async fn data_that_nobody_takes() {
    let mut stage = Stage::start().await;
    let mut attacker = stage.attacker().await;
    let bearer = stage.bearer();
    let mut frozen = Vec::new();
    for _ in 0..32 {
        let fields = stage.connect(&bearer);
        let stream = attacker.request(&fields, false).await;
        assert_eq!(attacker.head(stream).await.status, 200);
        frozen.push(stage.origin.accept().await);
        // 256 MiB in all; what is held of it is a MiB each at most.
        attacker
            .tell(json!({"op": "fill", "stream": stream, "count": 8 << 20}))
            .await;
    }
    // Until nothing more comes in.
    let (mut last, mut same) = (0, 0);
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
    e2e::within("a standstill", async {
        while same < 8 {
            tick.tick().await;
            let now = stage.world.gateway.resident();
            same = if now.abs_diff(last) < 512 {
                same + 1
            } else {
                0
            };
            last = now;
        }
    })
    .await;
    stage.bounded("data that nobody takes").await;
    drop((attacker, frozen));
}

/// What breaks the protocol ends the connection, with the code RFC 9114 or RFC 9204 has for it.
#[tokio::test]
async fn broken_protocol() {
    let mut stage = Stage::start().await;
    let table: [(bool, &[u8], bool, u64); 12] = [
        // DATA before HEADERS, SETTINGS on a request stream, a frame of HTTP/2's.
        (false, b"\x00\x01x", false, 0x105),
        (false, b"\x04\x00", false, 0x105),
        (false, b"\x06\x00", false, 0x105),
        // A frame that ends in the middle.
        (false, b"\x01\x05ab", true, 0x106),
        // A section that points into a dynamic table, and one that is none.
        (false, b"\x01\x03\x02\x00\x80", false, 0x200),
        (false, b"\x01\x01\xff", false, 0x200),
        // A second control stream, encoder stream and decoder stream; a push stream.
        (true, b"\x00\x04\x00", false, 0x103),
        (true, b"\x02", false, 0x103),
        (true, b"\x03", false, 0x103),
        (true, b"\x01\x00", false, 0x103),
        // Control frames on aioquic's own control stream: a second SETTINGS, DATA.
        (true, b"control\x04\x00", false, 0x105),
        (true, b"control\x00\x00", false, 0x105),
    ];
    for (uni, bytes, end, code) in table {
        let mut client = stage.attacker().await;
        if let Some(more) = bytes.strip_prefix(b"control") {
            let hex: String = more.iter().map(|b| format!("{b:02x}")).collect();
            // The client's first unidirectional stream.
            client
                .tell(json!({"op": "append", "stream": 2, "bytes": hex, "end": end}))
                .await;
        } else {
            client.raw(uni, bytes, end).await;
        }
        assert_eq!(client.closed().await, code, "{bytes:x?}");
    }
    // An insertion into a table that has no room (the client's encoder stream), and the end of a critical stream.
    for (stream, bytes, end, code) in [(6, "3fe11f", false, 0x201), (2, "", true, 0x104)] {
        let mut client = stage.attacker().await;
        client
            .tell(json!({"op": "append", "stream": stream, "bytes": bytes, "end": end}))
            .await;
        assert_eq!(client.closed().await, code);
    }
    // What is unknown is passed over: frames and settings to come are no error.
    let mut client = stage.attacker().await;
    let stream = client
        .raw(
            false,
            b"\x21\x03abc\x40\x41\x00\x01\x05\x00\x00\xd1\xd7\xc0",
            true,
        )
        .await;
    assert_eq!(client.head(stream).await.status, 400);
    stage.bounded("broken protocol").await;
}
