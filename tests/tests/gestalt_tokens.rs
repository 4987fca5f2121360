//! Tokens as gestaltd mints them: its SDK's client over the relay, curl through the proxy, and what ends them. The tokens
//! are minted here, by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use e2e::program::{Running, present, tools};
use e2e::{Ask, Program, Session, Settings, Wire, World};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KEY: [u8; 32] = [0x5c; 32];

/// HMAC-SHA256 (RFC 2104), in as many words: the gateway's own is another's.
fn hmac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

/// As gestaltd's library writes one: the audience is a list.
fn mint(audience: &str, session: &str, id: &str, more: Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let mut claims = json!({
        "iss": "gestaltd", "sub": "support", "aud": [audience], "exp": now + 3600, "nbf": now, "iat": now,
        "jti": id, "plugin": "support", "session_id": session,
    });
    for (key, value) in more.as_object().unwrap() {
        claims[key] = value.clone();
    }
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&claims)
    );
    let mac = BASE64URL_NOPAD.encode(&hmac(&KEY, message.as_bytes()));
    format!("{message}.{mac}")
}

fn for_cache(session: &str, id: &str) -> String {
    let cache = json!({
        "service": "cache", "env_var": "GESTALT_CACHE_SOCKET", "method_prefix": "/gestalt.provider.v1.Cache/",
    });
    mint("gestalt-host-service-relay", session, id, cache)
}

fn for_hosts(session: &str, id: &str, hosts: &[&str]) -> String {
    let hosts = json!({ "allowed_hosts": hosts, "default_action": "allow" });
    mint("gestalt-egress-proxy", session, id, hosts)
}

/// A gateway that accepts them, a cache of the SDK's own behind it, and an origin.
async fn world(more: &str) -> (World, Running, Session) {
    let directory = tempfile::tempdir().unwrap().keep();
    let (key, socket) = (directory.join("gestalt.key"), directory.join("cache.sock"));
    std::fs::write(&key, data_encoding::HEXLOWER.encode(&KEY)).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key, private).unwrap();
    let provider = Program::new(present(&tools().join("gestalt/debug/gestalt-cache")))
        .arg("serve")
        .env("GESTALT_PROVIDER_SOCKET", &socket)
        .start(&directory.join("cache.log"));
    e2e::until("the provider's socket", || socket.exists().then_some(())).await;
    let settings = Settings {
        more: format!(
            "services: {{cache: \"unix://{}\"}}\n\
             compat: {{gestalt: {{keyFile: {}, services: [cache], {more}, \
             ceiling: {{allowedHosts: [\"*.allowed.test:*\"], addresses: [\"127.0.0.0/8\", \"::1/128\"]}}}}}}\n",
            socket.display(),
            key.display(),
        ),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let session = world
        .session_for(Ask {
            services: &["cache"],
            allow: &["*.allowed.test:*", "other.test:*"],
            ..Ask::default()
        })
        .await;
    (world, provider, session)
}

/// The SDK's own client, with this token in the place of the gateway's.
async fn uses_cache(session: &Session, token: &str) -> Result<String, String> {
    let client = present(&tools().join("gestalt/debug/gestalt-cache"));
    let run = session
        .program(Program::new(&client).arg("use"))
        .env("GESTALT_HOST_SERVICE_TOKEN", token)
        .run()
        .await;
    match run.code {
        Some(0) => Ok(run.text()),
        _ => Err(run.stderr),
    }
}

/// What a CONNECT with this token is answered, as gestaltd's proxy URL has it.
async fn connect(world: &World, token: &str, target: &str) -> (u16, Wire) {
    let basic = BASE64.encode(format!("gestalt-egress-proxy:{token}").as_bytes());
    let mut wire = Wire::dial(world.gateway.ports.plain).await;
    wire.send(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
    ))
    .await;
    (wire.head().await.status, wire)
}

async fn tunnel(world: &World, token: &str, target: &str) -> Wire {
    let (status, mut wire) = connect(world, token, target).await;
    assert_eq!(status, 200);
    wire.send(b"\x00ping").await;
    wire
}

#[tokio::test]
async fn the_sdk_and_the_proxy_with_sessions_verified() {
    let (mut world, _provider, session) = world("provider: test").await;
    let id = session.id().to_owned();
    let relay = for_cache(&id, "2f1c0f9e-0000-4000-8000-000000000001");
    let egress = for_hosts(
        &id,
        "2f1c0f9e-0000-4000-8000-000000000002",
        &["api.allowed.test", "raw.allowed.test", "other.test"],
    );
    assert_eq!(uses_cache(&session, &relay).await.unwrap(), "cache ok\n");
    // Any port, where the token names none; and nothing that the session or the ceiling lacks.
    assert_eq!(connect(&world, &egress, &world.api()).await.0, 200);
    for denied in ["plain.allowed.test:443", "other.test:443", "evil.test:443"] {
        assert_eq!(connect(&world, &egress, denied).await.0, 403, "{denied}");
    }
    // Each is good for its own purpose only, and nobody else's is good for anything.
    assert_eq!(connect(&world, &relay, &world.api()).await.0, 407);
    let unknown = for_hosts(
        "nobody",
        "2f1c0f9e-0000-4000-8000-000000000003",
        &["api.allowed.test"],
    );
    assert_eq!(connect(&world, &unknown, &world.api()).await.0, 407);
    let refused = uses_cache(&session, &egress).await.unwrap_err();
    assert!(refused.contains("invalid-host-service-relay"), "{refused}");
    let record = world
        .gateway
        .record("the tunnel's record", |record| {
            record.text("target") == world.api() && record.text("outcome") != "refused"
        })
        .await;
    assert_eq!(record.0["session"]["id"], session.json["id"], "{record:?}");
    assert!(!record.mentions(&egress), "the credential is in the record");

    // A kill and a restart: the same token works, a revoked one does not.
    let revoked = for_hosts(
        &id,
        "2f1c0f9e-0000-4000-8000-000000000004",
        &["api.allowed.test"],
    );
    assert_eq!(connect(&world, &revoked, &world.api()).await.0, 200);
    let body = json!({ "credential": revoked }).to_string();
    let answer = world
        .gateway
        .admin("POST", "/credentials:revoke", &body)
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    world.gateway.process.signal(Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    assert_eq!(connect(&world, &revoked, &world.api()).await.0, 407);
    assert_eq!(connect(&world, &egress, &world.api()).await.0, 200);
    assert_eq!(uses_cache(&session, &relay).await.unwrap(), "cache ok\n");

    // The session ends, and its tokens with it: what is open, and what comes.
    let (_origin, raw) = world.raw_origin().await;
    let mut open = tunnel(&world, &egress, &raw).await;
    session.revoke(&world.gateway).await;
    assert!(open.cut().await < Duration::from_secs(5));
    assert_eq!(connect(&world, &egress, &world.api()).await.0, 407);
    uses_cache(&session, &relay).await.unwrap_err();
}

#[tokio::test]
async fn trusted_tokens_need_no_session_and_end_by_their_id() {
    let (world, _provider, session) = world("verifySessions: trust-token, provider: test").await;
    let (first, second) = (
        "2f1c0f9e-0000-4000-8000-00000000000a",
        "2f1c0f9e-0000-4000-8000-00000000000b",
    );
    let egress = for_hosts("elsewhere", first, &["*.allowed.test"]);
    let other = for_hosts("elsewhere", second, &["*.allowed.test"]);
    assert_eq!(connect(&world, &egress, &world.api()).await.0, 200);
    assert_eq!(connect(&world, &egress, "other.test:443").await.0, 403);
    let relay = for_cache("elsewhere", "2f1c0f9e-0000-4000-8000-00000000000c");
    assert_eq!(uses_cache(&session, &relay).await.unwrap(), "cache ok\n");
    let (_origin, raw) = world.raw_origin().await;
    let mut open = tunnel(&world, &egress, &raw).await;
    let mut spared = tunnel(&world, &other, &raw).await;
    let body = json!({ "credential": first }).to_string();
    let answer = world
        .gateway
        .admin("POST", "/credentials:revoke", &body)
        .await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    open.cut().await;
    assert_eq!(connect(&world, &egress, &world.api()).await.0, 407);
    spared.stays_quiet().await;
    assert_eq!(connect(&world, &other, &world.api()).await.0, 200);
    // Ids are of others' making: whatever is accepted can be revoked by its id.
    let word = for_hosts("elsewhere", "j1795-0001", &["*.allowed.test"]);
    assert_eq!(connect(&world, &word, &world.api()).await.0, 200);
    for (id, known) in [("j1795-0001", true), ("j1795-0002", false)] {
        let body = json!({ "credential": id }).to_string();
        let answer = world.gateway.admin("POST", "/credentials:revoke", &body);
        let answer = answer.await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.json()["known"], known, "{id}");
    }
    assert_eq!(connect(&world, &word, &world.api()).await.0, 407);
}

#[tokio::test]
async fn without_a_key_and_a_ceiling_they_are_nobodys() {
    let world = World::start().await;
    let session = world.session().await;
    let token = for_hosts(
        session.id(),
        "2f1c0f9e-0000-4000-8000-000000000001",
        &["*.allowed.test"],
    );
    assert_eq!(connect(&world, &token, &world.api()).await.0, 407);
}
