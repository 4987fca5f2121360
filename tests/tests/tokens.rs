//! Relay tokens exchanged for fresh ones on the public and the plain listener.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::{Session, World, web};
use serde_json::Value;

const PATH: &str = "/relay/v1/token";

/// What the plain listener answers: status and body.
async fn exchange(world: &World, token: &str) -> (u16, Value) {
    let credential = format!("Authorization: Bearer {token}\r\n");
    let reply = web::request(world.gateway.ports.plain, "POST", PATH, &credential, "").await;
    let body = serde_json::from_slice(&reply.body).unwrap_or_default();
    (reply.status(), body)
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes());
    serde_json::from_slice(&bytes.unwrap()).unwrap()
}

fn token(session: &Session) -> &str {
    session.variable("SLUICEGATE_RELAY_TOKEN")
}

#[tokio::test]
async fn a_live_token_is_exchanged_and_a_dead_one_is_not() {
    let mut world = World::start().await;
    let session = world.session().await;
    let old = token(&session).to_owned();
    let (status, told) = exchange(&world, &old).await;
    assert_eq!(status, 200, "{told}");
    let fresh = told["token"].as_str().unwrap().to_owned();
    assert!(told["expiresAt"].is_string(), "{told}");
    let (before, after) = (claims(&old), claims(&fresh));
    assert_ne!(before["jti"], after["jti"]);
    for claim in ["iss", "aud", "sub", "ns", "prv", "sid", "gen"] {
        assert_eq!(before[claim], after[claim], "{claim}");
    }
    // Over TLS too, and after a rotation of keys and a kill.
    world.gateway.cli(&["keys", "rotate"]).await.succeeded();
    world.gateway.process.signal(rustix::process::Signal::KILL);
    world.gateway.process.wait("the kill").await;
    world.gateway.restart().await;
    let wire = e2e::Wire::dial(world.gateway.ports.public).await;
    let tls = session.gateway_tls(&[b"http/1.1"]);
    let mut wire = wire.tls(tls, "127.0.0.1").await;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {fresh}\r\nContent-Length: 0\r\n\r\n"
    );
    wire.send(head).await;
    assert_eq!(wire.reply().await.status(), 200);

    world
        .gateway
        .cli(&["session", "pause", session.id()])
        .await
        .succeeded();
    let (status, told) = exchange(&world, &fresh).await;
    assert_eq!(
        (status, told["reason"].as_str()),
        (403, Some("session_paused"))
    );
    world
        .gateway
        .cli(&["session", "resume", session.id()])
        .await
        .succeeded();
    // One that is revoked by its id takes its line, and leaves the others of its generation.
    let start = format!("/runtime/providers/test/sessions/{}:start", session.id());
    let other = world.gateway.admin("POST", &start, "").await.json();
    let other = other["env"]["SLUICEGATE_RELAY_TOKEN"].as_str().unwrap();
    let body = serde_json::json!({ "credential": after["jti"] }).to_string();
    let revoked = world.gateway.admin("POST", "/credentials:revoke", &body);
    assert_eq!(revoked.await.status(), 200);
    for of_the_line in [&fresh, &old] {
        assert_eq!(exchange(&world, of_the_line).await.0, 401);
    }
    assert_eq!(exchange(&world, other).await.0, 200);
    session.revoke(&world.gateway).await;
    assert_eq!(exchange(&world, other).await.0, 401);
}

#[tokio::test]
async fn whatever_is_no_living_token_gets_one_and_the_same_answer() {
    let world = World::start().await;
    let (session, other) = (world.session().await, world.session().await);
    let good = token(&session);
    let parts: Vec<&str> = good.split('.').collect();
    let encode =
        |value: &Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = |change: &dyn Fn(&mut Value)| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(parts[0].as_bytes());
        let mut header: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
        change(&mut header);
        format!("{}.{}.{}", encode(&header), parts[1], parts[2])
    };
    let body = |change: &dyn Fn(&mut Value)| {
        let mut body = claims(good);
        change(&mut body);
        format!("{}.{}.{}", parts[0], encode(&body), parts[2])
    };
    let foreign = token(&other).split('.').collect::<Vec<_>>();
    let jwks = web::fetch(world.gateway.ports.plain, "/.well-known/jwks.json").await;
    let jwks: Value = serde_json::from_slice(&jwks.body).unwrap();
    // Key confusion: the published key as the secret of a symmetric signature.
    let confused = {
        let head = serde_json::json!({"alg": "HS256", "typ": "JWT", "kid": jwks["keys"][0]["kid"]});
        let message = format!("{}.{}", encode(&head), parts[1]);
        let script = "import hmac,hashlib,base64,sys;k=base64.urlsafe_b64decode(sys.argv[1]+'==');print(base64.urlsafe_b64encode(hmac.new(k,sys.argv[2].encode(),hashlib.sha256).digest()).decode().rstrip('='))";
        let key = jwks["keys"][0]["x"].as_str().unwrap();
        let output = std::process::Command::new("python3")
            .args(["-c", script, key, &message])
            .output()
            .unwrap();
        format!(
            "{message}.{}",
            String::from_utf8(output.stdout).unwrap().trim()
        )
    };
    let attacks = [
        ("nothing", String::new()),
        ("rubbish", "a.b.c".to_owned()),
        ("handle", session.handle().to_owned()),
        ("alg none", header(&|h| h["alg"] = "none".into())),
        ("alg none, unsigned", {
            let none = header(&|h| h["alg"] = "none".into());
            none.rsplit_once('.').unwrap().0.to_owned() + "."
        }),
        ("another alg", header(&|h| h["alg"] = "HS256".into())),
        ("key confusion", confused),
        (
            "no kid",
            header(&|h| {
                h.as_object_mut().unwrap().remove("kid");
            }),
        ),
        (
            "kid of a path",
            header(&|h| h["kid"] = "../../admin.token".into()),
        ),
        (
            "kid of a list",
            header(&|h| h["kid"] = serde_json::json!(["a"])),
        ),
        (
            "a key of its own",
            header(&|h| h["jwk"] = jwks["keys"][0].clone()),
        ),
        ("crit", header(&|h| h["crit"] = serde_json::json!(["exp"]))),
        (
            "no exp",
            body(&|b| {
                b.as_object_mut().unwrap().remove("exp");
            }),
        ),
        ("exp as text", body(&|b| b["exp"] = "9999999999".into())),
        (
            "exp as a fraction",
            body(&|b| b["exp"] = 9_999_999_999.5.into()),
        ),
        ("later exp", body(&|b| b["exp"] = 9_999_999_999_u64.into())),
        (
            "another audience",
            body(&|b| b["aud"] = "sluicegate-admin".into()),
        ),
        (
            "a list of audiences",
            body(&|b| b["aud"] = serde_json::json!(["sluicegate-relay"])),
        ),
        ("another session", body(&|b| b["sid"] = other.id().into())),
        ("another generation", body(&|b| b["gen"] = 2.into())),
        (
            "claims of another under this signature",
            format!("{}.{}.{}", parts[0], foreign[1], parts[2]),
        ),
        (
            "signature of another",
            format!("{}.{}.{}", parts[0], parts[1], foreign[2]),
        ),
        ("padded", format!("{good}=")),
        ("doubled", format!("{good}.{good}")),
    ];
    let (_, expected) = exchange(&world, "x.y.z").await;
    for (what, attack) in attacks {
        let (status, mut told) = exchange(&world, &attack).await;
        assert_eq!(status, 401, "{what}: {told}");
        if what == "nothing" {
            continue;
        }
        // But for the number of the request, nobody learns which it was.
        told["requestId"] = expected["requestId"].clone();
        assert_eq!(told, expected, "{what}");
    }
    assert_eq!(exchange(&world, good).await.0, 200, "the real one is good");
}

/// Signed by the gateway's own key, each of them, so that it is not the signature that gives them away.
#[tokio::test]
async fn what_is_well_signed_and_says_something_else_gets_the_same_answer() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key.pem");
    openssl_key(&key);
    let settings = e2e::Settings {
        more: format!("\nkeys: {{signingKeyFile: \"{}\"}}\n", key.display()),
        ..e2e::Settings::default()
    };
    let world = World::with(settings).await;
    let (session, other) = (world.session().await, world.session().await);
    let good = token(&session);
    let part = |place: usize| -> Value {
        let part = good.split('.').nth(place).unwrap();
        let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes());
        serde_json::from_slice(&bytes.unwrap()).unwrap()
    };
    let (header, body) = (part(0), part(1));
    // Null: it is missing.
    let changed = |from: &Value, name: &str, value: Value| {
        let mut changed = from.clone();
        match value {
            Value::Null => drop(changed.as_object_mut().unwrap().remove(name)),
            value => changed[name] = value,
        }
        changed
    };
    let signed = |header: &Value, body: &Value| {
        let parts = [header, body]
            .map(|part| data_encoding::BASE64URL_NOPAD.encode(part.to_string().as_bytes()));
        let message = parts.join(".");
        let signature = openssl_signs(&key, &message);
        format!("{message}.{signature}")
    };
    // Whether it would open streams now.
    let proof = async |token: &str| {
        let credential = format!("Authorization: Bearer {token}\r\n");
        let plain = world.gateway.ports.plain;
        let reply = web::request(plain, "GET", "/relay/v1/", &credential, "").await;
        let mut told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if let Some(number) = told.get_mut("requestId") {
            *number = Value::Null;
        }
        (reply.status(), told)
    };
    let another = changed(&body, "jti", "AAAAAAAAAAAAAAAAAAAAAA".into());
    assert_eq!(proof(&signed(&header, &another)).await.0, 204, "it signs");

    let now = body["iat"].as_u64().unwrap();
    let end = body["exp"].as_u64().unwrap();
    let mut attacks = Vec::new();
    for (name, value) in [
        ("alg", Value::from("none")),
        ("alg", Value::from("HS256")),
        ("kid", Value::Null),
        ("kid", Value::from("../../admin.token")),
        ("crit", serde_json::json!(["exp"])),
    ] {
        let what = format!("{name} {value}");
        attacks.push((what, signed(&changed(&header, name, value), &body)));
    }
    for (name, value) in [
        ("exp", Value::Null),
        ("exp", Value::from(end.to_string())),
        ("exp", Value::from(end as f64 + 0.5)),
        ("exp", Value::from(now - 60)),
        ("nbf", Value::from(end - 1)),
        ("jti", Value::Null),
        ("iss", Value::from("gestaltd")),
        ("aud", Value::from("sluicegate-egress")),
        ("aud", serde_json::json!(["sluicegate-relay"])),
        ("sid", Value::from(other.id())),
        ("gen", Value::from(0)),
        ("gen", Value::from(2)),
    ] {
        let what = format!("{name} {value}");
        attacks.push((what, signed(&header, &changed(&body, name, value))));
    }
    let egress = session.variable("SLUICEGATE_PROXY_TOKEN").to_owned();
    attacks.push(("the one for the way out".to_owned(), egress));
    let expected = proof("x.y.z").await;
    assert_eq!(expected.0, 401, "{}", expected.1);
    for (what, attack) in attacks {
        assert_eq!(proof(&attack).await, expected, "{what}");
    }
    assert_eq!(proof(good).await.0, 204, "the real one is good");
    session.revoke(&world.gateway).await;
    assert_eq!(proof(good).await, expected, "revoked");
    let start = format!("/runtime/providers/test/sessions/{}:start", session.id());
    let started = world.gateway.admin("POST", &start, "").await;
    assert_eq!(started.status(), 200, "{}", started.text());
    assert_eq!(proof(good).await, expected, "of the generation before");
}

/// The JOSE cookbook (RFC 7520) and RFC 8037: with the one key of the kind that is ours as the gateway's own, what it signs
/// is what others compute, and what others sign is good; everything else in it is what any other text is.
#[tokio::test]
async fn the_jose_cookbook_is_understood_and_lets_nobody_in() {
    let corpus = e2e::corpus::needed("jose-cookbook");
    let read = |path: &std::path::Path| -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let example = read(&corpus.join("curve25519/jws.json"));
    let text = |pointer: &str| example.pointer(pointer).unwrap().as_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("rfc8037.pem");
    private_key(text("/input/key/d"), &key);
    // Their example, computed anew by somebody else's Ed25519, so that the key file is theirs.
    let signed = openssl_signs(&key, text("/signing/sig-input"));
    assert_eq!(signed, text("/signing/sig"));
    let settings = e2e::Settings {
        more: format!("\nkeys: {{signingKeyFile: \"{}\"}}\n", key.display()),
        ..e2e::Settings::default()
    };
    let world = World::with(settings).await;
    let jwks = web::fetch(world.gateway.ports.plain, "/.well-known/jwks.json").await;
    let jwks: Value = serde_json::from_slice(&jwks.body).unwrap();
    assert_eq!(jwks["keys"][0]["x"], example["input"]["key"]["x"]);
    let session = world.session().await;
    let ours = token(&session);
    // Ed25519 has one signature of a text: ours is theirs.
    let (message, signature) = ours.rsplit_once('.').unwrap();
    assert_eq!(openssl_signs(&key, message), signature);
    // And theirs is good: the same claims with another id.
    let (header, _) = message.split_once('.').unwrap();
    let mut body = claims(ours);
    body["jti"] = "AAAAAAAAAAAAAAAAAAAAAA".into();
    let body = data_encoding::BASE64URL_NOPAD.encode(body.to_string().as_bytes());
    let message = format!("{header}.{body}");
    let theirs = format!("{message}.{}", openssl_signs(&key, &message));
    assert_eq!(exchange(&world, &theirs).await.0, 200);
    let (_, expected) = exchange(&world, "x.y.z").await;
    let mut examples = 0;
    for folder in ["curve25519", "jwe", "jws", "rfc7797"] {
        for file in std::fs::read_dir(corpus.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let output = &read(&path)["output"];
            for form in ["compact", "json", "json_flat"] {
                let shown = match &output[form] {
                    Value::Null => continue,
                    Value::String(text) => text.clone(),
                    // Nobody sends it so; but who does is told no more.
                    other => data_encoding::BASE64URL_NOPAD.encode(other.to_string().as_bytes()),
                };
                let (status, mut told) = exchange(&world, &shown).await;
                told["requestId"] = expected["requestId"].clone();
                let what = format!("{} {form}", path.display());
                assert_eq!((status, &told), (401, &expected), "{what}");
                examples += 1;
            }
        }
    }
    assert!(examples >= 50, "only {examples} examples");
}

/// PKCS #8 of an Ed25519 key (RFC 8410 §7).
fn private_key(d: &str, path: &std::path::Path) {
    let mut der = data_encoding::HEXLOWER
        .decode(b"302e020100300506032b657004220420")
        .unwrap();
    der.extend(data_encoding::BASE64URL_NOPAD.decode(d.as_bytes()).unwrap());
    let text = data_encoding::BASE64.encode(&der);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    std::fs::write(path, pem).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).unwrap();
}

/// This text's signature, as a JWS has it.
fn openssl_signs(key: &std::path::Path, message: &str) -> String {
    let file = key.with_extension("message");
    std::fs::write(&file, message).unwrap();
    let output = std::process::Command::new("openssl")
        .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
        .arg(key)
        .arg("-in")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    data_encoding::BASE64URL_NOPAD.encode(&output.stdout)
}

/// A key as others make it.
fn openssl_key(path: &std::path::Path) {
    let made = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, private).unwrap();
}

#[tokio::test]
async fn keys_of_somebody_else_are_rotated_by_a_reload_with_overlap() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (
        directory.path().join("first.pem"),
        directory.path().join("second.pem"),
    );
    openssl_key(&first);
    openssl_key(&second);
    let keys = |signing: &std::path::Path, verifying: &str| e2e::Settings {
        more: format!(
            "\nkeys: {{signingKeyFile: \"{}\"{verifying}}}\n",
            signing.display()
        ),
        ..e2e::Settings::default()
    };
    let world = World::with(keys(&first, "")).await;
    let session = world.session().await;
    let old = token(&session).to_owned();
    assert_eq!(exchange(&world, &old).await.0, 200);
    let refused = world.gateway.cli(&["keys", "rotate"]).await;
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);

    let dns = Some(world.dns.address);
    let both = format!(", verifyingKeyFiles: [\"{}\"]", first.display());
    for (verifying, status) in [(both.as_str(), 200), ("", 401)] {
        world.gateway.reconfigure(&e2e::Settings {
            dns,
            ..keys(&second, verifying)
        });
        world.gateway.cli(&["reload"]).await.succeeded();
        assert_eq!(exchange(&world, &old).await.0, status, "{verifying}");
        let jwks = web::fetch(world.gateway.ports.plain, "/.well-known/jwks.json").await;
        let jwks: Value = serde_json::from_slice(&jwks.body).unwrap();
        let published = if verifying.is_empty() { 1 } else { 2 };
        assert_eq!(jwks["keys"].as_array().unwrap().len(), published, "{jwks}");
    }
}

/// One credential is withdrawn: what is open by it is cut within a second, what another one opened stays.
#[tokio::test]
async fn what_a_revoked_credential_opened_is_cut_and_nothing_else() {
    let (world, _origin, session, target) = World::with_raw().await;
    let token = session.env["SLUICEGATE_PROXY_TOKEN"].clone();
    let open = async |scheme: &str, credential: &str| {
        let mut wire = session.dial().await;
        let head = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: {scheme} {credential}\r\n\r\n"
        );
        wire.send(head).await;
        assert_eq!(wire.head().await.status, 200);
        wire
    };
    let handle = session.handle().to_owned();
    let (by_token, by_handle) = (open("Bearer", &token).await, open("Bearer", &handle).await);
    let revoke = async |credential: &str| {
        let done = world
            .gateway
            .cli(&["credential", "revoke", credential])
            .await;
        done.succeeded();
    };
    let cut = async |mut wire: e2e::Wire| {
        let ((_, end), took) = e2e::tasks::timed(wire.rest()).await;
        assert_eq!(end, e2e::raw::End::Reset);
        assert!(took < std::time::Duration::from_secs(1), "{took:?}");
    };
    revoke(&token).await;
    cut(by_token).await;
    let mut by_handle = by_handle;
    by_handle.stays_quiet().await;
    revoke(&handle).await;
    cut(by_handle).await;
    let what = "a tunnel that was cut";
    let record = world
        .gateway
        .record(what, |record| record.text("outcome") == "cut")
        .await;
    assert_eq!(record.text("reason"), "session_revoked");
}

/// The one in the middle of a line is named, by its id alone and long after: all of the line go, over a kill, and no other.
#[tokio::test]
async fn the_id_of_one_token_takes_its_whole_line() {
    let mut world = World::start().await;
    let (session, other) = (world.session().await, world.session().await);
    let mut line = vec![token(&session).to_owned()];
    for _ in 0..3 {
        let (status, told) = exchange(&world, line.last().unwrap()).await;
        assert_eq!(status, 200, "{told}");
        line.push(told["token"].as_str().unwrap().to_owned());
    }
    let id = claims(&line[2])["jti"].as_str().unwrap().to_owned();
    let first = claims(&line[0])["jti"].as_str().unwrap().to_owned();
    assert!(id.starts_with(&format!("{first}.")), "{id}");
    let revoke = ["credential", "revoke", id.as_str()];
    world.gateway.cli(&revoke).await.succeeded();
    for killed in [false, true] {
        if killed {
            world.gateway.process.signal(rustix::process::Signal::KILL);
            world.gateway.process.wait("the kill").await;
            world.gateway.restart().await;
        }
        for one in &line {
            assert_eq!(exchange(&world, one).await.0, 401);
        }
        assert_eq!(exchange(&world, token(&other)).await.0, 200);
    }
}
