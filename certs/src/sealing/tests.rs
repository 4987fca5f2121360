#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::{
    io::{IoSlice, Read, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};

use super::*;
use crate::{Authority, ServerIdentity, TrustBundle, handshake::Pair};

/// A record's content at most (RFC 8446 §5.1).
const MOST: usize = 16 * 1024;
const GCM: [CipherSuite; 2] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
];

fn stock() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

fn of(suites: &[SupportedCipherSuite], wanted: CipherSuite) -> SupportedCipherSuite {
    *suites.iter().find(|it| it.suite() == wanted).unwrap()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// As it goes to the wire.
fn sealed(
    by: &mut dyn MessageEncrypter,
    (typ, payload): (ContentType, OutboundChunks<'_>),
    number: u64,
) -> Vec<u8> {
    let message = OutboundPlainMessage {
        typ,
        version: ProtocolVersion::TLSv1_3,
        payload,
    };
    by.encrypt(message, number).unwrap().encode()
}

#[test]
fn a_record_is_byte_for_byte_that_of_rustls() {
    let theirs = of(&stock().cipher_suites, GCM[1]);
    let encrypter = |suite: SupportedCipherSuite| {
        let aead = suite.tls13().unwrap().aead_alg;
        aead.encrypter(AeadKey::from([3; 32]), Iv::from([9; 12]))
    };
    let mut theirs_seals = encrypter(theirs);
    let mut ours_seals = encrypter(suite(theirs));
    let all = bytes(MOST);
    let mut number = 0;
    for length in [0, 1, 15, LEAST - 1, LEAST, LEAST + 1, 5000, MOST - 1, MOST] {
        let content = &all[..length];
        let (head, tail) = content.split_at(length / 3);
        let in_two = [head, tail];
        let around = [&all[..9], content, &all[..100]];
        let last = [&all[..9], b"".as_slice(), content];
        for payload in [
            OutboundChunks::Single(content),
            OutboundChunks::new(&in_two),
            OutboundChunks::Multiple {
                chunks: &around,
                start: 9,
                end: 9 + length,
            },
            OutboundChunks::Multiple {
                chunks: &last,
                start: 9,
                end: 9 + length,
            },
        ] {
            assert_eq!(payload.len(), length);
            for kind in [
                ContentType::ApplicationData,
                ContentType::Handshake,
                ContentType::Alert,
            ] {
                let theirs = sealed(&mut *theirs_seals, (kind, payload.clone()), number);
                let ours = sealed(&mut *ours_seals, (kind, payload.clone()), number);
                assert!(ours == theirs, "{kind:?} of {length}, record {number}");
                // Numbers of all lengths: they only have to grow.
                number += number / 4 + 1;
            }
        }
    }
}

#[test]
fn what_is_in_one_piece_is_found_and_nothing_else() {
    let chunks = [b"abc".as_slice(), b"", b"defgh"];
    let part = |start, end| {
        whole(&OutboundChunks::Multiple {
            chunks: &chunks,
            start,
            end,
        })
    };
    assert_eq!(part(0, 3), Some(b"abc".as_slice()));
    assert_eq!(part(1, 2), Some(b"b".as_slice()));
    assert_eq!(part(3, 8), Some(b"defgh".as_slice()));
    assert_eq!(part(5, 7), Some(b"fg".as_slice()));
    for (start, end) in [(0, 4), (2, 8), (0, 8), (3, 9), (8, 8), (9, 9)] {
        assert_eq!(part(start, end), None, "{start} to {end}");
    }
    assert_eq!(whole(&OutboundChunks::Single(b"x")), Some(b"x".as_slice()));
}

#[test]
fn what_is_long_and_in_one_piece_is_not_copied() {
    let all = bytes(MOST);
    for (length, copied) in [(1, true), (LEAST - 1, true), (LEAST, false), (MOST, false)] {
        let content = &all[..length];
        let behind = [b"".as_slice(), content];
        for payload in [
            OutboundChunks::Single(content),
            OutboundChunks::new(&behind),
        ] {
            assert_eq!(uncopied(&payload).is_none(), copied, "{length}");
        }
    }
    let pieces = all.chunks(LEAST).collect::<Vec<_>>();
    assert_eq!(uncopied(&OutboundChunks::new(&pieces)), None);
}

/// By which everything here speaks TLS.
#[test]
fn the_house_seals_so() {
    let house = crate::tls::provider();
    for wanted in GCM {
        let [house, theirs] = [&house.cipher_suites, &stock().cipher_suites]
            .map(|suites| of(suites, wanted).tls13().unwrap());
        assert!(!std::ptr::addr_eq(house, theirs), "{wanted:?}");
        assert!(house.quic.is_some(), "{wanted:?}");
    }
}

#[test]
fn only_records_under_aes_gcm_are_sealed_here() {
    for theirs in stock().cipher_suites {
        let ours = suite(theirs);
        assert_eq!(ours.suite(), theirs.suite());
        let (Some(theirs), Some(ours)) = (theirs.tls13(), ours.tls13()) else {
            assert_eq!(ours.tls13().is_some(), theirs.tls13().is_some());
            continue;
        };
        let same = std::ptr::addr_eq(theirs, ours);
        assert_eq!(same, !GCM.contains(&theirs.common.suite));
        assert_eq!(ours.aead_alg.key_len(), theirs.aead_alg.key_len());
        assert_eq!(
            ours.common.confidentiality_limit,
            theirs.common.confidentiality_limit
        );
        assert_eq!(ours.quic.is_some(), theirs.quic.is_some());
    }
}

/// Either end may be rustls as it comes, and what is written may be in any pieces.
#[test]
fn who_has_rustls_as_it_comes_understands() {
    let root = Authority::create("root", SystemTime::now()).unwrap();
    let trust = TrustBundle::empty()
        .with_pem(root.certificate_pem().as_bytes())
        .unwrap();
    let hour = Duration::from_secs(3600);
    let issued = root.issue_server(&["a.test".to_owned()], hour, SystemTime::now());
    let identity = ServerIdentity::new(issued.unwrap());
    for wanted in GCM {
        let theirs = of(&stock().cipher_suites, wanted);
        for (at_client, at_server) in [(theirs, suite(theirs)), (suite(theirs), theirs)] {
            let with = |suite| {
                Arc::new(CryptoProvider {
                    cipher_suites: vec![suite],
                    ..stock()
                })
            };
            let client = ClientConfig::builder_with_provider(with(at_client))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(trust.store())
                .with_no_client_auth();
            let server = ServerConfig::builder_with_provider(with(at_server))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(identity.clone()));
            let mut pair = Pair::connect(&Arc::new(client), &Arc::new(server), "a.test").unwrap();
            for keys in 0..2 {
                pair.converse();
                let all = bytes(LEAST + 10_000);
                let (head, rest) = all.split_at(9);
                for pieces in [[head, rest], [&[], &all]] {
                    let pieces = pieces.map(IoSlice::new);
                    let mut heard = vec![0; all.len()];
                    let sent = pair.server.writer().write_vectored(&pieces).unwrap();
                    assert_eq!(sent, all.len());
                    pair.pump().unwrap();
                    pair.client.reader().read_exact(&mut heard).unwrap();
                    assert!(heard == all, "{wanted:?}, from the server, keys {keys}");
                    heard.fill(0);
                    let sent = pair.client.writer().write_vectored(&pieces).unwrap();
                    assert_eq!(sent, all.len());
                    pair.pump().unwrap();
                    pair.server.reader().read_exact(&mut heard).unwrap();
                    assert!(heard == all, "{wanted:?}, from the client, keys {keys}");
                }
                // The next round has other keys, and counts from 0 anew (RFC 8446 §4.6.3).
                pair.client.refresh_traffic_keys().unwrap();
                pair.server.refresh_traffic_keys().unwrap();
            }
        }
    }
}
