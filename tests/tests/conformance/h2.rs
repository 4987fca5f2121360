//! E. The rows of HTTP/2, byte by byte: no client library would send these. HTTP/3 has the same.

use e2e::Wire;
use e2e::frames::{GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame};
use tokio::io::AsyncReadExt;

use crate::lab::{Lab, Shared, settings};
use crate::table::Front;

static LAB: Shared = Shared::new(settings);

/// What became of stream 1.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The first byte of the response's field block: a status of the static table, or a literal one.
    Status(u16),
    /// RST_STREAM, or the whole connection's end.
    Error,
}

/// The status a response block begins with (RFC 7541 §6.1, appendix A; a literal's three digits may be Huffman-coded).
fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [first @ 0x88..=0x8e, ..] => INDEXED[usize::from(first - 0x88)],
        [0x48 | 0x08, 3, a, b, c, ..] => [a, b, c]
            .iter()
            .fold(0, |all, digit| all * 10 + u16::from(**digit - b'0')),
        // 501 in Huffman code: "5" 011011, "0" 00000, "1" 00001, then padding.
        [0x48 | 0x08, 0x82, 0x6c, 0x00, ..] => 500,
        [0x48 | 0x08, 0x82, 0x6c, 0x01, ..] => 501,
        [0x48 | 0x08, 0x83, 0x6c, 0x00, 0x7f, ..] => 501,
        _ => panic!(
            "a status block of another kind: {:x?}",
            &block[..block.len().min(8)]
        ),
    }
}

async fn ask(lab: &Lab, fields: &[(&str, &str)]) -> Answer {
    let mut wire = Wire::dial(lab.gateway.ports.plain).await;
    let request = frame(HEADERS, 5, 1, &block(fields));
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &request].concat())
        .await;
    loop {
        let mut head = [0; 9];
        let read = e2e::within("a frame", wire.stream.read_exact(&mut head)).await;
        if read.is_err() {
            return Answer::Error;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        e2e::within("a payload", wire.stream.read_exact(&mut payload))
            .await
            .unwrap();
        match head[3] {
            HEADERS => return Answer::Status(status(&payload)),
            RST_STREAM | GOAWAY => return Answer::Error,
            _ => {}
        }
    }
}

/// The same of HTTP/3.
async fn ask3(lab: &Lab, fields: &[(&str, &str)]) -> Answer {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let fields: Vec<_> = fields.iter().map(own).collect();
    let mut exchange = lab.http3().await.ask(&fields, false).await;
    match exchange.head().await {
        Some(head) => Answer::Status(head.status),
        None => Answer::Error,
    }
}

#[test]
pub(crate) fn v052_connect_with_scheme_and_path() {
    LAB.run(52, async |lab, row| {
        let mark = lab.mark();
        let target = lab.api_target();
        for extra in [
            &[(":scheme", "https"), (":path", "/")][..],
            &[(":scheme", "https")],
            &[(":path", "/")],
        ] {
            let fields = [
                &[(":method", "CONNECT"), (":authority", target.as_str())][..],
                extra,
            ]
            .concat();
            assert_eq!(ask(lab, &fields).await, Answer::Error, "{extra:?}");
            let malformed = [Answer::Error, Answer::Status(400)];
            assert!(malformed.contains(&ask3(lab, &fields).await), "{extra:?}");
        }
        lab.nothing_since(&mark, "CONNECT with a path");
        row.on(Front::Http2);
        row.on(Front::Http3);
    });
}

#[test]
pub(crate) fn v053_authority_and_host() {
    LAB.run(53, async |lab, row| {
        let mark = lab.mark();
        let get = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/healthz"),
        ];
        let with = |more: &[(&'static str, &'static str)]| [&get[..], more].concat();
        let differing = with(&[(":authority", "gateway.test"), ("host", "evil.test")]);
        assert_eq!(ask(lab, &differing).await, Answer::Status(400));
        let twice = with(&[(":authority", "gateway.test"), (":authority", "evil.test")]);
        assert!(matches!(
            ask(lab, &twice).await,
            Answer::Error | Answer::Status(400)
        ));
        let hosts = with(&[
            (":authority", "gateway.test"),
            ("host", "gateway.test"),
            ("host", "evil.test"),
        ]);
        assert!(matches!(
            ask(lab, &hosts).await,
            Answer::Error | Answer::Status(400)
        ));
        let none = with(&[]);
        assert!(matches!(
            ask(lab, &none).await,
            Answer::Error | Answer::Status(400)
        ));
        let same = with(&[(":authority", "gateway.test"), ("host", "gateway.test")]);
        assert_eq!(ask(lab, &same).await, Answer::Status(200), "the control");
        let own = |fields: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
            let scheme = |(name, value)| (name, if value == "http" { "https" } else { value });
            fields.iter().copied().map(scheme).collect()
        };
        for fields in [&differing, &twice, &hosts, &none] {
            let malformed = [Answer::Error, Answer::Status(400)];
            let answer = ask3(lab, &own(fields)).await;
            assert!(malformed.contains(&answer), "{fields:?}: {answer:?}");
        }
        assert_eq!(ask3(lab, &own(&same)).await, Answer::Status(200));
        lab.nothing_since(&mark, "two names");
        row.on(Front::Http2);
        row.on(Front::Http3);
    });
}

#[test]
pub(crate) fn v054_other_protocols() {
    LAB.run(54, async |lab, row| {
        let mark = lab.mark();
        for protocol in ["websocket", "connect-udp", "connect-ip", "nonsense"] {
            let fields = [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "http"),
                (":path", "/x"),
                (":authority", "gateway.test"),
            ];
            assert_eq!(ask(lab, &fields).await, Answer::Status(501), "{protocol}");
            assert_eq!(ask3(lab, &fields).await, Answer::Status(501), "{protocol}");
        }
        lab.nothing_since(&mark, "another protocol");
        row.on(Front::Http2);
        row.on(Front::Http3);
    });
}
