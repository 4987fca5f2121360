//! `kill -9` at random moments: nothing that was acknowledged is lost, and nothing revoked comes back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use e2e::{gateway::serve, program::Running, tasks::free_port};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Rounds, each of them one kill.
const KILLS: u64 = 200;
const SESSIONS: &str = "/admin/api/v1/runtime/providers/local/sessions";

/// What was acknowledged of one session.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    state: &'static str,
    generation: u64,
    policy: u64,
    log: u64,
}

/// A request over the admin socket; nothing where the gateway died before it answered.
async fn call(state: &Path, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
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
    let answer = String::from_utf8(answer).ok()?;
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
        return Some(read(&told, 0));
    };
    if turn % 4 == 3 {
        let body = r#"{"records": [{"stream": "stdout", "text": "x"}]}"#;
        let (status, told) = call(state, "POST", &format!("{path}/logs"), body).await?;
        assert_eq!(status, 200, "{told}");
        return Some(Known {
            log: told["last"].as_u64().unwrap(),
            ..known.clone()
        });
    }
    let (method, path, body) = match (turn % 4, known.state) {
        (0, _) => {
            let host = format!("h{turn}.example.com");
            ("PATCH", path, json!({ "allow": [host] }).to_string())
        }
        (_, "running") => ("POST", format!("{path}:reset"), String::new()),
        _ => ("POST", format!("{path}:start"), String::new()),
    };
    let (status, told) = call(state, method, &path, &body).await?;
    // A reset that was durable and not answered is 409 when it is asked again.
    if status == 409 {
        let (_, told) = call(state, "GET", path.trim_end_matches(":reset"), "").await?;
        return Some(read(&told, known.log));
    }
    assert_eq!(status, 200, "{told}");
    Some(read(&told, known.log))
}

fn read(told: &Value, log: u64) -> Known {
    let session = &told["session"];
    Known {
        state: if session["state"] == "running" {
            "running"
        } else {
            "idle"
        },
        generation: session["generation"].as_u64().unwrap(),
        policy: session["policyGeneration"].as_u64().unwrap(),
        log,
    }
}

/// Changes sessions until the gateway is gone. What was under way may or may not have become durable.
async fn work(state: &Path, lane: u64, known: &mut BTreeMap<String, Known>) -> Option<String> {
    for turn in 0.. {
        let id = format!("l{lane}-{}", turn % 3);
        match change(state, &id, known.get(&id), turn).await {
            Some(now) => known.insert(id, now),
            None => return Some(id),
        };
    }
    None
}

/// Everything acknowledged is there. Of the one session whose answer did not come, one more change may have been made
/// durable, and it is known from now on; none that was told is undone.
async fn verify(state: &Path, lane: &mut BTreeMap<String, Known>, doubtful: Option<&str>) {
    for (id, known) in lane {
        let (status, told) = call(state, "GET", &format!("{SESSIONS}/{id}"), "")
            .await
            .expect("an answer");
        assert_eq!(status, 200, "{id} was acknowledged and is gone: {known:?}");
        let path = format!("{SESSIONS}/{id}/logs?limit=1");
        let (_, log) = call(state, "GET", &path, "").await.expect("an answer");
        let found = read(&told, log["last"].as_u64().unwrap());
        if doubtful != Some(id) {
            assert_eq!(found, *known, "{id}");
            continue;
        }
        let more = |found: u64, known: u64| (known..=known + 1).contains(&found);
        assert!(
            more(found.generation, known.generation)
                && more(found.policy, known.policy)
                && more(found.log, known.log),
            "{id}: {found:?}, acknowledged {known:?}"
        );
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
         runtime: {{providers: {{local: {{session: {{idleTimeout: 0}}}}}}}}\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let mut known: [BTreeMap<String, Known>; 2] = Default::default();
    let mut doubtful = [None, None];
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for kill in 0..KILLS {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let mut process = serve(&config, directory.path());
        ready(&mut process, &state).await;
        for (lane, doubtful) in known.iter_mut().zip(&doubtful) {
            verify(&state, lane, doubtful.as_deref()).await;
        }
        let [first, second] = &mut known;
        let axe = async {
            tokio::time::sleep(Duration::from_micros(dice % 60_000)).await;
            process.signal(Signal::KILL);
        };
        let (a, b, ()) = tokio::join!(work(&state, 1, first), work(&state, 2, second), axe);
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
    assert!(
        sessions >= 2 && generations > KILLS / 10,
        "hardly anything happened: {known:?}"
    );
}
