//! What it costs to seal records of TLS 1.3: 64 KiB at once, as a pump writes them, in four records; by the house's provider, and by
//! rustls' own. Both are asked in one run: what the processor's cipher costs is in both.
//!
//! `cargo bench --package benches --bench records`

#![allow(
    clippy::panic,
    reason = "a benchmark that measures the wrong thing must stop"
)]

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use rustls::{
    CipherSuite, ContentType, ProtocolVersion,
    crypto::{
        CryptoProvider, aws_lc_rs,
        cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage},
    },
};
use sluicegate_certs::{TrustBundle, tls};
use tikv_jemallocator::Jemalloc;

/// That of both programs: what a copy takes depends on where its ends are in their pages.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

const RECORD: usize = 16 * 1024;
const WRITTEN: usize = 4 * RECORD;

fn main() {
    let Ok(config) = tls::client(&TrustBundle::empty(), &[], None) else {
        panic!("no provider")
    };
    let providers = [
        ("rustls", Arc::new(aws_lc_rs::default_provider())),
        ("house", Arc::clone(config.crypto_provider())),
    ];
    let content = vec![7; WRITTEN];
    let mut criterion = Criterion::default().configure_from_args();
    for (pieces, length) in [("64 KiB", WRITTEN), ("1 KiB", 1024)] {
        let mut group = criterion.benchmark_group(format!("records/{pieces}"));
        group.throughput(Throughput::Bytes(length as u64));
        for (name, provider) in &providers {
            let mut encrypter = encrypter(provider);
            let mut number = 0;
            let content = content.get(..length).unwrap_or_default();
            group.bench_function(*name, |b| {
                b.iter(|| {
                    for piece in content.chunks(RECORD) {
                        let message = OutboundPlainMessage {
                            typ: ContentType::ApplicationData,
                            version: ProtocolVersion::TLSv1_3,
                            payload: OutboundChunks::Single(black_box(piece)),
                        };
                        let Ok(record) = encrypter.encrypt(message, number) else {
                            panic!("not sealed")
                        };
                        black_box(record.encode());
                        // From 0 and growing, or aws-lc refuses to seal.
                        number += 1;
                    }
                });
            });
        }
    }
    criterion.final_summary();
}

/// With 256-bit keys: those can be made of bytes here.
fn encrypter(provider: &CryptoProvider) -> Box<dyn MessageEncrypter> {
    let wanted = CipherSuite::TLS13_AES_256_GCM_SHA384;
    let mut suites = provider.cipher_suites.iter();
    let suite = suites.find(|suite| suite.suite() == wanted);
    let Some(suite) = suite.and_then(|suite| suite.tls13()) else {
        panic!("no {wanted:?}")
    };
    suite
        .aead_alg
        .encrypter(AeadKey::from([1; 32]), Iv::from([2; 12]))
}
