//! Webhooks: signed, in order, tried again until acknowledged, given up in the end, and kept from private addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::VecDeque, net::SocketAddr, os::unix::fs::PermissionsExt};

use e2e::{
    Settings, World,
    tasks::{PATIENCE, until_told},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SECRET: &str = "the-secret-of-this-webhook";

/// One delivery as it came.
#[derive(Debug)]
struct Delivery {
    head: String,
    body: String,
}

impl Delivery {
    fn field(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        });
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A receiver that answers with what it is told.
struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    open: VecDeque<TcpStream>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            listener,
            address,
            open: VecDeque::new(),
        }
    }

    /// The next delivery, answered with this status; the connection stays open.
    async fn next(&mut self, status: u16) -> Delivery {
        let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
        let (delivery, stream) = self.answered(&answer).await;
        self.open.push_back(stream);
        self.open.truncate(4);
        delivery
    }

    /// The next delivery, answered with these bytes.
    async fn answered(&mut self, answer: &str) -> (Delivery, TcpStream) {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept())
            .await
            .expect("a delivery")
            .unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "cut: {bytes:?}");
            bytes.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let delivery = Delivery {
                head: head.to_owned(),
                body: body.to_owned(),
            };
            let length: usize = delivery.field("content-length").parse().unwrap();
            if body.len() < length {
                continue;
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            return (delivery, stream);
        }
    }
}

fn settings(directory: &std::path::Path, hook: &str) -> Settings {
    let file = directory.join("hook.secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Settings {
        more: format!(
            "\nadmin:\n  webhooks:\n    - {{name: control, secretFile: \"{}\", {hook}}}\n",
            file.display()
        ),
        ..Settings::default()
    }
}

/// A gateway with a webhook of these keys, and who receives it. The directory has its secret.
async fn staged(keys: &str) -> (TempDir, Receiver, World) {
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start().await;
    let hook = format!(
        "url: \"http://{}/\", {keys}, allowedAddresses: [127.0.0.1]",
        receiver.address
    );
    let world = World::with(settings(directory.path(), &hook)).await;
    (directory, receiver, world)
}

/// A session of this id.
async fn create(world: &World, id: &str) {
    let create = ["session", "create", "--provider", "test", "--id", id];
    world.gateway.cli(&create).await.succeeded();
}

/// What the gateway tells of its one webhook, once it is so.
async fn told(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until_told(what, async || {
        let reply = world.gateway.admin("GET", "/webhooks", "").await;
        let hook = reply.json()["webhooks"][0].clone();
        is(&hook).then_some(hook)
    })
    .await
}

fn letters(hook: &Value) -> usize {
    hook["deadLetters"].as_array().map_or(0, Vec::len)
}

/// The signature by another implementation.
fn signed(time: &str, url: &str, body: &str) -> String {
    let script = "import hmac,hashlib,sys;a=sys.argv;print('v1='+hmac.new(a[1].encode(),(a[2]+'\\n'+a[3]+'\\n'+a[4]).encode(),hashlib.sha256).hexdigest())";
    let output = std::process::Command::new("python3")
        .args(["-c", script, SECRET, time, url, body])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn events_are_told_in_order_signed_and_again_until_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start().await;
    let url = format!("http://{}/hook?a=b", receiver.address);
    let hook = format!("url: \"{url}\", events: [\"session.*\"], allowedAddresses: [127.0.0.0/8]");
    let mut world = World::with(settings(directory.path(), &hook)).await;
    create(&world, "one").await;

    let refused = receiver.next(500).await;
    let first = receiver.next(204).await;
    assert!(
        first.head.starts_with("POST /hook?a=b HTTP/1.1"),
        "{}",
        first.head
    );
    assert_eq!(first.json()["type"], "session.created");
    assert_eq!(first.body, refused.body, "the same event again");
    assert_eq!(
        first.json()["cursor"].to_string(),
        first.field("sluicegate-event")
    );
    let time = first.field("sluicegate-timestamp");
    assert_eq!(
        first.field("sluicegate-signature"),
        signed(time, &url, &first.body)
    );

    // A kill before the second is acknowledged: it comes again, and the first does not.
    let second = receiver.next(503).await;
    assert_eq!(second.json()["type"], "session.started");
    world.gateway.process.signal(Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    let again = receiver.next(200).await;
    assert_eq!(again.json()["cursor"], second.json()["cursor"]);
    let stop = ["session", "stop", "one", "--provider", "test"];
    world.gateway.cli(&stop).await.succeeded();
    assert_eq!(receiver.next(200).await.json()["type"], "session.stopped");
}

/// How servers end their side is theirs to choose: the answer counts.
#[tokio::test]
async fn an_acknowledgement_counts_however_its_connection_ends() {
    let (_directory, mut receiver, world) = staged("events: [session.created]").await;
    for (id, answer) in [
        ("kept", "HTTP/1.1 204 Said\r\n\r\n"),
        (
            "closing",
            "HTTP/1.1 200 Said\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ),
        ("old", "HTTP/1.0 200 Said\r\n\r\nthank you"),
        (
            "short",
            "HTTP/1.1 200 Said\r\nContent-Length: 100\r\n\r\nthank",
        ),
    ] {
        create(&world, id).await;
        let (delivery, stream) = receiver.answered(answer).await;
        // Not the one before, again.
        assert_eq!(delivery.json()["session"]["id"], id);
        drop(stream);
    }
    // Without an answer it is none, and comes again.
    create(&world, "mute").await;
    for answer in ["", "HTTP/1.1 204 Said\r\n\r\n"] {
        let (delivery, stream) = receiver.answered(answer).await;
        assert_eq!(delivery.json()["session"]["id"], "mute");
        drop(stream);
    }
}

#[tokio::test]
async fn what_nobody_takes_is_given_up_and_shown() {
    let (_directory, mut receiver, world) = staged("events: [session.created], attempts: 2").await;
    for id in ["one", "two"] {
        create(&world, id).await;
    }
    for _ in 0..2 {
        let delivery = receiver.next(410).await;
        assert_eq!(delivery.json()["session"]["id"], "one");
    }
    let next = receiver.next(200).await;
    assert_eq!(next.json()["session"]["id"], "two", "the next one follows");
    let hook = told(&world, "a delivery", |hook| hook["delivered"] == 1).await;
    assert_eq!(hook["name"], "control");
    let letters = hook["deadLetters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{hook}");
    assert_eq!(letters[0]["event"]["session"]["id"], "one");
    assert!(
        letters[0]["error"].as_str().unwrap().contains("410"),
        "{hook}"
    );
    for (outcome, count) in [("delivered", 1.0), ("failed", 2.0), ("given_up", 1.0)] {
        let sample = format!("sluicegate_webhook_deliveries_total{{outcome=\"{outcome}\"}} ");
        world.gateway.metric_is(&sample, count).await;
    }

    // Once more, when somebody asks: what fails stays, and what is taken is no dead letter.
    let cursor = letters[0]["cursor"].clone();
    let ask = async |body: Value| {
        let path = "/webhooks:redeliver";
        let reply = world.gateway.admin("POST", path, &body.to_string()).await;
        (reply.status(), reply.json())
    };
    for (body, problem) in [
        (serde_json::json!({ "name": "none" }), "unknown-webhook"),
        (
            serde_json::json!({ "name": "control", "cursor": 1_000_000 }),
            "unknown-dead-letter",
        ),
    ] {
        let (status, answer) = ask(body).await;
        assert_eq!(status, 404);
        let problem = format!("urn:sluicegate:problem:{problem}");
        assert_eq!(answer["type"], problem);
    }
    let (status, answer) = ask(serde_json::json!({ "name": "control", "cursor": cursor })).await;
    assert_eq!((status, &answer["redelivering"]), (202, &Value::from(1)));
    let delivery = receiver.next(500).await;
    assert_eq!(delivery.json()["cursor"], cursor);
    told(&world, "another failure", |hook| {
        hook["deadLetters"][0]["attempts"] == 3
    })
    .await;
    let again = ["webhook", "redeliver", "control"];
    world.gateway.cli(&again).await.succeeded();
    let delivery = receiver.next(200).await;
    assert_eq!(delivery.json()["session"]["id"], "one");
    told(&world, "no dead letter", |hook| {
        hook["deadLetters"] == serde_json::json!([]) && hook["delivered"] == 2
    })
    .await;
}

/// Dead letters are tried between the events, not before them.
#[tokio::test]
async fn an_event_waits_for_one_dead_letter_at_most() {
    let (_directory, mut receiver, world) = staged("events: [session.created], attempts: 1").await;
    for id in ["one", "two"] {
        create(&world, id).await;
        let delivery = receiver.next(410).await;
        assert_eq!(delivery.json()["session"]["id"], id);
    }
    told(&world, "two dead letters", |hook| letters(hook) == 2).await;
    let again = ["webhook", "redeliver", "control"];
    world.gateway.cli(&again).await.succeeded();
    let (delivery, mut stream) = receiver.answered("").await;
    assert_eq!(delivery.json()["session"]["id"], "one");
    // Before the first has its answer.
    create(&world, "three").await;
    let answer = b"HTTP/1.1 410 Said\r\nContent-Length: 0\r\n\r\n";
    // Its time may be over by now: the event is next then too.
    let _ = stream.write_all(answer).await;
    let delivery = receiver.next(200).await;
    assert_eq!(delivery.json()["session"]["id"], "three");
}

/// Whoever takes what is sent and says nothing holds up one attempt, and not those behind it.
#[tokio::test]
async fn a_redelivery_without_an_answer_ends_by_its_time_and_alone() {
    let (_directory, mut receiver, world) = staged("events: [session.created], attempts: 1").await;
    for id in ["one", "two"] {
        create(&world, id).await;
        let delivery = receiver.next(410).await;
        assert_eq!(delivery.json()["session"]["id"], id);
    }
    told(&world, "two dead letters", |hook| letters(hook) == 2).await;
    let again = ["webhook", "redeliver", "control"];
    world.gateway.cli(&again).await.succeeded();
    let (delivery, mut mute) = receiver.answered("").await;
    assert_eq!(delivery.json()["session"]["id"], "one");
    // The gateway hangs up when the attempt has had its time.
    let ended = tokio::time::timeout(3 * PATIENCE, mute.read(&mut [0; 64])).await;
    let ended = ended.expect("the attempt's end");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let after = told(&world, "the attempt's outcome", |hook| {
        hook["deadLetters"][0]["attempts"] == 2
    })
    .await;
    let error = after["deadLetters"][0]["error"].as_str().unwrap();
    assert!(error.contains("no answer within"), "{after}");
    assert_eq!(after["deadLetters"][1]["attempts"], 1, "{after}");
    assert_eq!(after["redelivering"], 0, "{after}");

    // What happens next is told next, and what was given up when somebody asks again.
    create(&world, "three").await;
    let delivery = receiver.next(200).await;
    assert_eq!(delivery.json()["session"]["id"], "three");
    world.gateway.cli(&again).await.succeeded();
    for id in ["one", "two"] {
        let delivery = receiver.next(200).await;
        assert_eq!(delivery.json()["session"]["id"], id);
    }
    told(&world, "no dead letter", |hook| letters(hook) == 0).await;
}

/// What one namespace does without end takes nothing of what is told of another.
#[tokio::test]
async fn a_slow_receiver_is_told_of_every_namespace() {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start().await;
    let hook = format!(
        "url: \"http://{}/\", allowedAddresses: [127.0.0.1]",
        receiver.address
    );
    let mut settings = settings(directory.path(), &hook);
    settings
        .more
        .push_str("store: {retention: {events: 100}}\n");
    let world = World::with(settings).await;
    let sessions = "/runtime/providers/test/sessions";
    let post = async |path: &str, body: &str, status: u16| {
        let reply = world.gateway.admin("POST", path, body).await;
        assert_eq!(reply.status(), status, "{path}: {}", reply.text());
    };
    post(sessions, r#"{"id": "loud"}"#, 201).await;
    let quiet = format!("/namespaces/quiet{sessions}");
    post(&quiet, r#"{"id": "kept"}"#, 201).await;
    for _ in 0..60 {
        for action in ["pause", "resume"] {
            post(&format!("{sessions}/loud:{action}"), "", 200).await;
        }
    }
    let mut told = Vec::new();
    while told.last().is_none_or(|kind| kind != "session.started") {
        let event = receiver.next(200).await.json();
        if event["session"]["id"] == "kept" {
            told.push(event["type"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(told, ["session.created", "session.started"]);
    // What is missing of the other is counted before what is there of it is told.
    receiver.next(200).await;
    let reply = world.gateway.admin("GET", "/webhooks", "").await.json();
    let missed = reply["webhooks"][0]["missed"].as_u64().unwrap();
    assert!(missed > 0, "{reply}");
    let sample = "sluicegate_webhook_deliveries_total{outcome=\"missed\"} ";
    world.gateway.metric_is(sample, missed as f64).await;
}

/// Over TLS its certificate must be for its name and of an authority it may be of; nothing is said to anybody else.
#[tokio::test]
async fn over_https_only_a_receiver_with_the_right_certificate_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ca = e2e::Ca::create();
    let roots = directory.path().join("roots.pem");
    std::fs::write(&roots, ca.pem()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("https://hook.allowed.test:{port}/in");
    let hook = format!(
        "url: \"{url}\", events: [session.created], caFile: \"{}\", allowedAddresses: [127.0.0.1]",
        roots.display()
    );
    let world = World::with(settings(directory.path(), &hook)).await;
    world.dns.point("hook.allowed.test");
    create(&world, "one").await;
    let impostors = [
        ca.server(&["other.test"], &[b"http/1.1"]),
        e2e::Ca::create().server(&["hook.allowed.test"], &[b"http/1.1"]),
    ];
    for tls in impostors {
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .expect("an attempt")
            .unwrap();
        let shown = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await;
        let told = match shown {
            // TLS 1.3: the server's handshake may be over before the client's alert.
            Ok(mut stream) => stream.read_u8().await.is_ok(),
            Err(_) => false,
        };
        assert!(!told, "something was said to an impostor");
    }
    let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
        .await
        .expect("another attempt")
        .unwrap();
    let tls = ca.server(&["hook.allowed.test"], &[b"http/1.1"]);
    let mut stream = tokio_rustls::TlsAcceptor::from(tls)
        .accept(stream)
        .await
        .unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap() as char);
    }
    let mut delivery = Delivery {
        head,
        body: String::new(),
    };
    let length = delivery.field("content-length").parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    delivery.body = String::from_utf8(body).unwrap();
    assert_eq!(
        delivery.field("sluicegate-signature"),
        signed(delivery.field("sluicegate-timestamp"), &url, &delivery.body)
    );
    assert_eq!(delivery.json()["type"], "session.created");
}

#[tokio::test]
async fn a_private_address_is_refused_whether_written_or_resolved() {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start().await;
    let written = settings(
        directory.path(),
        &format!("url: \"http://{}/\"", receiver.address),
    );
    let ports = e2e::gateway::Ports::free().await;
    let file = directory.path().join("bad.yaml");
    let yaml = written.yaml(ports, &directory.path().join("access"));
    std::fs::write(&file, yaml).unwrap();
    let checked = e2e::Program::new(e2e::program::binary("sluicegate"))
        .arg("check")
        .arg(&file)
        .run()
        .await;
    let said = format!("{}{}", checked.text(), checked.stderr);
    assert_eq!(checked.code, Some(2), "{said}");
    assert!(
        said.contains("127.0.0.1") && said.contains("allowedAddresses"),
        "{said}"
    );

    // By name it is found out at the delivery: the name resolves, the address is judged, nothing is dialled.
    let port = receiver.address.port();
    let hook = format!("url: \"http://hook.allowed.test:{port}/\", attempts: 1");
    let world = World::with(settings(directory.path(), &hook)).await;
    world.dns.point("hook.allowed.test");
    create(&world, "one").await;
    // Of one session there is more than one event, and whoever looks may see the first alone or not.
    let judged = |hook: &Value| {
        let letters = hook["deadLetters"].as_array().cloned().unwrap_or_default();
        letters.iter().any(|letter| {
            let error = letter["error"].as_str().unwrap_or_default();
            error.contains("address") || error.contains("prohibited")
        })
    };
    told(&world, "a dead letter for its address", judged).await;
    let visitor = tokio::time::timeout(std::time::Duration::from_millis(200), receiver.next(200));
    assert!(visitor.await.is_err(), "somebody dialled");
}
