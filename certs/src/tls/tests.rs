#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::{Authority, handshake::Pair};
use rustls::{
    CertificateError, Error, HandshakeKind, ProtocolVersion,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    pki_types::ServerName,
};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

struct House {
    root: Authority,
    trust: TrustBundle,
}

fn house() -> House {
    let root = Authority::create("root", SystemTime::now() - 72 * HOUR).unwrap();
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    House { root, trust }
}

impl House {
    fn server_at(&self, names: &[&str], now: SystemTime) -> ServerIdentity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        ServerIdentity::new(self.root.issue_server(&names, HOUR, now).unwrap())
    }

    fn server(&self, names: &[&str]) -> ServerIdentity {
        self.server_at(names, SystemTime::now())
    }
}

fn refusal(result: Result<Pair, Error>) -> Error {
    result.expect_err("the handshake must fail")
}

#[test]
fn wrong_name_is_refused() {
    let house = house();
    let server = super::server(&house.server(&["a.test", "10.0.0.1"]), &[]).unwrap();
    let client = client(&house.trust, &[], None).unwrap();
    for name in ["b.test", "x.a.test", "test", "10.0.0.2", "::1"] {
        let error = refusal(Pair::connect(&client, &server, name));
        let named = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        );
        assert!(named, "{name}: {error:?}");
    }
}

#[test]
fn expired_is_refused() {
    let house = house();
    let expired = house.server_at(&["a.test"], SystemTime::now() - 24 * HOUR);
    let server = super::server(&expired, &[]).unwrap();
    let error = refusal(Pair::connect(
        &client(&house.trust, &[], None).unwrap(),
        &server,
        "a.test",
    ));
    let named = matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    );
    assert!(named, "{error:?}");
}

#[test]
fn another_authority_is_refused_and_so_is_everybody_without_trust() {
    let (house, stranger) = (house(), house());
    let server = super::server(&house.server(&["a.test"]), &[]).unwrap();
    for trust in [&stranger.trust, &TrustBundle::empty()] {
        let error = refusal(Pair::connect(
            &client(trust, &[], None).unwrap(),
            &server,
            "a.test",
        ));
        assert_eq!(
            error,
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        );
    }
}

#[test]
fn client_certificate_is_required_checked_and_shown() {
    let (house, stranger) = (house(), house());
    let now = SystemTime::now();
    let server = server_with_client_auth(&house.server(&["a.test"]), &house.trust, &[]).unwrap();
    let connect = |identity: Option<&Identity>| {
        Pair::connect(
            &client(&house.trust, &[], identity).unwrap(),
            &server,
            "a.test",
        )
    };
    assert_eq!(refusal(connect(None)), Error::NoCertificatesPresented);
    let foreign = stranger.root.issue_client("peer", HOUR, now).unwrap();
    assert_eq!(
        refusal(connect(Some(&foreign))),
        Error::InvalidCertificate(CertificateError::UnknownIssuer)
    );
    let old = house
        .root
        .issue_client("peer", HOUR, now - 24 * HOUR)
        .unwrap();
    assert!(matches!(
        refusal(connect(Some(&old))),
        Error::InvalidCertificate(_)
    ));
    // A server's certificate is not a client's.
    let server_kind = house
        .root
        .issue_server(&["peer.test".into()], HOUR, now)
        .unwrap();
    assert!(matches!(
        refusal(connect(Some(&server_kind))),
        Error::InvalidCertificate(_)
    ));
    let good = house.root.issue_client("peer", HOUR, now).unwrap();
    let mut pair = connect(Some(&good)).unwrap();
    pair.converse();
    assert_eq!(
        pair.server.peer_certificates().unwrap()[0],
        good.certified().cert[0]
    );
    let empty = server_with_client_auth(&house.server(&["a.test"]), &TrustBundle::empty(), &[]);
    assert!(matches!(empty, Err(CertError::ClientVerifier(_))));
}

#[test]
fn alpn_is_agreed_or_refused() {
    let house = house();
    let server = super::server(&house.server(&["a.test"]), &[b"h2", b"http/1.1"]).unwrap();
    let connect = |alpn: &[&[u8]]| {
        Pair::connect(
            &client(&house.trust, alpn, None).unwrap(),
            &server,
            "a.test",
        )
    };
    assert_eq!(
        connect(&[b"http/1.1", b"h2"])
            .unwrap()
            .client
            .alpn_protocol(),
        Some(&b"h2"[..])
    );
    assert_eq!(
        connect(&[b"http/1.1"]).unwrap().server.alpn_protocol(),
        Some(&b"http/1.1"[..])
    );
    assert_eq!(connect(&[]).unwrap().server.alpn_protocol(), None);
    assert_eq!(refusal(connect(&[b"smtp"])), Error::NoApplicationProtocol);
}

#[test]
fn both_versions_are_spoken_and_resume() {
    let house = house();
    let server = super::server(&house.server(&["a.test"]), &[]).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(house.trust.store())
            .with_no_client_auth();
        let config = Arc::new(config);
        let mut first = Pair::connect(&config, &server, "a.test").unwrap();
        first.converse();
        assert_eq!(first.server.protocol_version(), Some(version.version));
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        let second = Pair::connect(&config, &server, "a.test").unwrap();
        assert_eq!(
            second.client.handshake_kind(),
            Some(HandshakeKind::Resumed),
            "{version:?}"
        );
    }
}

#[test]
fn each_connection_brings_one_ticket_and_the_next_resumes_by_it() {
    let house = house();
    let identity = house.server(&["a.test"]);
    let name = ServerName::try_from("a.test").unwrap();
    let quic = super::quic_server(&identity, &[]).unwrap();
    for server in [super::server(&identity, &[]).unwrap(), quic] {
        let tickets = Arc::new(ClientSessionMemoryCache::new(8));
        let mut config = (*client(&house.trust, &[], None).unwrap()).clone();
        config.resumption = Resumption::store(tickets.clone());
        let config = Arc::new(config);
        let kinds = [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ];
        for kind in kinds {
            let mut pair = Pair::connect(&config, &server, "a.test").unwrap();
            pair.converse();
            assert_eq!(pair.client.handshake_kind(), Some(kind));
            // The one before was taken for it.
            let ticket = tickets.take_tls13_ticket(&name).unwrap();
            assert!(tickets.take_tls13_ticket(&name).is_none(), "another");
            tickets.insert_tls13_ticket(name.clone(), ticket);
        }
    }
}

#[test]
fn a_client_that_must_show_a_certificate_never_resumes() {
    let house = house();
    let server = server_with_client_auth(&house.server(&["a.test"]), &house.trust, &[]).unwrap();
    let identity = house
        .root
        .issue_client("peer", HOUR, SystemTime::now())
        .unwrap();
    let client = client(&house.trust, &[], Some(&identity)).unwrap();
    Pair::connect(&client, &server, "a.test")
        .unwrap()
        .converse();
    let again = Pair::connect(&client, &server, "a.test").unwrap();
    assert_eq!(again.client.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn no_early_data_is_offered_or_taken() {
    let house = house();
    let server = super::server(&house.server(&["a.test"]), &[]).unwrap();
    assert_eq!(server.max_early_data_size, 0);
    let mut eager = (*client(&house.trust, &[], None).unwrap()).clone();
    assert!(!eager.enable_early_data);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);
    Pair::connect(&eager, &server, "a.test").unwrap().converse();
    let name = ServerName::try_from("a.test").unwrap();
    let mut again = rustls::ClientConnection::new(eager, name).unwrap();
    assert!(again.early_data().is_none(), "the ticket allows none");
}

#[test]
fn our_order_of_suites_wins_over_the_clients() {
    let house = house();
    let server = super::server(&house.server(&["a.test"]), &[]).unwrap();
    let mut backwards = (*provider()).clone();
    backwards.cipher_suites.reverse();
    let config = ClientConfig::builder_with_provider(Arc::new(backwards))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(house.trust.store())
        .with_no_client_auth();
    let pair = Pair::connect(&Arc::new(config), &server, "a.test").unwrap();
    let expected = if aes_in_hardware() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
    } else {
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    };
    assert_eq!(
        pair.server.negotiated_cipher_suite().unwrap().suite(),
        expected
    );
    assert_eq!(
        pair.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
}

#[test]
fn for_quic_there_is_tls_1_3_only_and_nothing_early() {
    let house = house();
    let server = super::quic_server(&house.server(&["a.test"]), &[b"x"]).unwrap();
    assert_eq!(server.max_early_data_size, 0);
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(house.trust.store())
        .with_no_client_auth();
    assert!(Pair::connect(&Arc::new(old), &server, "a.test").is_err());
    let client = super::quic_client(&house.trust, &[b"x"]).unwrap();
    assert!(!client.enable_early_data);
    let pair = Pair::connect(&client, &server, "a.test").unwrap();
    assert_eq!(
        pair.server.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
}

#[test]
fn rank_follows_the_hardware() {
    let order = |hardware| {
        let mut suites = rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec();
        suites.sort_by_key(|suite| rank(suite, hardware));
        suites
            .iter()
            .map(|suite| suite.suite())
            .filter(|suite| format!("{suite:?}").starts_with("TLS13"))
            .collect()
    };
    let with: Vec<CipherSuite> = order(true);
    let without: Vec<CipherSuite> = order(false);
    use CipherSuite::*;
    assert_eq!(
        with,
        [
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256
        ]
    );
    assert_eq!(
        without,
        [
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384
        ]
    );
}
