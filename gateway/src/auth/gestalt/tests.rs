#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::{net::Ipv4Addr, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};
use sluicegate_policy::{Target, decide, decide_service};

use super::*;
use crate::{
    auth::{Authenticator, write_file},
    secret::Secret,
    session::{
        Authority, Right,
        lifecycle::Action as Act,
        testing::{Fixture, ceiling, request},
    },
};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECRET: [u8; 32] = [0x2a; 32];

fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let mac = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{mac}")
}

fn minted(claims: &Value) -> Secret {
    Secret::new(signed(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims,
        &SECRET,
    ))
}

/// Claims as gestaltd writes them, with `more` laid over.
fn claims(audience: &str, more: Value) -> Value {
    let now = unix(SystemTime::now());
    let mut claims = json!({
        "iss": "gestaltd", "aud": [audience], "sub": "support", "jti": "5f0c2c4e-8d0b-4c63-9f0e-0d6a4f5f2b11",
        "iat": now, "nbf": now, "exp": now + 3600, "plugin": "support", "session_id": "one",
    });
    for (key, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(key);
        } else {
            claims[key] = value.clone();
        }
    }
    claims
}

fn unix(at: SystemTime) -> u64 {
    crate::clock::unix_seconds(at)
}

fn egress(more: Value) -> Value {
    claims("gestalt-egress-proxy", more)
}

fn relay(more: Value) -> Value {
    let mut own = json!({
        "service": "cache", "env_var": "GESTALT_CACHE_SOCKET",
        "method_prefix": "/gestalt.provider.v1.Cache/",
    });
    for (key, value) in more.as_object().unwrap() {
        own[key] = value.clone();
    }
    claims("gestalt-host-service-relay", own)
}

struct Accepting {
    fixture: Fixture,
    gestalt: Arc<Gestalt>,
    authenticator: Authenticator,
    terms: GestaltTerms,
}

impl Accepting {
    async fn with(check: SessionCheck, change: impl FnOnce(&mut GestaltTerms)) -> Self {
        let fixture = Fixture::new();
        let file = fixture.dir.path().join("gestalt.key");
        write_file(&file, "2a".repeat(32).as_bytes(), 0o600).unwrap();
        let source = "{id: one, allow: ['*.example.com', 'other.test:*'], services: {cache: 'unix:///run/c', 'cache:main': 'unix:///run/m', db: 'unix:///run/d'}}";
        fixture
            .registry
            .create("local".into(), request(source))
            .await
            .unwrap();
        let name = |text| ServiceName::parse(text).unwrap();
        let services = request(source).grant.document.services;
        let mut terms = GestaltTerms {
            key: GestaltKey::File(file),
            ceiling: ceiling("{allowedHosts: ['*.example.com', 'elsewhere.test']}"),
            services: services
                .into_iter()
                .filter(|(own, _)| *own != name("db"))
                .collect(),
            legacy_default_allow: false,
            check,
            namespace: "default".into(),
            provider: "local".into(),
        };
        change(&mut terms);
        let registry = fixture.registry.clone();
        let gestalt = Gestalt::new(registry.index().clone(), move |namespace| {
            registry.budget_of(namespace, None)
        });
        gestalt.follow(Some(terms.clone())).unwrap();
        let authenticator = fixture.registry.authenticator().accepting(gestalt.clone());
        Self {
            fixture,
            gestalt,
            authenticator,
            terms,
        }
    }

    fn identify(&self, token: &Secret, audience: Audience) -> Result<Identity, Denial> {
        self.at(token, audience, SystemTime::now())
    }

    fn at(&self, token: &Secret, audience: Audience, now: SystemTime) -> Result<Identity, Denial> {
        self.authenticator.identify(token, audience, SOURCE, now)
    }

    async fn act(&self, action: Act) {
        let key = self.fixture.key("one");
        self.fixture.registry.act(key, action, None).await.unwrap();
    }
}

fn reaches(identity: &Identity, target: &str) -> bool {
    let policy = identity.session.policy().unwrap();
    decide(&policy.grant, &Target::from_authority(target).unwrap()).is_ok()
}

fn opens(identity: &Identity, service: &str, method: Option<&str>) -> bool {
    let policy = identity.session.policy().unwrap();
    let (name, bound) = (ServiceName::parse(service).unwrap(), &identity.bound);
    decide_service(
        &policy.grant,
        bound.as_deref(),
        &name,
        Direction::In,
        method,
    )
    .is_ok()
}

/// Whatever is wrong with a token, and however: one refusal.
#[tokio::test]
async fn hostile_tokens_are_one_refusal() {
    for check in [SessionCheck::Registry, SessionCheck::TrustToken] {
        let world = Accepting::with(check, |_| {}).await;
        let now = unix(SystemTime::now());
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let other = |header: Value, secret: &[u8]| signed(&header, &egress(json!({})), secret);
        let of = |claims: Value| signed(&header, &claims, &SECRET);
        let good = of(egress(json!({"allowed_hosts": ["a.example.com"]})));
        let parts: Vec<&str> = good.split('.').collect();
        let ours = world.fixture.registry.keys().jwks();
        let mut hostile = vec![
            ("no token", "x".into()),
            ("signed by another key", other(header.clone(), &[1; 32])),
            ("signed by an empty key", other(header.clone(), &[])),
            (
                "signed by our published keys",
                other(header.clone(), ours.as_bytes()),
            ),
            (
                "another algorithm in the header",
                other(json!({"alg": "HS512"}), &SECRET),
            ),
            ("no algorithm", other(json!({"alg": "none"}), &SECRET)),
            ("our algorithm", other(json!({"alg": "EdDSA"}), &SECRET)),
            (
                "extensions",
                other(json!({"alg": "HS256", "crit": ["exp"]}), &SECRET),
            ),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("two parts", format!("{}.{}", parts[0], parts[1])),
            ("padded", format!("{good}=")),
            (
                "another's claims",
                format!("{}.{}.{}", parts[0], parts[1].replace('a', "b"), parts[2]),
            ),
            (
                "too long",
                of(egress(
                    json!({"allowed_hosts": vec!["a.example.com"; 1000]}),
                )),
            ),
        ];
        for (what, change) in [
            ("another issuer", json!({"iss": "sluicegate"})),
            ("no issuer", json!({"iss": null})),
            ("our audience", json!({"aud": "sluicegate-egress"})),
            (
                "the relay's audience",
                json!({"aud": "gestalt-host-service-relay"}),
            ),
            (
                "two audiences",
                json!({"aud": ["gestalt-egress-proxy", "gestalt-host-service-relay"]}),
            ),
            ("no audience in a list", json!({"aud": []})),
            ("no audience", json!({"aud": null})),
            (
                "expired",
                json!({"iat": now - 7200, "nbf": now - 7200, "exp": now - 60}),
            ),
            ("not yet", json!({"nbf": now + 600})),
            ("issued in the future", json!({"iat": now + 600})),
            ("no expiry", json!({"exp": null})),
            ("expiry as text", json!({"exp": (now + 60).to_string()})),
            ("a fraction of a second", json!({"exp": now as f64 + 60.5})),
            ("no beginning", json!({"nbf": null})),
            ("no time of issue", json!({"iat": null})),
            ("longer than any", json!({"exp": now + 31 * 86_400})),
            ("ends before it begins", json!({"exp": now - 1})),
            ("no id", json!({"jti": null})),
            ("an empty id", json!({"jti": ""})),
            ("an id for logs", json!({"jti": "a\nb"})),
            ("a session for logs", json!({"session_id": "one\n"})),
            ("hosts that are no list", json!({"allowed_hosts": "*"})),
            ("an action that is none", json!({"default_action": "maybe"})),
            ("plugin and app", json!({"app": "support"})),
        ] {
            hostile.push((what, of(egress(change))));
        }
        for (what, token) in &hostile {
            let refused = world.identify(&Secret::new(token.as_str()), Audience::Egress);
            assert_eq!(refused.unwrap_err(), Denial::CredentialInvalid, "{what}");
        }
        for (what, change) in [
            ("no service", json!({"service": null})),
            ("no method prefix", json!({"method_prefix": null})),
            ("a prefix that is none", json!({"method_prefix": "/a/../b"})),
            (
                "the proxy's audience",
                json!({"aud": "gestalt-egress-proxy"}),
            ),
        ] {
            let refused = world.identify(&minted(&relay(change)), Audience::Relay);
            assert_eq!(refused.unwrap_err(), Denial::CredentialInvalid, "{what}");
        }
        // The good ones, so that the table says something.
        world
            .identify(&Secret::new(good.as_str()), Audience::Egress)
            .unwrap();
        world
            .identify(&minted(&relay(json!({}))), Audience::Relay)
            .unwrap();
        for audience in [Audience::Relay, Audience::Admin] {
            let refused = world.identify(&Secret::new(good.as_str()), audience);
            assert_eq!(refused.unwrap_err(), Denial::CredentialInvalid);
        }
        world.gestalt.follow(None).unwrap();
        let refused = world.identify(&Secret::new(good.as_str()), Audience::Egress);
        assert_eq!(refused.unwrap_err(), Denial::CredentialInvalid, "no terms");
    }
}

#[tokio::test]
async fn a_token_narrows_its_session_and_never_widens_it() {
    let world = Accepting::with(SessionCheck::Registry, |_| {}).await;
    let hosts = json!({"allowed_hosts": ["a.example.com", "other.test", "elsewhere.test"]});
    let token = minted(&egress(hosts));
    let identity = world.identify(&token, Audience::Egress).unwrap();
    assert!(reaches(&identity, "a.example.com:443"));
    assert!(!reaches(&identity, "b.example.com:443"), "not in the token");
    assert!(!reaches(&identity, "other.test:443"), "not in the ceiling");
    assert!(
        !reaches(&identity, "elsewhere.test:443"),
        "not in the session"
    );
    assert!(!opens(
        &identity,
        "cache",
        Some("/gestalt.provider.v1.Cache/Get")
    ));
    // An empty list: the action decides, within both.
    let open = minted(&egress(json!({"jti": "x", "default_action": "allow"})));
    let open = world.identify(&open, Audience::Egress).unwrap();
    assert!(reaches(&open, "b.example.com:443") && !reaches(&open, "elsewhere.test:443"));
    for (jti, more) in [("y", json!({})), ("z", json!({"default_action": "deny"}))] {
        let mut claims = egress(more);
        claims["jti"] = jti.into();
        let identity = world.identify(&minted(&claims), Audience::Egress).unwrap();
        assert!(!reaches(&identity, "a.example.com:443"), "{jti}");
    }
}

#[tokio::test]
async fn nothing_said_allows_nothing_unless_the_operator_says_otherwise() {
    let legacy = |terms: &mut GestaltTerms| terms.legacy_default_allow = true;
    let world = Accepting::with(SessionCheck::TrustToken, legacy).await;
    let silent = minted(&egress(json!({})));
    let identity = world.identify(&silent, Audience::Egress).unwrap();
    assert!(reaches(&identity, "a.example.com:443"));
    assert!(!reaches(&identity, "other.test:443"), "not in the ceiling");
    let denying = minted(&egress(json!({"jti": "x", "default_action": "deny"})));
    let identity = world.identify(&denying, Audience::Egress).unwrap();
    assert!(!reaches(&identity, "a.example.com:443"));
}

#[tokio::test]
async fn services_are_those_the_token_names_and_its_methods() {
    const GET: Option<&str> = Some("/gestalt.provider.v1.Cache/Get");
    for check in [SessionCheck::Registry, SessionCheck::TrustToken] {
        let world = Accepting::with(check, |_| {}).await;
        let identity = world
            .identify(&minted(&relay(json!({}))), Audience::Relay)
            .unwrap();
        assert!(opens(&identity, "cache", GET) && opens(&identity, "cache:main", GET));
        assert!(!opens(
            &identity,
            "cache",
            Some("/gestalt.provider.v1.Secrets/Get")
        ));
        assert!(!opens(&identity, "cache", None), "no raw stream");
        assert!(!opens(&identity, "db", GET), "another service");
        assert!(!reaches(&identity, "a.example.com:443"), "no way out");
        let bound = json!({"jti": "x", "env_var": "GESTALT_CACHE_SOCKET_MAIN"});
        let bound = world
            .identify(&minted(&relay(bound)), Audience::Relay)
            .unwrap();
        assert!(opens(&bound, "cache:main", GET) && !opens(&bound, "cache", GET));
        // A service that the operator does not list for such tokens.
        let db = json!({"jti": "y", "service": "db", "method_prefix": "/a/"});
        let db = world
            .identify(&minted(&relay(db)), Audience::Relay)
            .unwrap();
        assert!(!opens(&db, "db", Some("/a/b")));
    }
}

#[tokio::test]
async fn a_session_of_the_registry_must_live_and_its_life_counts() {
    let world = Accepting::with(SessionCheck::Registry, |_| {}).await;
    let issued = |at: u64| {
        let claims = json!({"allowed_hosts": ["a.example.com"], "iat": at, "nbf": at});
        minted(&egress(claims))
    };
    let token = issued(unix(SystemTime::now()) - 2);
    let gone = Err(Denial::CredentialInvalid);
    for unknown in [json!({"session_id": "two"}), json!({"session_id": null})] {
        let refused = world.identify(&minted(&egress(unknown)), Audience::Egress);
        assert_eq!(refused.map(drop), gone);
    }
    let first = world.identify(&token, Audience::Egress).unwrap();
    world.act(Act::Pause).await;
    assert_eq!(
        first.session.stands(None).unwrap_err(),
        Denial::SessionPaused
    );
    world.act(Act::Resume).await;
    assert!(reaches(&first, "a.example.com:443"));
    // What the session loses, the token loses: the open tunnel's watch tells.
    let key = world.fixture.key("one");
    let nothing = crate::session::testing::patch("{allow: ['c.example.com']}");
    world.fixture.registry.patch(key, nothing).await.unwrap();
    assert!(!reaches(&first, "a.example.com:443"));
    world.act(Act::Reset).await;
    assert!(matches!(first.session.authority(), Authority::Ended(_)));
    assert_eq!(world.identify(&token, Audience::Egress).map(drop), gone);
    // What was issued for a generation is not for the next.
    world.act(Act::Start).await;
    assert_eq!(world.identify(&token, Audience::Egress).map(drop), gone);
    // Its clock says a second more than the reset's at least.
    let fresh = issued(unix(SystemTime::now()) + 1);
    let second = world.identify(&fresh, Audience::Egress).unwrap();
    assert!(second.session.generation() > first.session.generation());
    // Nor is what was issued before there was such a session at all.
    let early = issued(unix(SystemTime::now()) - 60);
    assert_eq!(world.identify(&early, Audience::Egress).map(drop), gone);
}

/// Tokens say to the second when they were issued. What was issued before a reset is not for the generation after it, not even
/// in the reset's own second; what was issued in the second after it is.
#[tokio::test]
async fn a_reset_parts_tokens_to_the_second() {
    let world = Accepting::with(SessionCheck::Registry, |_| {}).await;
    let (registry, key) = (&world.fixture.registry, world.fixture.key("one"));
    let base = unix(SystemTime::now()) + 10;
    let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(base * 1000 + millis);
    let by = crate::session::Behalf::nobody();
    let issued = |second: u64, id: &str| {
        let (iat, hosts) = (base + second, ["a.example.com"]);
        let claims = json!({"allowed_hosts": hosts, "iat": iat, "nbf": iat, "jti": id});
        minted(&egress(claims))
    };
    let accepted = |second: u64, id: &str, now: u64| {
        let known = world.at(&issued(second, id), Audience::Egress, at(now));
        known.map(drop)
    };
    let gone = Err(Denial::CredentialInvalid);
    assert_eq!(accepted(0, "before", 200), Ok(()));
    registry
        .act_at(&by, &key, Act::Reset, None, at(700))
        .unwrap();
    registry
        .act_at(&by, &key, Act::Start, None, at(1000))
        .unwrap();
    assert_eq!(accepted(0, "before", 1100), gone);
    assert_eq!(accepted(0, "unshown", 1100), gone);
    assert_eq!(accepted(1, "after", 1100), Ok(()));
    // One that ends with a second leaves the next one whole.
    registry
        .act_at(&by, &key, Act::Reset, None, at(2000))
        .unwrap();
    registry
        .act_at(&by, &key, Act::Start, None, at(2000))
        .unwrap();
    assert_eq!(accepted(1, "after", 2100), gone);
    assert_eq!(accepted(2, "at-once", 2100), Ok(()));
}

#[tokio::test]
async fn a_session_bound_to_a_key_takes_no_token_without_it() {
    let world = Accepting::with(SessionCheck::Registry, |_| {}).await;
    let key = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
    let source = format!("{{id: bound, allow: ['*.example.com'], clientKey: {key}}}");
    let created = world
        .fixture
        .registry
        .create("local".into(), request(&source));
    created.await.unwrap();
    let hosts = json!({"allowed_hosts": ["a.example.com"], "session_id": "bound"});
    let refused = world.identify(&minted(&egress(hosts)), Audience::Egress);
    assert_eq!(refused.map(drop), Err(Denial::KeyNotProved));
}

#[tokio::test]
async fn a_revoked_id_ends_what_is_open_and_refuses_the_rest() {
    for check in [SessionCheck::Registry, SessionCheck::TrustToken] {
        let world = Accepting::with(check, |_| {}).await;
        let hosts = json!({"allowed_hosts": ["a.example.com"]});
        let token = minted(&egress(hosts.clone()));
        let open = world.identify(&token, Audience::Egress).unwrap();
        let mut other = egress(hosts);
        other["jti"] = "another".into();
        let other = minted(&other);
        world.identify(&other, Audience::Egress).unwrap();
        let revoked = world
            .fixture
            .registry
            .revoke_credential(token.reveal().into());
        assert!(revoked.await.unwrap());
        let authority = open.session.authority();
        assert!(matches!(
            authority,
            Authority::Ended(Denial::SessionRevoked)
        ));
        let refused = world.identify(&token, Audience::Egress).map(drop);
        assert_eq!(refused, Err(Denial::CredentialInvalid));
        world.identify(&other, Audience::Egress).unwrap();
        // By its id alone, before it was ever seen.
        let id = "0a8f61c3-1f6a-4f6e-9a70-1c2d3e4f5a6b";
        let revoked = world.fixture.registry.revoke_credential(id.into());
        assert!(revoked.await.unwrap());
        let refused = world.identify(&minted(&egress(json!({"jti": id}))), Audience::Egress);
        assert_eq!(refused.map(drop), Err(Denial::CredentialInvalid));
    }
}

/// Its connections keep nobody else's out once it is over, whatever ends it.
#[tokio::test]
async fn the_places_of_its_connections_end_with_a_token() {
    for by_its_id in [true, false] {
        let world = Accepting::with(SessionCheck::Registry, |_| {}).await;
        let token = minted(&relay(json!({})));
        let leaked = world.identify(&token, Audience::Relay).unwrap();
        let index = world.fixture.registry.index();
        let live = index.session(&world.fixture.key("one")).unwrap();
        let whole = live.session.clone();
        let budget = whole.budget();
        let place = budget.carry(1, leaked.right()).unwrap();
        assert!(place.goes_on(&leaked.right()));
        let own = Right::of(&whole, None);
        assert!(budget.carry(1, own.clone()).is_err(), "it is good");
        // Whether anybody holds it or not.
        drop(leaked);
        world.gestalt.sweep(SystemTime::now());
        assert!(budget.carry(1, own.clone()).is_err(), "it is good");
        if by_its_id {
            let revoked = world
                .fixture
                .registry
                .revoke_credential(token.reveal().into());
            assert!(revoked.await.unwrap());
        } else {
            world.gestalt.follow(None).unwrap();
        }
        assert!(budget.carry(1, own.clone()).is_ok());
        assert!(!place.goes_on(&own), "it is the next one's");
    }
}

#[tokio::test]
async fn a_trusted_token_is_its_own_session_until_it_expires() {
    let world = Accepting::with(SessionCheck::TrustToken, |_| {}).await;
    let hosts = json!({"allowed_hosts": ["a.example.com"], "session_id": "nobody-knows"});
    let token = minted(&egress(hosts));
    let open = world.identify(&token, Audience::Egress).unwrap();
    assert_eq!(&*open.session.key().id, "nobody-knows");
    assert!(reaches(&open, "a.example.com:443"));
    let later = SystemTime::now() + Duration::from_secs(3700);
    assert!(world.at(&token, Audience::Egress, later).is_err());
    world.gestalt.sweep(SystemTime::now());
    assert!(open.session.stands(None).is_ok());
    world.gestalt.sweep(later);
    let authority = open.session.authority();
    assert!(matches!(
        authority,
        Authority::Ended(Denial::SessionExpired)
    ));
}

#[tokio::test]
async fn other_terms_end_what_the_old_ones_let_in() {
    let world = Accepting::with(SessionCheck::TrustToken, |_| {}).await;
    let token = minted(&egress(json!({"allowed_hosts": ["a.example.com"]})));
    let open = world.identify(&token, Audience::Egress).unwrap();
    world.gestalt.follow(Some(world.terms.clone())).unwrap();
    assert!(
        open.session.stands(None).is_ok(),
        "the same terms change nothing"
    );
    let mut narrower = world.terms.clone();
    narrower.ceiling = ceiling("{allowedHosts: ['b.example.com']}");
    world.gestalt.follow(Some(narrower)).unwrap();
    assert!(open.session.stands(None).is_err());
    let again = world.identify(&token, Audience::Egress).unwrap();
    assert!(!reaches(&again, "a.example.com:443"));
    // The same file, another key.
    let GestaltKey::File(file) = &world.terms.key else {
        panic!("a file")
    };
    write_file(file, "2b".repeat(32).as_bytes(), 0o600).unwrap();
    world.gestalt.follow(Some(world.terms.clone())).unwrap();
    assert!(world.identify(&token, Audience::Egress).is_err());
}

#[tokio::test]
async fn no_more_tokens_are_kept_than_there_is_room_for() {
    let world = Accepting::with(SessionCheck::TrustToken, |_| {}).await;
    let token = minted(&egress(json!({"allowed_hosts": ["a.example.com"]})));
    let open = world.identify(&token, Audience::Egress).unwrap();
    let grant = open.session.policy().unwrap().grant.clone();
    let accepted = world.gestalt.accepted.load_full().unwrap();
    let known = |id| {
        Arc::new(Known {
            accepted: accepted.clone(),
            claims: serde_json::from_value(egress(json!({}))).unwrap(),
            session: open.session.narrowed(id, grant.clone()),
            whole: None,
            bound: Arc::from(Vec::new()),
        })
    };
    let kept = Kept::with(2, 4);
    // All of one part.
    let hash = |id: u64| {
        let mut hash = [0; 32];
        hash[24..].copy_from_slice(&id.to_be_bytes());
        hash
    };
    let free = (|| true, |_: &Known| {});
    let keep = |id| kept.keep(hash(id), known(id), SystemTime::now(), free);
    let held: Vec<_> = (1..=4).map(|id| keep(id).unwrap()).collect();
    assert_eq!(keep(5).map(drop), Err(Denial::ConnectionLimit));
    assert_eq!(kept.len(), 4, "what something is open by is kept");
    assert!(held.iter().all(|known| known.session.stands(None).is_ok()));
    // Made twice at once, the first is everybody's.
    assert!(Arc::ptr_eq(&keep(4).unwrap(), &held[3]));
    // One that is open by its session alone, and one that only watches, like an exchange whose answer is on its way.
    let session = held[0].session.clone();
    let judged = held[1].session.judge(None, |_| Ok::<(), Denial>(()));
    let watches = judged.unwrap().changes;
    drop(held);
    keep(6).unwrap();
    assert_eq!(kept.len(), 3, "nothing is open by the others");
    assert!(Arc::ptr_eq(&kept.find(&hash(1)).unwrap().session, &session));
    kept.end_others(None);
    assert!(matches!(watches.peek(), Authority::Ended(_)));
}

#[tokio::test]
async fn a_change_of_terms_ends_what_the_others_let_in_and_that_alone() {
    let world = Accepting::with(SessionCheck::TrustToken, |_| {}).await;
    let token = minted(&egress(json!({"allowed_hosts": ["a.example.com"]})));
    let open = world.identify(&token, Audience::Egress).unwrap();
    let before = world.gestalt.accepted.load_full().unwrap();
    let mut terms = world.terms.clone();
    terms.ceiling = ceiling("{allowedHosts: ['b.example.com']}");
    world.gestalt.follow(Some(terms)).unwrap();
    let after = world.gestalt.accepted.load_full().unwrap();
    let ended = open.session.authority();
    assert!(matches!(ended, Authority::Ended(Denial::SessionRevoked)));
    let kept = Kept::with(8, 8);
    let keep = |id: u8, accepted: &Arc<Accepted>| {
        let claims: Claims = serde_json::from_value(egress(json!({}))).unwrap();
        let made = world.gestalt.made(accepted, claims).unwrap();
        let hash = [id; 32];
        // Nobody finds one that its revocation would not end.
        let tie = |_: &Known| assert!(kept.is_locked(&hash));
        let now = SystemTime::now();
        kept.keep(hash, Arc::new(made), now, (|| true, tie))
            .unwrap()
    };
    // As of one that came while those of the terms before were being ended, part by part.
    let (old, new) = (keep(1, &before), keep(2, &after));
    kept.end_others(Some(&after));
    assert!(old.session.stands(None).is_err());
    assert!(new.session.stands(None).is_ok());
    assert_eq!(kept.len(), 1);
    assert!(Arc::ptr_eq(&kept.find(&[2; 32]).unwrap(), &new));
}
