//! Sessions over the admin API and the command line: the whole table with kills between the steps, scopes and their
//! queue, what runtimes observe.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::{Ask, Gateway, Settings, World, gateway::LOOPBACK_PROVIDER, until};
use rustix::process::Signal;
use serde_json::{Value, json};

const SESSIONS: &str = "/runtime/providers/test/sessions";

/// A number generator whose runs can be repeated (xorshift64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % 1_000_003).unwrap() % sides
    }
}

/// The table of docs/admin-api.md: the state after, or nothing for 409.
fn expected(action: &str, state: &str) -> Option<&'static str> {
    Some(match (action, state) {
        ("start", "idle" | "running") | ("resume", "running" | "paused") => "running",
        ("start" | "pause", "paused") | ("pause", "running") => "paused",
        ("keepalive", "running") => "running",
        ("reset" | "gone", "running" | "paused") | ("gone", "idle") => "idle",
        ("stop", _) | ("gone", "stopped") => "stopped",
        _ => return None,
    })
}

fn shown(reply: &e2e::wire::Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

/// Asks until the answer is yes.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tick.tick().await;
    }
}

async fn kill(gateway: &mut Gateway) {
    gateway.process.signal(Signal::KILL);
    gateway.process.wait("the kill").await;
    gateway.restart().await;
}

#[tokio::test]
async fn every_step_of_the_table_with_kills_in_between() {
    let seed = std::env::var("E2E_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(0x5eed_2026);
    let mut dice = Dice(seed);
    let mut world = World::start().await;
    let actions = ["start", "pause", "resume", "keepalive", "reset", "gone"];
    for round in 0..4 {
        let id = format!("s{round}");
        let body = json!({ "id": id, "start": false, "allow": [world.plain()] }).to_string();
        let created = world.gateway.admin("POST", SESSIONS, &body).await;
        assert_eq!(created.status(), 201, "{}", created.text());
        let (mut state, mut generation) = ("idle", 0);
        let mut credential: Option<(u64, String)> = None;
        for step in 0..14 {
            let what = format!("seed {seed}, round {round}, step {step}");
            if step % 5 == 4 {
                kill(&mut world.gateway).await;
            }
            let last = step == 13;
            let action = if last {
                "stop"
            } else {
                actions[dice.roll(actions.len())]
            };
            let (path, body) = match action {
                "gone" => ("observe", r#"{"state": "destroyed"}"#),
                other => (other, ""),
            };
            let path = format!("{SESSIONS}/{id}:{path}");
            let reply = world.gateway.admin("POST", &path, body).await;
            let told = shown(&reply);
            match expected(action, state) {
                None => {
                    assert_eq!(reply.status(), 409, "{what}: {action} in {state}: {told}");
                    assert_eq!(told["state"], state, "{what}");
                }
                Some(after) => {
                    assert_eq!(reply.status(), 200, "{what}: {action} in {state}: {told}");
                    if action == "start" && state == "idle" {
                        generation += 1;
                    }
                    assert_eq!(
                        told["session"]["state"], after,
                        "{what}: {action} in {state}"
                    );
                    assert_eq!(told["session"]["generation"], generation, "{what}");
                    assert_eq!(told["env"].is_object(), action == "start", "{what}");
                    if let Some(proxy) = told["env"]["HTTP_PROXY"].as_str() {
                        credential = Some((generation, proxy.to_owned()));
                    }
                    state = after;
                }
            }
            if let Some((of, proxy)) = &credential {
                let status = open(&world, proxy).await;
                let lives = *of == generation;
                let expected = match state {
                    "running" if lives => 200,
                    "paused" if lives => 403,
                    _ => 407,
                };
                assert_eq!(status, expected, "{what}: after {action}, {state}");
            }
        }
    }
}

/// One cell of the table over the API, with what is known of the session in it.
struct Cell {
    id: String,
    action: &'static str,
    state: &'static str,
    /// A proxy URL of its generation.
    credential: String,
}

impl Cell {
    /// A session that came to this state, its credential kept.
    async fn prepare(world: &World, action: &'static str, state: &'static str) -> Self {
        let id = format!("{action}-{state}");
        let body = json!({ "id": id, "allow": [world.plain()] }).to_string();
        let created = world.gateway.admin("POST", SESSIONS, &body).await;
        assert_eq!(created.status(), 201, "{}", created.text());
        let proxy = shown(&created)["env"]["HTTP_PROXY"].clone();
        let cell = Self {
            id,
            action,
            state,
            credential: proxy.as_str().unwrap().to_owned(),
        };
        let way = match state {
            "idle" => "reset",
            "paused" => "pause",
            "stopped" => "stop",
            _ => return cell,
        };
        let reply = cell.act(world, way).await;
        assert_eq!(reply.status(), 200, "{}: {}", cell.id, reply.text());
        cell
    }

    async fn act(&self, world: &World, action: &str) -> e2e::wire::Reply {
        let (path, body) = match action {
            "gone" => ("observe", r#"{"state": "destroyed"}"#),
            other => (other, ""),
        };
        let path = format!("{SESSIONS}/{}:{path}", self.id);
        world.gateway.admin("POST", &path, body).await
    }

    /// The state that this cell leads to: the one it is in, where the action is impossible.
    fn after(&self) -> &'static str {
        expected(self.action, self.state).unwrap_or(self.state)
    }

    /// A start of an idle session begins a generation, and nothing else does.
    fn generation(&self) -> u64 {
        1 + u64::from((self.action, self.state) == ("start", "idle"))
    }

    /// It is in this state, and its first credential is good for what that allows.
    async fn is(&self, world: &World, state: &str, generation: u64, when: &str) {
        let path = format!("{SESSIONS}/{}", self.id);
        let told = shown(&world.gateway.admin("GET", &path, "").await);
        let session = &told["session"];
        assert_eq!(session["state"], state, "{} {when}: {told}", self.id);
        assert_eq!(session["generation"], generation, "{} {when}", self.id);
        let status = match state {
            "running" if generation == 1 => 200,
            "paused" => 403,
            _ => 407,
        };
        let got = open(world, &self.credential).await;
        assert_eq!(got, status, "{} {when}", self.id);
    }
}

/// Each cell: the state survives a kill, the action does what the table says, and what it did survives another kill.
#[tokio::test]
async fn every_cell_of_the_table_between_two_kills() {
    let mut world = World::start().await;
    let mut cells = Vec::new();
    for state in ["idle", "running", "paused", "stopped"] {
        for action in [
            "start",
            "pause",
            "resume",
            "keepalive",
            "reset",
            "stop",
            "gone",
        ] {
            cells.push(Cell::prepare(&world, action, state).await);
        }
    }
    kill(&mut world.gateway).await;
    for cell in &cells {
        cell.is(&world, cell.state, 1, "after a kill").await;
        let reply = cell.act(&world, cell.action).await;
        let told = shown(&reply);
        if let Some(after) = expected(cell.action, cell.state) {
            assert_eq!(reply.status(), 200, "{}: {told}", cell.id);
            assert_eq!(told["session"]["state"], after, "{}", cell.id);
            assert_eq!(
                told["env"].is_object(),
                cell.action == "start",
                "{}",
                cell.id
            );
        } else {
            assert_eq!(reply.status(), 409, "{}: {told}", cell.id);
            assert_eq!(told["state"], cell.state, "{}", cell.id);
        }
        let (after, generation) = (cell.after(), cell.generation());
        cell.is(&world, after, generation, "after the action").await;
    }
    kill(&mut world.gateway).await;
    for cell in &cells {
        let (after, generation) = (cell.after(), cell.generation());
        cell.is(&world, after, generation, "after another kill")
            .await;
    }
}

/// CONNECT with the credential of a proxy URL: the status.
async fn open(world: &World, proxy: &str) -> u16 {
    let (userinfo, _) = proxy.trim_start_matches("http://").split_once('@').unwrap();
    let basic = data_encoding::BASE64.encode(userinfo.as_bytes());
    let target = world.plain();
    let mut wire = e2e::Wire::dial(world.gateway.ports.plain).await;
    let head = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    );
    wire.send(head).await;
    wire.head().await.status
}

#[tokio::test]
async fn a_start_with_secrets_is_refused_by_name() {
    let world = World::start().await;
    let body = r#"{"id": "one", "start": false}"#;
    world.gateway.admin("POST", SESSIONS, body).await;
    let path = format!("{SESSIONS}/one:start");
    let reply = world
        .gateway
        .admin("POST", &path, r#"{"secretIds": ["a"]}"#)
        .await;
    assert_eq!(reply.status(), 422);
    assert!(reply.text().contains("secretIds"), "{}", reply.text());
    assert_eq!(world.gateway.admin("POST", &path, "").await.status(), 200);
}

fn scoped(concurrency: u32) -> Settings {
    Settings {
        runtime: format!(
            "{LOOPBACK_PROVIDER}      session: {{scopes: {{concurrency: {concurrency}, queue: 3}}}}\n"
        ),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_scope_queues_what_is_too_much_and_keeps_the_order_over_a_kill() {
    let mut world = World::with(scoped(1)).await;
    let plain = world.plain();
    let ask = |id: &'static str, more: &'static [&'static str]| {
        let arguments = [&["--id", id, "--scope", "chat"][..], more].concat();
        (id, arguments)
    };
    let create = async |gateway: &Gateway, (_, more): (&str, Vec<&str>)| {
        let ask = Ask {
            allow: &[&plain],
            more: &more,
            ..Ask::default()
        };
        e2e::Session::attempt(gateway, ask).await
    };
    let first = create(&world.gateway, ask("a", &[])).await.succeeded();
    let first: Value = serde_json::from_str(&first).unwrap();
    for (id, position) in [("b", 1), ("c", 2), ("d", 3)] {
        let text = create(&world.gateway, ask(id, &[])).await.succeeded();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["session"]["queued"]["position"], position, "{told}");
        assert_eq!(told["session"]["state"], "idle");
        assert!(told["env"].is_null(), "no credential before its place");
    }
    let full = create(&world.gateway, ask("e", &[])).await;
    assert_eq!(full.code, Some(4), "{}", full.stderr);
    let start = ["session", "start", "b", "--provider", "test"];
    let early = world.gateway.cli(&start).await;
    assert_eq!(early.code, Some(4), "{}", early.stderr);
    assert!(early.stderr.contains("position 1"), "{}", early.stderr);

    kill(&mut world.gateway).await;
    let proxy = first["env"]["HTTP_PROXY"].as_str().unwrap();
    assert_eq!(open(&world, proxy).await, 200, "who ran, runs");
    // Somebody waits for the place of b; a goes; b comes, not c.
    let waiting = [&start[..], &["--wait", "60", "--format", "json"]].concat();
    let free = async {
        // Whether it is heard before the place is free or after, it gets it.
        let stop = ["session", "stop", "a", "--provider", "test"];
        world.gateway.cli(&stop).await.succeeded();
    };
    let (started, ()) = tokio::join!(world.gateway.cli(&waiting), free);
    let started: Value = serde_json::from_str(&started.succeeded()).unwrap();
    let proxy = started["env"]["HTTP_PROXY"].as_str().expect("a credential");
    assert_eq!(open(&world, proxy).await, 200);
    let show = async |id: &str| {
        let path = format!("{SESSIONS}/{id}");
        shown(&world.gateway.admin("GET", &path, "").await)["session"].clone()
    };
    assert_eq!(show("c").await["queued"]["position"], 1);
    // More room by reload: the rest begins by itself.
    let settings = Settings {
        dns: Some(world.dns.address),
        ..scoped(3)
    };
    world.gateway.reconfigure(&settings);
    world.gateway.cli(&["reload"]).await.succeeded();
    eventually("d runs", async || show("d").await["state"] == "running").await;
    let events = world.gateway.cli(&["events", "--json"]).await.succeeded();
    let order: Vec<&str> = events
        .lines()
        .filter(|line| line.contains("\"session.started\""))
        .map(|line| {
            let at = line.find("\"id\":\"").unwrap() + 6;
            &line[at..=at]
        })
        .collect();
    assert_eq!(order, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn what_a_runtime_observes_ends_the_generation_and_cuts_its_tunnels() {
    let (world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0open").await;
    let _far = origin.accept().await;
    let observe = async |arguments: &[&str]| {
        let command = ["session", "observe", session.id()];
        world.gateway.cli(&[&command, arguments].concat()).await
    };
    observe(&["running"]).await.succeeded();
    observe(&["destroyed", "--generation", "7"])
        .await
        .succeeded();
    assert_eq!(session.connect(&target).await.0.status, 200);
    observe(&["stopped", "--reason", "oom", "--generation", "1"])
        .await
        .succeeded();
    wire.cut().await;
    assert_eq!(session.connect(&target).await.0.status, 407);
    let path = format!("{SESSIONS}/{}", session.id());
    let told = shown(&world.gateway.admin("GET", &path, "").await);
    assert_eq!(told["session"]["state"], "idle");
    assert_eq!(told["session"]["reason"], "runtime: stopped, oom");
    let nonsense = observe(&["exploded"]).await;
    assert_eq!(nonsense.code, Some(2), "{}", nonsense.stderr);
    let record = until("the tunnel's record", || {
        let all = world.gateway.records();
        all.into_iter()
            .find(|record| record.text("reason") == "session_revoked")
    })
    .await;
    assert_eq!(record.text("target"), target);
}

#[tokio::test]
async fn bytes_spent_survive_a_kill() {
    let (mut world, origin, session, target) = World::with_raw().await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0").await;
    let _far = origin.accept().await;
    wire.send(vec![b'x'; 100_000]).await;
    let path = format!("{SESSIONS}/{}", session.id());
    let bytes = async |gateway: &Gateway| {
        let told = shown(&gateway.admin("GET", &path, "").await);
        told["session"]["usage"]["bytes"].as_u64().unwrap()
    };
    // Saved within ten seconds: a pause saves at once, and is as good.
    let counted = async || bytes(&world.gateway).await >= 100_000;
    eventually("the bytes are counted", counted).await;
    let pause = ["session", "pause", session.id()];
    world.gateway.cli(&pause).await.succeeded();
    kill(&mut world.gateway).await;
    assert!(bytes(&world.gateway).await >= 100_000);
}

/// The byte limit is the session's: a new generation goes on from what those before it have spent, over a kill too, and a
/// higher limit is what gives it more.
#[tokio::test]
async fn a_new_generation_has_no_new_bytes() {
    let (mut world, origin, session, target) = World::with_raw().await;
    let path = format!("{SESSIONS}/{}", session.id());
    let limit = async |gateway: &Gateway, bytes: u64| {
        let body = json!({"limits": {"bytes": bytes}}).to_string();
        let reply = gateway.admin("PATCH", &path, &body).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
    };
    // The handle of a start, as `Proxy-Authorization`.
    let again = async |gateway: &Gateway| {
        let reset = gateway.admin("POST", &format!("{path}:reset"), "").await;
        assert_eq!(reset.status(), 200, "{}", reset.text());
        let start = gateway.admin("POST", &format!("{path}:start"), "").await;
        assert_eq!(start.status(), 200, "{}", start.text());
        let answer = start.json();
        let url = answer["env"]["HTTP_PROXY"].as_str().unwrap();
        let (userinfo, address) = url
            .strip_prefix("http://")
            .and_then(|rest| rest.rsplit_once('@'))
            .unwrap();
        let basic = data_encoding::BASE64.encode(userinfo.as_bytes());
        let address: std::net::SocketAddr = address.trim_end_matches('/').parse().unwrap();
        let mut wire = e2e::Wire::dial(address).await;
        wire.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
        ))
        .await;
        wire.head().await.status
    };
    limit(&world.gateway, 100_000).await;
    let mut wire = session.tunnel(&target).await;
    wire.send("\0").await;
    let _far = origin.accept().await;
    wire.send(vec![b'x'; 99_999]).await;
    let spent = async || {
        let told = shown(&world.gateway.admin("GET", &path, "").await);
        told["session"]["usage"]["bytes"].as_u64() == Some(100_000)
    };
    eventually("the bytes are counted", spent).await;
    assert_eq!(again(&world.gateway).await, 429);
    kill(&mut world.gateway).await;
    assert_eq!(again(&world.gateway).await, 429);
    limit(&world.gateway, 200_000).await;
    assert_eq!(again(&world.gateway).await, 200);
}

/// The configuration no longer allows what a session was given: paused, by a reload and by a restart alike, and its
/// credential is that of a paused session and not of nobody.
#[tokio::test]
async fn what_the_configuration_pauses_is_paused_after_a_kill_too() {
    let mut world = World::start().await;
    let session = world.session().await;
    let target = world.plain();
    let reason = async |session: &e2e::Session| {
        let (head, mut wire) = session.connect(&target).await;
        let body = String::from_utf8_lossy(&wire.rest().await.0).into_owned();
        (head.status, body.contains("session_paused"))
    };
    let usual = Settings {
        dns: Some(world.dns.address),
        ..Default::default()
    };
    let narrow = Settings {
        runtime: LOOPBACK_PROVIDER.replace(
            "ceiling: {addresses",
            "ceiling: {allowedHosts: [elsewhere.test], addresses",
        ),
        ..usual.clone()
    };
    world.gateway.reconfigure(&narrow);
    world.gateway.cli(&["reload"]).await.succeeded();
    assert_eq!(reason(&session).await, (403, true));
    kill(&mut world.gateway).await;
    assert_eq!(reason(&session).await, (403, true));
    // A start that finds it broken pauses it as well, and the same credential goes on when the configuration allows it again.
    world.gateway.reconfigure(&usual);
    world.gateway.cli(&["reload"]).await.succeeded();
    let resume = ["session", "resume", session.id()];
    world.gateway.cli(&resume).await.succeeded();
    assert_eq!(session.connect(&target).await.0.status, 200);
    world.gateway.reconfigure(&narrow);
    kill(&mut world.gateway).await;
    assert_eq!(reason(&session).await, (403, true));
}

#[tokio::test]
async fn an_owner_is_told_what_is_in_use() {
    let world = World::with(Settings {
        more: "quotas: {owner: {sessions: 2, bytes: 1GiB}}\n".into(),
        ..Default::default()
    })
    .await;
    let ask = Ask {
        more: &["--owner", "ann"],
        ..Default::default()
    };
    world.session_for(ask.clone()).await;
    let second = world.session_for(ask).await;
    let stop = ["session", "stop", second.id()];
    world.gateway.cli(&stop).await.succeeded();
    let list = world.gateway.cli(&["owner", "list"]).await.succeeded();
    assert!(
        list.contains("1 of 2") && list.contains("2 of 10002") && list.contains("of 1073741824"),
        "{list}"
    );
    let show = ["owner", "show", "ann", "--json"];
    let shown = world.gateway.cli(&show).await.succeeded();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["sessions"]["states"]["stopped"], 1, "{shown}");
    let nobody = world.gateway.cli(&["owner", "show", "bob"]).await;
    assert_eq!(nobody.code, Some(4), "{}", nobody.stderr);
    let status = ["status", "--namespace", "default"];
    let status = world.gateway.cli(&status).await.succeeded();
    assert!(status.contains("namespace: default"), "{status}");
    let used = "in use: 1 of - sessions, 2 of - records, 0 of - bytes of logs, ";
    assert!(status.contains(used), "{status}");
    assert!(!status.contains("listener:"), "{status}");
}
