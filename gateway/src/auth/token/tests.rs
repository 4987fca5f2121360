#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::*;

struct Fixture {
    _dir: tempfile::TempDir,
    keys: Keys,
    now: SystemTime,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load_or_create(dir.path()).unwrap();
    Fixture {
        keys,
        _dir: dir,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

/// An id is written down in the clear, a handle nowhere.
#[test]
fn what_has_a_handle_in_it_is_no_id() {
    let handle = super::super::handle::Handle::generate().unwrap();
    let secret = handle.secret.reveal();
    for pasted in [
        secret.to_owned(),
        format!("{secret}\""),
        format!("HTTP_PROXY=http://sluicegate:{secret}@127.0.0.1"),
    ] {
        assert!(foreign_named(&pasted).is_none(), "{}", pasted.len());
    }
    let named = foreign_named("nightly:7");
    assert!(matches!(named, Some(Named::Foreign(id)) if id == "nightly:7"));
}

fn owner() -> SessionKey {
    SessionKey {
        namespace: "default".into(),
        provider: "local".into(),
        id: "s1".into(),
    }
}

impl Fixture {
    fn mint(&self, audience: Audience) -> String {
        let expires = self.now + Duration::from_secs(600);
        mint(
            &self.keys,
            Mint {
                audience,
                session: &owner(),
                generation: 3,
                born: 0,
                services: None,
                key: None,
                family: None,
                paused: Duration::ZERO,
                expires,
            },
            self.now,
        )
        .unwrap()
        .reveal()
        .to_owned()
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        verify(&self.keys, token, Audience::Relay, self.now)
    }

    /// Sign any header and claims with the real key.
    fn forge(&self, header: &Value, claims: &Value) -> String {
        let (_, key) = self.keys.signing().unwrap();
        let encode = |v: &Value| BASE64URL_NOPAD.encode(v.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = crypto::sign(message.as_bytes(), &key.encoding, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn header(&self) -> Value {
        json!({ "alg": "EdDSA", "typ": "JWT", "kid": &*self.keys.signing().unwrap().0 })
    }

    fn claims(&self) -> Value {
        let now = unix_seconds(self.now);
        json!({ "iss": "sluicegate", "aud": "sluicegate-relay", "sub": "default/local/s1", "jti": "x", "iat": now,
                "nbf": now, "exp": now + 600, "ns": "default", "prv": "local", "sid": "s1", "gen": 3 })
    }
}

#[test]
fn what_was_minted_verifies_for_its_audience_only() {
    let f = fixture();
    let token = f.mint(Audience::Relay);
    let claims = f.verify(&token).unwrap();
    assert_eq!((claims.session(), claims.r#gen), (owner(), 3));
    for other in [Audience::Egress, Audience::Admin] {
        assert_eq!(
            verify(&f.keys, &token, other, f.now),
            Err(TokenError::Audience)
        );
    }
}

#[test]
fn times_bound_a_token_on_both_sides() {
    let f = fixture();
    let token = f.mint(Audience::Relay);
    let at = |offset: i64| {
        let shift = Duration::from_secs(offset.unsigned_abs());
        let now = if offset < 0 {
            f.now - shift
        } else {
            f.now + shift
        };
        verify(&f.keys, &token, Audience::Relay, now).map(|_| ())
    };
    assert_eq!(at(604), Ok(()));
    assert_eq!(at(605), Err(TokenError::Expired));
    assert_eq!(at(-5), Ok(()));
    assert_eq!(at(-6), Err(TokenError::NotYet));
}

#[test]
fn a_rotated_key_still_verifies_and_a_removed_one_does_not() {
    let f = fixture();
    let token = f.mint(Audience::Relay);
    let old = f.keys.list()[0].kid.clone();
    f.keys.rotate().unwrap();
    assert!(f.verify(&token).is_ok());
    std::fs::remove_file(f._dir.path().join(format!("{old}.pem"))).unwrap();
    f.keys.reload().unwrap();
    assert_eq!(f.verify(&token), Err(TokenError::UnknownKey));
}

#[test]
fn headers_that_change_the_rules_are_refused() {
    let f = fixture();
    let cases: &[(&str, Value, TokenError)] = &[
        (
            "alg none",
            json!({ "alg": "none" }),
            TokenError::UnsupportedHeader,
        ),
        (
            "alg HS256",
            json!({ "alg": "HS256" }),
            TokenError::UnsupportedHeader,
        ),
        (
            "alg eddsa in lower case",
            json!({ "alg": "eddsa" }),
            TokenError::UnsupportedHeader,
        ),
        (
            "crit",
            json!({ "crit": ["exp"] }),
            TokenError::UnsupportedHeader,
        ),
        (
            "crit empty",
            json!({ "crit": [] }),
            TokenError::UnsupportedHeader,
        ),
        (
            "b64",
            json!({ "b64": false }),
            TokenError::UnsupportedHeader,
        ),
        (
            "kid unknown",
            json!({ "kid": "nobody" }),
            TokenError::UnknownKey,
        ),
        (
            "kid a path",
            json!({ "kid": "../keys/x" }),
            TokenError::UnknownKey,
        ),
        ("kid null", json!({ "kid": null }), TokenError::UnknownKey),
        ("kid a number", json!({ "kid": 1 }), TokenError::Malformed),
    ];
    for (name, change, expected) in cases {
        let mut header = f.header();
        for (key, value) in change.as_object().unwrap() {
            header[key] = value.clone();
        }
        assert_eq!(
            f.verify(&f.forge(&header, &f.claims())),
            Err(*expected),
            "{name}"
        );
    }
    assert!(
        f.verify(&f.forge(&f.header(), &f.claims())).is_ok(),
        "the unchanged one verifies"
    );
}

#[test]
fn claims_missing_or_mistyped_are_refused() {
    let f = fixture();
    for name in [
        "iss", "aud", "sub", "jti", "iat", "nbf", "exp", "ns", "prv", "sid", "gen",
    ] {
        let mut claims = f.claims();
        claims.as_object_mut().unwrap().remove(name);
        assert_eq!(
            f.verify(&f.forge(&f.header(), &claims)),
            Err(TokenError::Malformed),
            "{name} missing"
        );
        claims[name] = Value::Null;
        assert_eq!(
            f.verify(&f.forge(&f.header(), &claims)),
            Err(TokenError::Malformed),
            "{name} null"
        );
    }
    let now = unix_seconds(f.now);
    for (name, value) in [
        ("exp", json!((now + 600).to_string())),
        ("exp", json!(now as f64 + 600.5)),
        ("exp", json!(-1)),
        ("iat", json!("now")),
        ("aud", json!(["sluicegate-relay"])),
        ("gen", json!("3")),
        ("svc", json!([{ "name": "UPPER CASE" }])),
        (
            "svc",
            json!([{ "name": "cache", "methodPrefix": "no-slash" }]),
        ),
        ("svc", json!([{ "name": "cache", "direction": "sideways" }])),
        ("svc", json!([{ "name": "cache", "more": 1 }])),
        ("svc", json!("cache")),
    ] {
        let mut claims = f.claims();
        claims[name] = value.clone();
        assert_eq!(
            f.verify(&f.forge(&f.header(), &claims)),
            Err(TokenError::Malformed),
            "{name} = {value}"
        );
    }
    let mut claims = f.claims();
    claims["iss"] = json!("gestaltd");
    assert_eq!(
        f.verify(&f.forge(&f.header(), &claims)),
        Err(TokenError::Audience)
    );
}

#[test]
fn a_public_key_used_as_hmac_secret_signs_nothing() {
    let f = fixture();
    let jwks: Value = serde_json::from_str(&f.keys.jwks()).unwrap();
    let public = BASE64URL_NOPAD
        .decode(jwks["keys"][0]["x"].as_str().unwrap().as_bytes())
        .unwrap();
    let mut header = f.header();
    header["alg"] = json!("HS256");
    let encode = |v: &Value| BASE64URL_NOPAD.encode(v.to_string().as_bytes());
    let message = format!("{}.{}", encode(&header), encode(&f.claims()));
    let key = EncodingKey::from_secret(&public);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    assert_eq!(
        f.verify(&format!("{message}.{signature}")),
        Err(TokenError::UnsupportedHeader)
    );
}

#[test]
fn no_byte_of_a_token_can_change() {
    let f = fixture();
    let token = f.mint(Audience::Relay);
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(f.verify(&changed).is_err(), "byte {at}");
    }
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c",
        &format!("{token}="),
        &format!("{token}."),
        &token[1..],
    ] {
        assert!(f.verify(text).is_err(), "{text}");
    }
}

#[test]
fn the_signature_of_rfc_8037_is_good_and_no_other() {
    // Appendix A.4, with the key of A.2.
    let key = BASE64URL_NOPAD
        .decode(b"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
        .unwrap();
    let key = DecodingKey::from_ed_der(&key);
    let message = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(signed_by(&key, message, signature), Ok(()));
    let other = signature.replacen('h', "i", 1);
    assert_eq!(signed_by(&key, message, &other), Err(TokenError::Signature));
    let longer = format!("{message}Zw");
    let refused = signed_by(&key, &longer, signature);
    assert_eq!(refused, Err(TokenError::Signature));
    let padded = format!("{signature}==");
    let refused = signed_by(&key, message, &padded);
    assert_eq!(refused, Err(TokenError::Malformed));
}
