//! Streams of all three kinds of one client, and what an operator takes away.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::tasks::timed;
use e2e::{Ask, LateLink, Record, RelayClient, Session, Tasks, Wire, World, until, web, within};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{TRANSPORTS, echo, made, said};

/// Streams of all three kinds of one client.
struct Three {
    world: World,
    session: Session,
    client: RelayClient,
    target: String,
    proxy: SocketAddr,
    dial: SocketAddr,
    _tasks: Tasks,
}

impl Three {
    async fn over(transport: &str) -> Self {
        Self::asking(transport, &[], &[]).await
    }

    /// With more arguments of `session create` and of `up`.
    async fn asking(transport: &str, create: &[&str], up: &[&str]) -> Self {
        Self::in_world(World::start().await, transport, create, up).await
    }

    /// At the other end of a link with so much delay each way.
    async fn far(transport: &str, delay: Duration) -> (Self, LateLink) {
        let world = World::start().await;
        let link = LateLink::to(world.gateway.ports.public, delay).await;
        let url = format!("https://{}", link.address);
        let three = Self::in_world(world, transport, &[], &["--url", &url]).await;
        (three, link)
    }

    async fn in_world(world: World, transport: &str, create: &[&str], up: &[&str]) -> Self {
        let tasks = Tasks::default();
        let address = echo(&tasks).await;
        world.dns.point("raw.allowed.test");
        let target = format!("raw.allowed.test:{}", address.port());
        let service = format!("echo=tcp://{address}");
        let ask = Ask {
            allow: &[&target],
            services: &[&service],
            more: &[&["--expose", "plugin=tcp"], create].concat(),
        };
        let session = world.session_for(ask).await;
        let offer = format!("plugin=tcp://{address}");
        let more = [
            "--transport",
            transport,
            "--expose",
            &offer,
            "--proxy",
            "127.0.0.1:0",
        ];
        let more = [&more, up].concat();
        let client = RelayClient::up_with(&session, &more, &[RelayClient::tcp("echo")]).await;
        client.event("connected").await;
        let said = client.event("proxy").await;
        let place = |text: &str, scheme: &str| text.strip_prefix(scheme).unwrap().parse().unwrap();
        let proxy = place(said["address"].as_str().unwrap(), "http://");
        let dial = place(
            session.json["dialTargets"]["plugin"].as_str().unwrap(),
            "tcp://",
        );
        Self {
            world,
            session,
            client,
            target,
            proxy,
            dial,
            _tasks: tasks,
        }
    }

    /// One of each, with an answer on it.
    async fn open(&self) -> [TcpStream; 3] {
        let sample = "sluicegate_accept_streams_waiting ";
        self.world.gateway.metric_reaches(sample, 1.0).await;
        let mut wire = Wire::dial(self.proxy).await;
        let target = &self.target;
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status, 200);
        let mut streams = [
            TcpStream::connect(self.client.entry("echo")).await.unwrap(),
            TcpStream::connect(self.dial).await.unwrap(),
            wire.stream,
        ];
        for stream in &mut streams {
            // No TLS record, no request: a protocol of its own.
            said(stream, &[0xEE; 9]).await;
        }
        streams
    }

    async fn act(&self, action: &str) {
        let arguments = ["session", action, self.session.id()];
        self.world.gateway.cli(&arguments).await.succeeded();
    }
}

/// By satellite, or from the other side of the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_carried_over_a_round_trip_of_600_ms() {
    let each = ["quic", "h2", "h1", "auto"].map(async |transport| {
        let (three, _link) = Three::far(transport, Duration::from_millis(300)).await;
        // The second time by a gateway that knows how far away it is.
        for _ in 0..2 {
            for mut stream in three.open().await {
                said(&mut stream, b"and again").await;
            }
        }
    });
    let [quic, h2, h1, auto] = each;
    tokio::join!(quic, h2, h1, auto);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_withdrawn_ends_on_every_kind_of_stream_over_each_transport() {
    let each = TRANSPORTS.map(async |transport| {
        let three = Three::over(transport).await;
        for (action, reason) in [("pause", "session_paused"), ("reset", "session_revoked")] {
            let streams = three.open().await;
            three.act(action).await;
            for mut stream in streams {
                let end = within("the cut", stream.read(&mut [0])).await;
                assert!(end.is_err(), "{transport} {action}: {end:?}");
            }
            for kind in ["connect-tcp", "listener"] {
                let front = if transport == "quic" && kind == "connect-tcp" {
                    "quic"
                } else {
                    kind
                };
                let cut = |record: &Record| {
                    record.text("front") == front
                        && record.text("outcome") == "cut"
                        && record.text("reason") == reason
                };
                three.world.gateway.record("a cut", cut).await;
            }
            if action == "pause" {
                three.act("resume").await;
                let back = || {
                    let said = three.client.process.said();
                    let mut states = said.lines().rev().filter_map(|line| {
                        let event: Value = serde_json::from_str(line).ok()?;
                        let state = event["event"].as_str()?.to_owned();
                        ["connected", "unauthorized", "reconnecting"]
                            .contains(&&*state)
                            .then_some(state)
                    });
                    (states.next()? == "connected").then_some(())
                };
                until("the connection", back).await;
            }
        }
    });
    let [quic, h2, h1] = each;
    tokio::join!(quic, h2, h1);
}

/// What an operator changes reaches what is open within this.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Three {
    /// PATCH of the session, as a control plane does it.
    async fn patch(&self, change: Value) {
        let path = format!("/runtime/providers/test/sessions/{}", self.session.id());
        let change = change.to_string();
        let answer = self.world.gateway.admin("PATCH", &path, &change).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Each ends in a reset, and soon.
    async fn are_cut(streams: [TcpStream; 3], what: &str) {
        let cuts = async {
            for mut stream in streams {
                let end = within("the cut", stream.read(&mut [0])).await;
                assert!(end.is_err(), "{what}: {end:?}");
            }
        };
        let ((), took) = timed(cuts).await;
        assert!(took < AT_ONCE, "{what}: cut after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_policy_cuts_what_it_takes_away_and_nothing_else() {
    for transport in TRANSPORTS {
        let three = Three::over(transport).await;
        let [mut service, mut listener, mut egress] = three.open().await;
        // One after the other is taken away; what is left notices nothing.
        for (taken, change) in [
            ("egress", serde_json::json!({"allow": []})),
            ("expose", serde_json::json!({"expose": {}})),
            ("services", serde_json::json!({"services": {}})),
        ] {
            three.patch(change).await;
            let cut = match taken {
                "egress" => &mut egress,
                "expose" => &mut listener,
                _ => &mut service,
            };
            let (end, took) = timed(within("the cut", cut.read(&mut [0]))).await;
            assert!(end.is_err(), "{transport} {taken}: {end:?}");
            assert!(took < AT_ONCE, "{transport} {taken}: cut after {took:?}");
            if taken == "egress" {
                said(&mut listener, b"still here").await;
            }
            if taken != "services" {
                said(&mut service, b"and here").await;
            }
        }
        let cuts = || {
            let records = three.world.gateway.records();
            // Accept streams that wait are refused for the same reason.
            let cut = |record: &&Record| {
                record.text("outcome") == "cut" && record.text("reason") == "policy_changed"
            };
            (records.iter().filter(cut).count() == 3).then_some(())
        };
        until("three records of cuts", cuts).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_spent_cuts_every_kind_of_stream() {
    for transport in TRANSPORTS {
        let three = Three::over(transport).await;
        let mut streams = three.open().await;
        // Less than has passed already: the next byte of each is one too many.
        three
            .patch(serde_json::json!({"limits": {"bytes": 1}}))
            .await;
        for stream in &mut streams {
            stream.write_all(b"x").await.unwrap();
        }
        Three::are_cut(streams, transport).await;
        let cuts = || {
            let records = three.world.gateway.records();
            let cut = |record: &&Record| {
                record.text("outcome") == "cut" && record.text("reason") == "byte_quota"
            };
            (records.iter().filter(cut).count() == 3).then_some(())
        };
        until("three records of cuts", cuts).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bound_to_a_key_is_of_use_to_its_holder_alone() {
    let keys = tempfile::tempdir().unwrap();
    let (ours, theirs) = (keys.path().join("ours.pem"), keys.path().join("theirs.pem"));
    let thumbprint = made(&ours).await;
    assert_eq!(made(&ours).await, thumbprint, "it is made once");
    assert_ne!(made(&theirs).await, thumbprint);
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    for transport in TRANSPORTS {
        let create = ["--client-key", &thumbprint];
        let three = Three::asking(transport, &create, &["--key", ours]).await;
        assert_eq!(three.session.json["clientKey"], thumbprint);
        drop(three.open().await);
        for (what, key) in [("no key", None), ("another key", Some(theirs))] {
            let mut more = vec!["--transport", transport];
            more.extend(key.map(|key| ["--key", key]).into_iter().flatten());
            let listen = [RelayClient::tcp("echo")];
            let thief = RelayClient::up_with(&three.session, &more, &listen).await;
            let told = thief.event("unauthorized").await;
            let reason = told["reason"].as_str().unwrap();
            // The gateway says what it says to anybody; the client knows its own token.
            assert!(
                reason.contains("credential_invalid") && reason.contains(&thumbprint),
                "{transport} {what}: {reason}"
            );
            let refused = async {
                // The reset may come before the connection is ours.
                let mut stream = TcpStream::connect(thief.entry("echo")).await?;
                stream.read(&mut [0]).await
            };
            let end = within("a refusal", refused).await;
            assert!(end.is_err(), "{transport} {what}: {end:?}");
        }
        let gateway = &three.world.gateway;
        let told = gateway.record("what the operator is told", |record| {
            record.text("reason") == "key_not_proved" && record.mentions("echo")
        });
        assert_eq!(told.await.text("outcome"), "refused", "{transport}");
        let front = if transport == "quic" {
            "quic"
        } else {
            "connect_tcp"
        };
        let sample = format!(
            "sluicegate_ended_total{{kind=\"stream\",front=\"{front}\",outcome=\"refused\",reason=\"key_not_proved\"}} "
        );
        gateway.metric_reaches(&sample, 2.0).await;
        // Where no key can be proved, the answer is that to rubbish, whatever it is for.
        let port = three.world.gateway.ports.plain;
        let answer = async |token: &str| {
            let credential = format!("Authorization: Bearer {token}\r\n");
            let reply = web::request(port, "POST", "/relay/v1/token", &credential, "").await;
            let (status, mut told) = (reply.status(), reply.json());
            told["requestId"] = "".into();
            (status, told)
        };
        let stolen = three.session.variable("SLUICEGATE_RELAY_TOKEN");
        assert_eq!(answer(stolen).await, answer("x.y.z").await);
        let mut wire = Wire::dial(port).await;
        let (token, target) = (
            three.session.variable("SLUICEGATE_PROXY_TOKEN"),
            &three.target,
        );
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status, 407);
    }
}
