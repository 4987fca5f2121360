//! What judging the first bytes of a connection costs: a ClientHello, whole and in single bytes, and a request head.
//!
//! `cargo bench --package benches --bench client_hello`

#![allow(
    clippy::panic,
    reason = "a benchmark that measures the wrong thing must stop"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use sluicegate::sniff::{Event, Reader, RequestStream, Verdict};

/// As captured: 517 bytes, and 1,929 with a post-quantum key share and GREASE ECH.
const HELLOS: [(&str, &[u8]); 2] = [
    ("curl", include_bytes!("../data/curl.bin")),
    ("chromium", include_bytes!("../data/chromium.bin")),
];

const CONNECT: &[u8] = b"CONNECT files.example.test:443 HTTP/1.1\r\nHost: files.example.test:443\r\n\
    Proxy-Authorization: Basic c2Vzc18xMjM6dG9rLmVu\r\nUser-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\n\r\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    hellos(&mut criterion);
    head(&mut criterion);
    criterion.final_summary();
}

fn hellos(criterion: &mut Criterion) {
    for (client, hello) in HELLOS {
        let mut group = criterion.benchmark_group(format!("client_hello/{client}"));
        group.throughput(Throughput::Bytes(hello.len() as u64));
        for (cut, size) in [("whole", hello.len()), ("bytes", 1)] {
            let read = |mut reader: Reader| {
                let mut verdict = Verdict::NeedMore;
                for piece in hello.chunks(size) {
                    verdict = reader.feed(black_box(piece));
                }
                verdict
            };
            let Verdict::Hello(_) = read(Reader::new()) else {
                panic!("{client}: not a hello")
            };
            group.bench_function(cut, |b| {
                b.iter_batched(Reader::new, read, BatchSize::SmallInput)
            });
        }
    }
}

fn head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request_head");
    group.throughput(Throughput::Bytes(CONNECT.len() as u64));
    group.bench_function("connect", |b| {
        b.iter(|| match RequestStream::new().step(black_box(CONNECT)) {
            Event::Head(head) => head.len(),
            other => panic!("not a head: {other:?}"),
        });
    });
}
