//! Where one message ends and the next begins.

use std::net::IpAddr;

use e2e::Answer;

use super::*;

#[test]
pub(crate) fn v061_length_and_coding() {
    LAB.run(61, async |lab, row| {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        ] {
            refused(lab, row, fields.as_bytes(), "0\r\n\r\n", 400).await;
        }
    });
}

#[test]
pub(crate) fn v062_spelling_of_the_coding() {
    LAB.run(62, async |lab, row| {
        for fields in [
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\x0b\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked;x=1\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: \x00chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        ] {
            refused(lab, row, fields.as_bytes(), "0\r\n\r\n", 400).await;
        }
        for fields in [
            "Transfer-Encoding: Chunked\r\n",
            "transfer-encoding: chunked\r\n",
            "TRANSFER-ENCODING: CHUNKED\r\n",
        ] {
            forwarded(lab, row, fields, "5\r\nhello\r\n0\r\n\r\n", "hello").await;
        }
    });
}

#[test]
pub(crate) fn v063_spelling_of_the_length() {
    LAB.run(63, async |lab, row| {
        for length in [
            "5, 5",
            "+5",
            "5 ",
            "0x5",
            "18446744073709551616",
            "-5",
            "5.0",
            "",
            "5a",
            "\t5",
            "5\r\n 5",
            "5;",
            "1e1",
            "99999999999999999999999",
        ] {
            refused(
                lab,
                row,
                format!("Content-Length: {length}\r\n").as_bytes(),
                "hello",
                400,
            )
            .await;
        }
        for twice in [["5", "6"], ["5", "5"], ["0", "5"]] {
            let fields = format!(
                "Content-Length: {}\r\nContent-Length: {}\r\n",
                twice[0], twice[1]
            );
            refused(lab, row, fields.as_bytes(), "hello", 400).await;
        }
        forwarded(lab, row, "Content-Length: 5\r\n", "hello", "hello").await;
    });
}

#[test]
pub(crate) fn v064_field_lines() {
    LAB.run(64, async |lab, row| {
        let lines: [&[u8]; 14] = [
            b"X: a\r\n b\r\n",
            b"X: a\r\n\tb\r\n",
            b"X: a\nY: b\r\n",
            b"X: a\rY: b\r\n",
            b": a\r\n",
            b"X : a\r\n",
            b"X\t: a\r\n",
            b"X: a\x00b\r\n",
            b"X: a\x7fb\r\n",
            b"X(): a\r\n",
            b"no colon\r\n",
            b"X: a\r\r\n",
            b"\x00: a\r\n",
            b"X\xe9: a\r\n",
        ];
        for line in lines {
            refused(lab, row, line, "", 400).await;
        }
    });
}

#[test]
pub(crate) fn v065_chunks() {
    LAB.run(65, async |lab, row| {
        let (name, address) = ("chunks.allowed.test", IpAddr::from([127, 0, 0, 2]));
        lab.dns.set(name, Answer::Addresses(vec![address]));
        let session = lab.allowing(&["chunks.allowed.test:*"]).await;
        // At the one port that is known of those who come by name.
        let at = |port: u16| Tap::start_on((address, port).into(), Mode::Http);
        let named = at(lab.api.port()).await.unwrap();
        for chunks in [
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "5;a\nb\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "\r\n5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "+5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n00x\r\n\r\n",
            "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
            "5\rX\nhello\r\n0\r\n\r\n",
        ] {
            for front in WAYS {
                let own = at(0).await.unwrap();
                let tap = if front == Front::Sni { &named } else { &own };
                let target = format!("{name}:{}", tap.port());
                let asks = (lab, &session);
                let (mut wire, head) = way_to(asks, &target, front, "POST", "/chunks").await;
                wire.send(format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}"
                ))
                .await;
                // The head was sound, so part of it may be up there already: then it is cut, and no reader can take it for whole.
                let (answer, _) = wire.rest().await;
                let answer = String::from_utf8_lossy(&answer).into_owned();
                assert!(
                    answer.is_empty()
                        || answer.starts_with("HTTP/1.1 400")
                        || answer.starts_with("HTTP/1.1 502"),
                    "{chunks:?}: {answer}"
                );
                assert_eq!(
                    answer.matches("HTTP/1.1").count(),
                    usize::from(!answer.is_empty()),
                    "{chunks:?}: {answer}"
                );
                for visit in tap.visits() {
                    let text = String::from_utf8_lossy(&visit.bytes);
                    assert!(!text.contains("/smuggled"), "{chunks:?}: {text}");
                    assert!(!text.ends_with("\r\n0\r\n\r\n"), "{chunks:?}: {text}");
                }
                row.on(front);
            }
        }
        forwarded(
            lab,
            row,
            "Transfer-Encoding: chunked\r\n",
            "5;a=b\r\nhello\r\n00\r\n\r\n",
            "hello",
        )
        .await;
    });
}
