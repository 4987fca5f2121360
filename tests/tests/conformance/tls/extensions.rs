//! What else stands in a hello, and a second one.

use super::*;

#[test]
pub(crate) fn v083_unknown_extensions() {
    LAB.run(83, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let odd = |name: &str| {
            Hello::new(name)
                .with(0x0a0a, b"")
                .with(0xfafa, &[0])
                .with(0xff77, &[1; 300])
                .wire()
        };
        tunnels.passes(row, REQUIRE, &[odd(REQUIRE)]).await;
        tunnels
            .cuts(
                row,
                REQUIRE,
                &[odd("evil.test")],
                Cut::Alert,
                "sni_mismatch",
            )
            .await;
    });
}

#[test]
pub(crate) fn v084_ech_with_the_targets_outer_name() {
    LAB.run(84, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let ech = |name: &str| Hello::new(name).with(ECH, &ECH_OUTER).wire();
        tunnels.passes(row, REQUIRE, &[ech(REQUIRE)]).await;
        let logged = |one: &e2e::Record| one.flag("ech") && one.text("target").starts_with(REQUIRE);
        lab.gateway
            .record("a hello that was encrypted", logged)
            .await;
        tunnels
            .cuts(
                row,
                "deny.tls.test",
                &[ech("deny.tls.test")],
                Cut::Alert,
                "ech_denied",
            )
            .await;
        tunnels
            .passes(row, "deny.tls.test", &[Hello::new("deny.tls.test").wire()])
            .await;
    });
}

#[test]
pub(crate) fn v085_ech_with_a_public_name() {
    LAB.run(85, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let ech = |name: &str| Hello::new(name).with(ECH, &ECH_OUTER).wire();
        tunnels
            .cuts(
                row,
                REQUIRE,
                &[ech("cloudflare-ech.com")],
                Cut::Alert,
                "sni_mismatch",
            )
            .await;
        // Where nobody has asked for the target, the public name is one itself.
        tunnels
            .passes_asked(row, "public.tls.test", &[ech("cloudflare-ech.com")])
            .await;
        tunnels
            .passes(row, "public.tls.test", &[ech("public.tls.test")])
            .await;
        tunnels
            .cuts(
                row,
                "public.tls.test",
                &[ech("evil.test")],
                Cut::Alert,
                "sni_mismatch",
            )
            .await;
        // The public name is for ECH; without it, it is just another host.
        let plain = [Hello::new("cloudflare-ech.com").wire()];
        tunnels
            .cuts(row, "public.tls.test", &plain, Cut::Alert, "sni_mismatch")
            .await;
    });
}

#[test]
pub(crate) fn v087_second_hello() {
    LAB.run(87, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let ech = |name: &str| Hello::new(name).with(ECH, &ECH_OUTER).wire();
        let plain = Hello::new(REQUIRE).wire();
        let public = "public.tls.test";
        for form in SLOW {
            for first in [plain.clone(), ech(REQUIRE)] {
                let (mut wire, tap) = retried(&tunnels, form, REQUIRE, &first).await;
                let mut second = Hello::new(REQUIRE).with(0xff77, b"cookie");
                if first != plain {
                    second = second.with(ECH, &ECH_OUTER);
                }
                let second = second.wire();
                wire.send(&second).await;
                tap.receives(&[first, second].concat(), "a second hello")
                    .await;
            }
            let mut spoilt = vec![
                (REQUIRE, plain.clone(), Hello::new("evil.test").wire()),
                (REQUIRE, plain.clone(), Hello::bare().wire()),
                // What each of them may say alone, and not one after the other.
                (REQUIRE, plain.clone(), ech(REQUIRE)),
                (REQUIRE, ech(REQUIRE), plain.clone()),
            ];
            // Where nobody has asked for the target, the public name is one itself.
            if !matches!(form, Form::Captured | Form::Named) {
                spoilt.push((public, ech("cloudflare-ech.com"), ech(public)));
                spoilt.push((public, ech(public), ech("cloudflare-ech.com")));
            }
            for (host, first, second) in spoilt {
                let (mut wire, tap) = retried(&tunnels, form, host, &first).await;
                let target = format!("{host}:{}", tap.port());
                let cut = || {
                    let mut records = records_of(lab, &target);
                    records.retain(|record| record.text("outcome") == "cut");
                    records.len()
                };
                let before = cut();
                wire.send(&second).await;
                wire.cut().await;
                tap.receives(&first, "nothing behind the first hello").await;
                until("a cut", || (cut() > before).then_some(())).await;
                assert_eq!(tap.bytes(), first);
            }
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v088_early_data() {
    LAB.run(88, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let early = |name: &str| {
            [
                Hello::new(name).with(42, b"").wire(),
                record(23, b"early data"),
            ]
            .concat()
        };
        tunnels.passes(row, REQUIRE, &[early(REQUIRE)]).await;
        tunnels
            .cuts(
                row,
                REQUIRE,
                &[early("evil.test")],
                Cut::Alert,
                "sni_mismatch",
            )
            .await;
    });
}

#[test]
pub(crate) fn v089_resumption_under_another_name() {
    LAB.run(89, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        // pre_shared_key: one identity of six bytes, one binder (RFC 8446 §4.2.11).
        let ticket = [
            &[0, 12, 0, 6][..],
            b"ticket",
            &[0, 0, 0, 1],
            &[0, 33, 32],
            &[5; 32],
        ]
        .concat();
        let resumed = |name: &str| Hello::new(name).with(45, &[1, 1]).with(41, &ticket).wire();
        tunnels.passes(row, REQUIRE, &[resumed(REQUIRE)]).await;
        tunnels
            .cuts(
                row,
                REQUIRE,
                &[resumed("evil.test")],
                Cut::Alert,
                "sni_mismatch",
            )
            .await;
    });
}
