//! A feed of events and the credential its reader came by.
use super::*;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a reader has been told, and its end.
struct Reader {
    body: Body,
    told: String,
}

impl Reader {
    async fn follow(g: &Gateway, name: &str) -> Self {
        let mut request = g.request("GET", "/admin/api/v1/events", "");
        let token = format!("Bearer {name}-0123456789abcdef").parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let response = serve(g.router.clone(), request).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut reader = Self {
            body: response.into_body(),
            told: String::new(),
        };
        reader.until(": ready").await;
        reader
    }

    /// `false`: it has ended.
    async fn next(&mut self) -> bool {
        let frame = timeout(PATIENCE, self.body.frame()).await;
        let Some(frame) = frame.expect("something comes, or the end") else {
            return false;
        };
        let data = frame.unwrap().into_data().unwrap();
        self.told.push_str(std::str::from_utf8(&data).unwrap());
        true
    }

    async fn until(&mut self, words: &str) {
        while !self.told.contains(words) {
            assert!(self.next().await, "it ended before {words}: {}", self.told);
        }
    }

    async fn ends(&mut self) {
        while self.next().await {}
    }
}

/// The credentials of the configuration, without some or with others in their place.
fn reloaded(g: &Gateway, change: impl Fn(&mut Principal) -> bool) {
    let mut sources = credentials(g.fixture.dir.path());
    sources.retain_mut(|source| change(&mut source.principal));
    let others = AdminCredentials::load(&g.token, &sources).unwrap();
    g.credentials.follow(others);
}

#[tokio::test]
async fn a_feed_ends_with_the_credential_of_its_reader() {
    let g = gateway();
    let (mut team, mut other) = (
        Reader::follow(&g, "team").await,
        Reader::follow(&g, "reader").await,
    );
    g.by("team", "POST", SESSIONS, r#"{"id": "first"}"#).await;
    team.until("first").await;
    reloaded(&g, |principal| &*principal.name != "team");
    let path = format!("namespaces/team/{SESSIONS}");
    g.call("POST", &path, r#"{"id": "second"}"#).await;
    team.ends().await;
    assert!(!team.told.contains("second"), "{}", team.told);
    // Nobody else's does.
    other.until("second").await;
}

#[tokio::test]
async fn a_feed_ends_where_its_credential_means_something_else() {
    let g = gateway();
    let mut team = Reader::follow(&g, "team").await;
    let mut other = Reader::follow(&g, "reader").await;
    reloaded(&g, |principal| {
        if &*principal.name == "team" {
            principal.namespaces = Some(["elsewhere".to_owned()].into());
        }
        true
    });
    team.ends().await;
    g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    other.until("session.created").await;
}

/// A reader that has not taken what was sent gets at most that.
#[tokio::test]
async fn a_slow_reader_is_told_nothing_after_its_credential_is_gone() {
    let g = gateway();
    let mut team = Reader::follow(&g, "team").await;
    for index in 0..100 {
        let body = format!(r#"{{"id": "before-{index}", "start": false}}"#);
        let path = format!("namespaces/team/{SESSIONS}");
        assert_eq!(g.call("POST", &path, &body).await.status, 201);
    }
    reloaded(&g, |principal| &*principal.name != "team");
    team.ends().await;
    let told = team.told.matches("session.created").count();
    assert!(told < 100, "{told}: more than was on its way");
}

/// What happens elsewhere is no sign of life to a reader that is not shown it.
#[tokio::test(start_paused = true)]
async fn a_reader_of_a_quiet_namespace_hears_that_the_feed_lives() {
    let g = gateway();
    let mut team = Reader::follow(&g, "team").await;
    for n in 0..3 {
        g.call("POST", SESSIONS, &format!(r#"{{"id": "s{n}"}}"#))
            .await;
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }
    let told = timeout(Duration::from_secs(1), team.until(": alive")).await;
    assert!(told.is_ok(), "{}", team.told);
    assert!(!team.told.contains("session.created"));
}

/// Who is cut off before anything has happened knows from where to go on.
#[tokio::test]
async fn a_feed_that_told_nothing_says_where_it_began() {
    let g = gateway();
    let create = async |id: &str| {
        let body = json!({ "id": id, "start": false }).to_string();
        assert_eq!(g.call("POST", SESSIONS, &body).await.status, 201);
    };
    create("before").await;
    let reader = Reader::follow(&g, "reader").await;
    let (_, began) = reader.told.split_once("id: ").unwrap();
    let began = began.trim_end().to_owned();
    assert!(!reader.told.contains("data"), "{}", reader.told);
    drop(reader);
    create("between").await;
    let mut request = g.request("GET", "/admin/api/v1/events?follow=false", "");
    let headers = request.headers_mut();
    headers.insert("last-event-id", began.parse().unwrap());
    let response = serve(g.router.clone(), request).await.unwrap();
    let told = response.into_body().collect().await.unwrap().to_bytes();
    let told = String::from_utf8(told.into()).unwrap();
    assert!(
        told.contains("between") && !told.contains("before"),
        "{told}"
    );
    assert!(!told.contains("events.reset"), "{told}");
}

/// What others have lost of their history is nothing to whoever sees a part.
#[tokio::test]
async fn a_reader_of_a_part_is_told_of_its_own_losses() {
    let g = gateway();
    let made = g.by("team", "POST", SESSIONS, r#"{"id": "one"}"#).await;
    assert_eq!(made.status, 201);
    let told = |of: &str| {
        let event = crate::store::NewEvent {
            of: of.into(),
            body: b"{}".to_vec(),
        };
        let many = crate::store::Batch {
            events: vec![event; 50],
            keep_events: Some(20),
            ..crate::store::Batch::default()
        };
        g.fixture.registry.store().commit(&many).unwrap();
    };
    let read = async |query: &str| {
        let path = format!("/admin/api/v1/events?follow=false{query}");
        let mut request = g.request("GET", &path, "");
        let token = "Bearer team-0123456789abcdef".parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let response = serve(g.router.clone(), request).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().into()).unwrap()
    };
    told("other");
    let text = read("&after=1").await;
    assert!(text.starts_with("event: session\nid: 2\n"), "{text}");
    assert!(!text.contains("lagged"), "{text}");
    told("team");
    assert!(read("&after=1").await.starts_with("event: lagged\n"));
    // Who reads all there is has lost nothing.
    for beginning in ["", "&after=0"] {
        let text = read(beginning).await;
        assert!(!text.contains("lagged"), "{text}");
    }
}

/// What cannot be read to its end is cut: an end in order would say that there is no more.
#[tokio::test]
async fn a_history_that_cannot_be_read_does_not_end_in_order() {
    let g = gateway();
    let mut reader = Reader::follow(&g, "reader").await;
    let ask = |query: &str| {
        let path = format!("/admin/api/v1/events?{query}");
        serve(g.router.clone(), g.request("GET", &path, ""))
    };
    for number in 0..3 {
        let body = format!(r#"{{"id": "s{number}", "start": false}}"#);
        assert_eq!(g.call("POST", SESSIONS, &body).await.status, 201);
    }
    // Between two looks of the sweep: the answer has begun before the store is read.
    let store = g.fixture.store_path();
    let mut bytes = std::fs::read(&store).unwrap();
    bytes[4096..].fill(0x5a);
    std::fs::write(&store, bytes).unwrap();
    g.fixture.registry.store().verify().unwrap_err();
    assert!(g.fixture.registry.index().readable());
    let response = ask("follow=false").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err());
    // And noticed: there is no answer of 200 any more, nor any that somebody would be let in.
    g.fixture.sweep(std::time::SystemTime::now());
    assert_eq!(ask("follow=false").await.unwrap().status(), 503);
    let explain = r#"{"session": "s1", "target": "api.example.com"}"#;
    let asked = g.call("POST", "policy:explain", explain).await;
    assert_eq!(asked.status, 503, "{}", asked.body);
    let checked = "runtime/providers/local/placements:check";
    assert_eq!(g.call("POST", checked, "{}").await.status, 503);
    // Whoever follows what happens from now on needs no history.
    assert_eq!(ask("follow=true").await.unwrap().status(), 200);
    reader.until("s2").await;
}

/// What happened, and by whom: the name of the credential and what it may do, and nobody where it was the gateway itself.
#[tokio::test]
async fn events_say_by_which_credential_something_was_asked_for() {
    let g = gateway();
    let body = r#"{"id": "one", "ttl": "10s", "idleTimeout": 0}"#;
    let made = g.by("operator", "POST", SESSIONS, body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let paused = g.call("POST", &format!("{SESSIONS}/one:pause"), "").await;
    assert_eq!(paused.status, 200, "{}", paused.body);
    let resumed = g.call("POST", &format!("{SESSIONS}/one:resume"), "").await;
    assert_eq!(resumed.status, 200, "{}", resumed.body);
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    g.fixture.sweep(later);
    let id = json!({ "credential": "AAAAAAAAAAAAAAAAAAAAAA" }).to_string();
    g.by("team", "POST", "credentials:revoke", &id).await;
    let events = g.fixture.registry.events_after(0, 100).await.unwrap();
    let told: Vec<(String, Value)> = events
        .iter()
        .map(|event| {
            let event: Value = serde_json::from_slice(&event.body).unwrap();
            let kind = event["type"].as_str().unwrap().to_owned();
            (kind, event["by"].clone())
        })
        .collect();
    let by = |credential: &str, scope: &str| json!({ "credential": credential, "scope": scope });
    let expected = [
        ("session.created", by("operator", "operate")),
        ("session.started", by("operator", "operate")),
        ("session.paused", by("admin", "admin")),
        ("session.resumed", by("admin", "admin")),
        ("session.expired", Value::Null),
        ("credential.revoked", by("team", "admin")),
    ];
    let expected = expected.map(|(kind, by)| (kind.to_owned(), by));
    assert_eq!(told, expected);
}

/// An id that is revoked within a namespace is told to whoever sees all of that namespace, and to nobody else.
#[tokio::test]
async fn what_is_revoked_within_a_namespace_is_told_there() {
    let g = gateway();
    let (mut team, mut hers) = (
        Reader::follow(&g, "team").await,
        Reader::follow(&g, "ann").await,
    );
    let id = json!({ "credential": "AAAAAAAAAAAAAAAAAAAAAA" }).to_string();
    for by in ["team", "two"] {
        let revoked = g.by(by, "POST", "credentials:revoke", &id).await;
        assert_eq!(revoked.status, 200, "{}", revoked.body);
    }
    g.by("ann", "POST", SESSIONS, r#"{"id": "hers"}"#).await;
    team.until("hers").await;
    hers.until("hers").await;
    assert_eq!(team.told.matches("credential.revoked").count(), 2);
    assert_eq!(
        team.told.matches(r#""namespace":"team","reason""#).count(),
        2
    );
    assert!(!hers.told.contains("credential.revoked"), "{}", hers.told);
}
