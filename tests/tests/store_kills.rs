//! `kill -9` at random moments: nothing that was acknowledged is lost, and nothing revoked comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use e2e::{gateway::serve, program::Running, tasks::free_port, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

/// Rounds, each of them one kill.
const KILLS: u64 = 200;
const SESSIONS: &str = "/admin/api/v1/runtime/providers/local/sessions";

/// What was acknowledged of one session.
#[derive(Clone, Debug, PartialEq, Default)]
struct Known {
    state: String,
    generation: u64,
    policy: u64,
    log: u64,
    /// Capabilities it is bound to.
    bound: usize,
    /// Credentials of its present generation: a handle and a signed token.
    credentials: Vec<String>,
    /// Credentials that were revoked one by one.
    revoked: Vec<String>,
}

/// A request over the admin socket; nothing where the gateway died before it answered.
async fn raw(state: &Path, method: &str, path: &str, body: &str) -> Option<String> {
    let token = std::fs::read_to_string(state.join("admin.token")).ok()?;
    let mut stream = UnixStream::connect(state.join("admin.sock")).await.ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    String::from_utf8(answer).ok()
}

/// The same of an answer that is JSON.
async fn call(state: &Path, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let answer = raw(state, method, path, body).await?;
    let status: u16 = answer.split(' ').nth(1)?.parse().ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    // An answer that was cut is none.
    let length: usize = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    })?;
    (body.len() == length).then(|| (status, serde_json::from_str(body).unwrap_or_default()))
}

async fn ready(process: &mut Running, state: &Path) {
    let deadline = Instant::now() + e2e::tasks::PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        assert!(process.ended().is_none(), "{}", process.said());
        if let Some((200, _)) = call(state, "GET", "/readyz", "").await {
            return;
        }
        assert!(Instant::now() < deadline, "never ready: {}", process.said());
        tick.tick().await;
    }
}

/// One change of one session; what is known of it afterwards, or nothing where no answer came.
async fn change(state: &Path, id: &str, known: Option<&Known>, turn: u64) -> Option<Known> {
    let path = format!("{SESSIONS}/{id}");
    let Some(known) = known else {
        let body = json!({ "id": id, "allow": ["a.example.com"] }).to_string();
        let (status, told) = call(state, "POST", SESSIONS, &body).await?;
        // A create that was durable and not answered is answered by its replay.
        assert!(matches!(status, 200 | 201), "{told}");
        return Some(read(&told, &Known::default()));
    };
    let running = known.state == "running";
    let (method, path, body) = match turn % 7 {
        0 => {
            let host = format!("h{turn}.example.com");
            ("PATCH", path, json!({ "allow": [host] }).to_string())
        }
        1 => {
            let body = r#"{"records": [{"stream": "stdout", "text": "x"}]}"#;
            let (status, told) = call(state, "POST", &format!("{path}/logs"), body).await?;
            assert_eq!(status, 200, "{told}");
            let log = told["last"].as_u64().unwrap();
            return Some(Known {
                log,
                ..known.clone()
            });
        }
        2 if known.bound == 0 => ("POST", format!("{path}/capabilities/more"), String::new()),
        2 => ("DELETE", format!("{path}/capabilities/more"), String::new()),
        3 if !known.credentials.is_empty() => {
            let mut after = known.clone();
            let one = after.credentials.remove(0);
            after.revoked.push(one.clone());
            let body = json!({ "credential": one }).to_string();
            let revoke = "/admin/api/v1/credentials:revoke";
            let (status, told) = call(state, "POST", revoke, &body).await?;
            // Revoked, durable and not answered: it is unknown when it is asked again.
            assert!(matches!(status, 200 | 404), "{told}");
            return Some(after);
        }
        4 if running => ("POST", format!("{path}:pause"), String::new()),
        5 if known.state == "paused" => ("POST", format!("{path}:resume"), String::new()),
        6 if running => ("POST", format!("{path}:reset"), String::new()),
        _ => ("POST", format!("{path}:start"), String::new()),
    };
    let (status, told) = call(state, method, &path, &body).await?;
    // A reset or an uninstallation that was durable and not answered has nothing to do when it is asked again.
    if matches!(status, 404 | 409) {
        let (_, told) = call(state, "GET", &format!("{SESSIONS}/{id}"), "").await?;
        return Some(read(&told, known));
    }
    assert!(matches!(status, 200 | 201), "{method} {path}: {told}");
    Some(read(&told, known))
}

/// What an answer adds to what was known.
fn read(told: &Value, known: &Known) -> Known {
    let session = &told["session"];
    let generation = session["generation"].as_u64().unwrap();
    let mut credentials = known.credentials.clone();
    if generation != known.generation || session["state"] == "idle" {
        credentials.clear();
    }
    if let Some(proxy) = told["env"]["HTTP_PROXY"].as_str() {
        let handle = proxy.split(['@', ':']).nth(2).unwrap();
        let token = told["env"]["SLUICEGATE_PROXY_TOKEN"].as_str().unwrap();
        credentials = vec![handle.to_owned(), token.to_owned()];
    }
    Known {
        state: session["state"].as_str().unwrap().to_owned(),
        generation,
        policy: session["policyGeneration"].as_u64().unwrap(),
        bound: session["capabilities"].as_array().unwrap().len(),
        credentials,
        ..known.clone()
    }
}

/// Does the proxy take this credential?
async fn is_taken(proxy: SocketAddr, credential: &str) -> bool {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let head = format!(
        "CONNECT nowhere.example.org:443 HTTP/1.1\r\nHost: nowhere.example.org:443\r\n\
         Proxy-Authorization: Bearer {credential}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    let status = String::from_utf8_lossy(&status).into_owned();
    assert!(
        status.ends_with("403") || status.ends_with("407"),
        "{status}"
    );
    status.ends_with("403")
}

/// The stored events: each a number above the one before it, and what was read of them once is still so.
#[derive(Default)]
struct Events {
    last: u64,
    text: String,
}

impl Events {
    async fn verify(&mut self, state: &Path) {
        let before = self.last.saturating_sub(1);
        let path = format!("/admin/api/v1/events?follow=false&after={before}");
        let told = raw(state, "GET", &path, "").await.expect("an answer");
        let mut next = self.last;
        for message in told.split("event: session").skip(1) {
            let id = message.split_once("id: ").unwrap().1;
            let (id, data) = id.split_once('\n').unwrap();
            let id: u64 = id.parse().unwrap();
            // What follows the line is the framing of chunks.
            let data = data.lines().next().unwrap();
            if id == self.last {
                assert_eq!(data, self.text, "event {id} is another one now");
                continue;
            }
            assert_eq!(id, next + 1, "{told}");
            next = id;
            data.clone_into(&mut self.text);
        }
        assert!(
            next >= self.last && !told.contains("event: reset"),
            "{told}"
        );
        self.last = next;
    }
}

/// Changes sessions until the gateway is gone, beginning with this turn, and counts. What was under way may or may not have become durable.
async fn work(
    state: &Path,
    lane: u64,
    first: u64,
    known: &mut BTreeMap<String, Known>,
    acknowledged: &Cell<u64>,
) -> Option<String> {
    for turn in first.. {
        let id = format!("l{lane}-{}", turn % 3);
        match change(state, &id, known.get(&id), turn).await {
            Some(now) => known.insert(id, now),
            None => return Some(id),
        };
        acknowledged.set(acknowledged.get() + 1);
    }
    None
}

/// Everything acknowledged is there. Of the one session whose answer did not come, one more change may have been made
/// durable, and it is known from now on; none that was told is undone.
async fn verify(
    state: &Path,
    proxy: SocketAddr,
    lane: &mut BTreeMap<String, Known>,
    doubtful: Option<&str>,
) {
    for (id, known) in lane {
        let (status, told) = call(state, "GET", &format!("{SESSIONS}/{id}"), "")
            .await
            .expect("an answer");
        assert_eq!(status, 200, "{id} was acknowledged and is gone: {known:?}");
        let path = format!("{SESSIONS}/{id}/logs?limit=1");
        let (_, log) = call(state, "GET", &path, "").await.expect("an answer");
        let mut found = read(&told, known);
        found.log = log["last"].as_u64().unwrap();
        for revoked in known.revoked.iter().rev().take(2) {
            assert!(!is_taken(proxy, revoked).await, "{id}: a revoked one works");
        }
        if doubtful != Some(id) {
            assert_eq!(found, *known, "{id}");
            if known.state == "running" {
                for credential in &known.credentials {
                    assert!(is_taken(proxy, credential).await, "{id}: {known:?}");
                }
            }
            continue;
        }
        let more = |found: u64, known: u64| (known..=known + 1).contains(&found);
        assert!(
            more(found.generation, known.generation)
                && more(found.policy, known.policy)
                && more(found.log, known.log),
            "{id}: {found:?}, acknowledged {known:?}"
        );
        // Which of its credentials were withdrawn, or given, is not known any more.
        found.credentials.clear();
        *known = found;
    }
}

#[tokio::test]
async fn two_hundred_kills_lose_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (config, state) = (
        directory.path().join("sluicegate.yaml"),
        directory.path().join("state"),
    );
    let port = SocketAddr::from(([127, 0, 0, 1], free_port().await));
    let yaml = format!(
        "listeners: [{{kind: plain, address: \"{port}\"}}]\ntelemetry: {{accessLog: none}}\n\
         capabilities: {{more: {{egress: {{allowedHosts: [more.example.com]}}}}}}\n\
         runtime: {{providers: {{local: {{session: {{idleTimeout: 0}}}}}}}}\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let mut known: [BTreeMap<String, Known>; 2] = Default::default();
    let mut doubtful = [None, None];
    let mut events = Events::default();
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for kill in 0..KILLS {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let mut process = serve(&config, directory.path());
        ready(&mut process, &state).await;
        for (lane, doubtful) in known.iter_mut().zip(&doubtful) {
            verify(&state, port, lane, doubtful.as_deref()).await;
        }
        events.verify(&state).await;
        let [first, second] = &mut known;
        let acknowledged = Cell::new(0);
        // After so many changes, however long they take, and at any moment of those that are under way then.
        let axe = async {
            let enough = || (acknowledged.get() >= dice % 16).then_some(());
            until("some changes", enough).await;
            tokio::time::sleep(Duration::from_micros(dice % 20_000)).await;
            process.signal(Signal::KILL);
        };
        // Each kind of change is first now and then.
        let (a, b, ()) = tokio::join!(
            work(&state, 1, 4 * kill, first, &acknowledged),
            work(&state, 2, 4 * kill, second, &acknowledged),
            axe
        );
        doubtful = [a, b];
        process.wait("the kill").await;
        assert!(
            !process.said().contains("panicked"),
            "kill {kill}: {}",
            process.said()
        );
    }
    let sessions: usize = known.iter().map(BTreeMap::len).sum();
    let generations: u64 = known
        .iter()
        .flat_map(BTreeMap::values)
        .map(|k| k.generation)
        .sum();
    let revoked: usize = known
        .iter()
        .flat_map(BTreeMap::values)
        .map(|k| k.revoked.len())
        .sum();
    assert!(
        sessions >= 2 && generations > sessions as u64 && revoked > 10 && events.last > KILLS,
        "hardly anything happened: {sessions} sessions, {generations} generations, {revoked} revoked, {} events",
        events.last
    );
}
