//! Which name a hello says.

use super::*;

#[test]
pub(crate) fn v043_hello_in_the_segment_of_the_connect() {
    // Every case of this section runs so too; here the verdicts side by side.
    LAB.run(43, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        tunnels
            .passes_asked(row, REQUIRE, &[Hello::new(REQUIRE).wire()])
            .await;
        let wrong = [Hello::new("evil.test").wire()];
        tunnels
            .cuts_asked(row, REQUIRE, &wrong, Cut::Alert, "sni_mismatch")
            .await;
    });
}

#[test]
pub(crate) fn v073_another_name() {
    LAB.run(73, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        for rule in [REQUIRE, AUTO] {
            for name in [
                "evil.test",
                "x.require.tls.test",
                "tls.test",
                "api.allowed.test",
                "require.tls.testx",
            ] {
                tunnels
                    .cuts(
                        row,
                        rule,
                        &[Hello::new(name).wire()],
                        Cut::Alert,
                        "sni_mismatch",
                    )
                    .await;
            }
        }
    });
}

#[test]
pub(crate) fn v074_no_name() {
    LAB.run(74, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        for rule in [REQUIRE, AUTO] {
            tunnels
                .cuts(
                    row,
                    rule,
                    &[Hello::bare().wire()],
                    Cut::Alert,
                    "sni_missing",
                )
                .await;
        }
        tunnels
            .passes_asked(row, "opaque.tls.test", &[Hello::bare().wire()])
            .await;
        let captured = (Form::Captured, false);
        for hello in [Hello::bare(), Hello::new("127.0.0.1")] {
            let hello = [hello.wire()];
            tunnels.passes_asked(row, "127.0.0.1", &hello).await;
            tunnels.passes_by(row, "127.0.0.1", &hello, captured).await;
        }
        let other = [Hello::new("127.0.0.2").wire()];
        let cut = (Cut::Alert, "sni_mismatch");
        tunnels
            .cuts_by(row, "127.0.0.1", &other, captured, cut)
            .await;
        for name in ["127.0.0.2", "evil.test", REQUIRE] {
            tunnels
                .cuts_asked(
                    row,
                    "127.0.0.1",
                    &[Hello::new(name).wire()],
                    Cut::Alert,
                    "sni_mismatch",
                )
                .await;
        }
    });
}

#[test]
pub(crate) fn v075_spelling_of_the_name() {
    LAB.run(75, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        for name in ["REQUIRE.Tls.Test", "require.tls.test."] {
            tunnels
                .passes(row, REQUIRE, &[Hello::new(name).wire()])
                .await;
        }
        for name in [
            &b"require.tls.test\0"[..],
            b"require\0.tls.test",
            b"require.tls.test\xe9",
            b"",
            b"require.tls.test\n",
        ] {
            let hello = Hello::bare().with(0, &server_name(&[(0, name)]));
            tunnels
                .cuts(row, REQUIRE, &[hello.wire()], Cut::Alert, "tls_malformed")
                .await;
        }
        for name in [
            "127.0.0.1",
            "[::1]",
            "require.tls.test..",
            "require..tls.test",
        ] {
            tunnels.cuts_somehow(row, REQUIRE, name).await;
        }
    });
}

#[test]
pub(crate) fn v076_more_than_one_name() {
    LAB.run(76, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let good = (0, REQUIRE.as_bytes());
        let entry = server_name(&[good]);
        let contents = [
            server_name(&[good, good]),
            server_name(&[good, (0, b"evil.test")]),
            server_name(&[(0, b"evil.test"), good]),
            server_name(&[]),
            [&entry[..], &[0]].concat(),
            entry[..entry.len() - 1].to_vec(),
            Vec::new(),
            vec![0],
        ];
        for content in contents {
            let hello = Hello::bare().with(0, &content).wire();
            tunnels
                .cuts(row, REQUIRE, &[hello], Cut::Alert, "tls_malformed")
                .await;
        }
        let twice = Hello::new(REQUIRE).with(0, &entry).wire();
        tunnels
            .cuts(row, REQUIRE, &[twice], Cut::Alert, "tls_malformed")
            .await;
    });
}
