//! How a hello is cut into segments and records.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;
use crate::lab::alone;

/// So many segments take a busy machine longer than the first bytes are waited for in the other rows.
#[test]
pub(crate) fn v077_one_byte_per_segment() {
    alone(77, async |row| {
        let mut settings = settings();
        settings.limits = "  firstBytesTimeout: 10m\n".to_owned();
        let lab = Lab::start(settings).await;
        let tunnels = Tunnels::of(&lab).await;
        let bytes = |hello: Hello| -> Vec<[u8; 1]> {
            hello.wire().into_iter().map(|byte| [byte]).collect()
        };
        tunnels
            .passes(row, REQUIRE, &bytes(Hello::new(REQUIRE)))
            .await;
        let wrong = bytes(Hello::new("evil.test"));
        tunnels
            .cuts(row, REQUIRE, &wrong, Cut::Alert, "sni_mismatch")
            .await;
    });
}

#[test]
pub(crate) fn v078_many_records() {
    LAB.run(78, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let (right, wrong) = (Hello::new(REQUIRE), Hello::new("evil.tls.test"));
        let inside = right
            .message()
            .windows(7)
            .position(|part| part == b"require")
            .unwrap()
            + 3;
        for most in [1, 2, 5, inside, 64] {
            tunnels.passes(row, REQUIRE, &[right.records(most)]).await;
            tunnels
                .cuts(
                    row,
                    REQUIRE,
                    &[wrong.records(most)],
                    Cut::Alert,
                    "sni_mismatch",
                )
                .await;
        }
        let two = |hello: &Hello| record(22, &[hello.message(), message(4, b"ticket")].concat());
        tunnels.passes(row, REQUIRE, &[two(&right)]).await;
        tunnels
            .cuts(row, REQUIRE, &[two(&wrong)], Cut::Alert, "sni_mismatch")
            .await;
    });
}

#[test]
pub(crate) fn v079_records_that_do_not_belong() {
    LAB.run(79, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let hello = Hello::new(REQUIRE).message();
        let (one, two) = hello.split_at(60);
        for middle in [
            record(22, b""),
            record(20, &[1]),
            record(21, &[1, 90]),
            record(23, b"x"),
            record(24, b"x"),
        ] {
            let bytes = [record(22, one), middle, record(22, two)].concat();
            tunnels
                .cuts(row, REQUIRE, &[bytes], Cut::Alert, "tls_malformed")
                .await;
        }
        tunnels
            .cuts(
                row,
                REQUIRE,
                &[record(22, b"")],
                Cut::Alert,
                "tls_malformed",
            )
            .await;
        // RFC 8446 appendix D.4: after a HelloRetryRequest one dummy change_cipher_spec is in order.
        for form in SLOW {
            let first = Hello::new(REQUIRE).wire();
            let (mut wire, tap) = retried(&tunnels, form, REQUIRE, &first).await;
            let second = [record(20, &[1]), Hello::new(REQUIRE).wire()].concat();
            wire.send(&second).await;
            let both = [first, second].concat();
            tap.receives(&both, "a second hello behind change_cipher_spec")
                .await;
        }
    });
}

#[test]
pub(crate) fn v080_lengths() {
    LAB.run(80, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        // The longest length that can be written: refused by the length alone.
        let longest = [&[22, 3, 1, 0, 4, 1][..], &[0xff; 3]].concat();
        tunnels
            .cuts(row, REQUIRE, &[longest], Cut::Alert, "tls_malformed")
            .await;
        // More announced than comes: nothing goes up, and the deadline ends it.
        let hello = Hello::new(REQUIRE).message();
        let short = record(22, &[&[1, 0, 1, 0], &hello[4..]].concat());
        tunnels
            .cuts(row, REQUIRE, &[short], Cut::Alert, "first_bytes_timeout")
            .await;
        for padding in [1_800, 16_000, 60_000] {
            let padded = |name: &str| {
                Hello::new(name)
                    .with(21, &vec![0; padding])
                    .records(1 << 14)
            };
            tunnels.passes(row, REQUIRE, &[padded(REQUIRE)]).await;
            tunnels
                .cuts(
                    row,
                    REQUIRE,
                    &[padded("evil.test")],
                    Cut::Alert,
                    "sni_mismatch",
                )
                .await;
        }
    });
}

#[test]
pub(crate) fn v081_drip() {
    LAB.run(81, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let asked = SLOW.map(|form| (form, REQUIRE));
        for (form, rule) in asked.into_iter().chain([(Form::Connect, AUTO)]) {
            let tap = tunnels.tap(form, Mode::Silent).await;
            let refused = || {
                let mut records = lab.gateway.records();
                records.retain(|record| record.text("reason") == "first_bytes_timeout");
                records
            };
            let before = refused().len();
            let start = Instant::now();
            let mut wire = tunnels.open(rule, &tap, form, b"").await;
            // A byte now and then until the gateway has had enough; the pace is the attack, not a wait for something.
            let mut drip = tokio::time::interval(Duration::from_millis(200));
            for byte in Hello::new(rule).wire() {
                drip.tick().await;
                let sent = wire.stream.write_all(&[byte]).await;
                if sent.is_err() || refused().len() > before {
                    break;
                }
            }
            until("a record", || refused().into_iter().nth(before)).await;
            let lasted = start.elapsed();
            let expected = Duration::from_millis(900)..Duration::from_secs(10);
            assert!(expected.contains(&lasted), "{form:?} {rule}: {lasted:?}");
            tap.got_nothing("a drip").await;
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v082_versions() {
    LAB.run(82, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let v2 = |version: [u8; 2]| {
            let head = [0x80, 0x2e, 1, version[0], version[1], 0, 21, 0, 0, 0, 16];
            [&head[..], &[1; 37]].concat()
        };
        for version in [[0, 2], [3, 4], [3, 5], [3, 0x7f], [3, 0xff]] {
            for rule in [REQUIRE, AUTO] {
                tunnels
                    .cuts(row, rule, &[v2(version)], Cut::Reset, "tls_malformed")
                    .await;
            }
        }
        for minor in 0..=4 {
            let with = |name: &str| {
                let mut wire = Hello::new(name).wire();
                wire[2] = minor;
                wire
            };
            tunnels.passes(row, REQUIRE, &[with(REQUIRE)]).await;
            tunnels
                .cuts(
                    row,
                    REQUIRE,
                    &[with("evil.test")],
                    Cut::Alert,
                    "sni_mismatch",
                )
                .await;
        }
    });
}
