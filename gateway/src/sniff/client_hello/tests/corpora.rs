//! Hellos of real clients, and other people's good and bad ones.

use super::super::super::testing::{corpus, json};
use super::*;

fn assert_steady_over_records(bytes: &[u8], expected: &Verdict, seed: u64) {
    let mut dice = Dice::new(seed);
    let handshake: Vec<u8> = fragments(bytes);
    for most in [1, 2, 7, 100, 1000] {
        let records: Vec<u8> = dice
            .cut(&handshake, most)
            .into_iter()
            .flat_map(|f| record(22, f))
            .collect();
        assert_eq!(&feed(&records), expected, "records of up to {most}");
        assert_eq!(
            &feed_pieces(dice.cut(&records, 50)),
            expected,
            "records of up to {most}, in pieces"
        );
    }
}

/// The contents of a run of whole records.
fn fragments(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        out.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    out
}

fn run_named_corpus(name: &str, at_least: usize) {
    let Some(folder) = corpus(name) else { return };
    let manifest = json(&folder, "manifest.json");
    assert!(manifest.len() >= at_least);
    for (entry, seed) in manifest.iter().zip(1..) {
        let file = entry["file"].as_str().unwrap();
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let verdict = feed(&bytes);
        let Verdict::Hello(hello) = &verdict else {
            panic!("{file}: {verdict:?}")
        };
        let sni = match &hello.sni {
            Some(Sni::Name(name)) => Some(name.as_str()),
            // One old client sends an empty name; the manifest has it as none.
            Some(Sni::Malformed) if file.ends_with("Chrome-58setclienthello.bin") => None,
            Some(Sni::Malformed) => panic!("{file}: malformed name"),
            None => None,
        };
        assert_eq!(sni, entry["sni"].as_str(), "{file}");
        let alpn: Vec<_> = hello
            .alpn
            .iter()
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect();
        let expected: Vec<_> = entry["alpn"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap())
            .collect();
        assert_eq!(alpn, expected, "{file}");
        if let Some(ech) = entry["ech"].as_bool() {
            assert_eq!(hello.ech, ech, "{file}");
        }
        assert_steady(&bytes, &verdict, seed);
        assert_steady_over_records(&bytes, &verdict, seed);
    }
}

#[test]
fn live_clients_are_read_at_every_cut() {
    run_named_corpus("clienthello-live", 109);
}

#[test]
fn utls_clients_are_read_at_every_cut() {
    run_named_corpus("utls-clienthello", 168);
}

#[test]
fn sniproxy_vectors() {
    let Some(folder) = corpus("sniproxy-clienthello") else {
        return;
    };
    for (entry, seed) in json(&folder, "manifest.json").iter().zip(1..) {
        let file = entry["file"].as_str().unwrap();
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let verdict = feed(&bytes);
        match file {
            // Well-formed, with another name; the origin's test compares it with "localhost".
            "bad_data_1.bin" => assert_eq!(name_of(&verdict), Some("lodalhost")),
            // Cut short: the origin is given all there will be, a stream never is.
            "bad_data_2.bin" | "bad_data_3.bin" => assert_eq!(verdict, Verdict::NeedMore),
            // The handshake length is two bytes short of its extensions, so every TLS stack refuses them; their origin ignores
            // that field. (The last is byte for byte the first.)
            "good_data_2.bin" | "good_data_3.bin" | "good_data_4.bin" | "bad_data_4.bin" => {
                assert_eq!(
                    verdict,
                    Verdict::Malformed(HelloError::Field("extensions")),
                    "{file}"
                );
                let mended = mend_handshake_length(&bytes);
                assert_eq!(name_of(&feed(&mended)), Some("localhost"), "{file}");
                assert_steady(&mended, &feed(&mended), seed);
            }
            "ssl20_client_hello.bin" => assert_eq!(verdict, Verdict::Malformed(HelloError::SslV2)),
            // No extensions, so no name: refused by whoever needs one.
            "ssl30_request.bin" => assert_eq!(name_of(&verdict), None),
            good => {
                assert_eq!(entry["expect"], "sni=localhost", "{good}");
                assert_eq!(name_of(&verdict), Some("localhost"), "{good}");
            }
        }
        assert_steady(&bytes, &verdict, seed);
    }
}

/// The same record with a handshake length that fits it.
fn mend_handshake_length(wire: &[u8]) -> Vec<u8> {
    record(22, &message(1, &wire[9..]))
}
