//! Names that are, or are not, the allowed one.

use super::*;

#[test]
pub(crate) fn v001_upper_case() {
    LAB.run(1, async |lab, row| {
        let hosts = ["API.Allowed.TEST", "aPI.aLLOWED.test", "api.allowed.test"];
        equal(lab, row, &hosts, "api.allowed.test").await;
    });
}

#[test]
pub(crate) fn v002_one_trailing_dot() {
    LAB.run(2, async |lab, row| {
        equal(
            lab,
            row,
            &["api.allowed.test.", "API.allowed.TEST."],
            "api.allowed.test",
        )
        .await;
        let (port, dotted) = (lab.api.port(), "api.allowed.test.");
        let denying = lab
            .sandbox(json!({"egress": {
                "allowedHosts": [lab.api_target()],
                "deniedHosts": ["api.allowed.test:*"],
                "allowedAddresses": ["127.0.0.0/8"],
            }}))
            .await;
        let authority = format!("{dotted}:{port}");
        denying
            .refused(lab, row, authority, Denied(&["host_denied"]))
            .await;
    });
}

#[test]
pub(crate) fn v010_other_full_stops() {
    LAB.run(10, async |lab, row| {
        let hosts =
            ['\u{3002}', '\u{ff0e}', '\u{ff61}'].map(|dot| format!("api{dot}allowed{dot}test"));
        malformed(lab, row, hosts).await;
        // The configuration's author may write them; the pattern then means the ASCII name.
        let port = lab.api.port();
        let session = lab
            .allowing(&[&format!("api\u{3002}allowed\u{ff0e}test:{port}")])
            .await;
        let target = lab.api_target();
        session.served(lab, row, &target, &target, &lab.api).await;
    });
}

#[test]
pub(crate) fn v011_letters_that_look_alike() {
    LAB.run(11, async |lab, row| {
        let hosts = [
            "\u{ff41}pi.allowed.test",
            "\u{430}pi.allowed.test",
            "api.allowed.te\u{df}t",
            "api\u{200d}.allowed.test",
            "api\u{200c}.allowed.test",
            "api\u{ad}.allowed.test",
            "\u{202e}api.allowed.test",
            "api.\u{212b}.test",
            "\u{130}.wild.test",
            "\u{feff}api.allowed.test",
            "api\u{2060}.allowed.test",
            "\u{ff11}27.0.0.1",
        ];
        malformed(lab, row, hosts).await;
    });
}

#[test]
pub(crate) fn v012_bad_a_labels() {
    LAB.run(12, async |lab, row| {
        let hosts = [
            "xn--.wild.test",
            "xn--a.wild.test",
            "xn--api-.wild.test",
            "xn--\u{e4}.wild.test",
            "xn--ls8h=.wild.test",
            "XN--API-.wild.test",
            "xn--a-ecp.xn--api-",
            "xn--0.wild.test",
            "xn--zca.xn--zzzzzzzzz.wild.test",
        ];
        malformed(lab, row, hosts).await;
        lab.dns.point("xn--bcher-kva.wild.test");
        equal(
            lab,
            row,
            &["xn--bcher-kva.wild.test", "XN--Bcher-KVA.wild.test"],
            "xn--bcher-kva.wild.test",
        )
        .await;
    });
}

#[test]
pub(crate) fn v013_lengths() {
    LAB.run(13, async |lab, row| {
        let label = |length: usize| "a".repeat(length);
        let name = |length: usize| {
            let labels = format!("{0}.{0}.{0}.", label(60));
            format!(
                "{labels}{}.wild.test",
                label(length - labels.len() - ".wild.test".len())
            )
        };
        assert_eq!(name(254).len(), 254);
        malformed(
            lab,
            row,
            [format!("{}.wild.test", label(64)), name(254), String::new()],
        )
        .await;
        for longest in [format!("{}.wild.test", label(63)), name(253)] {
            lab.dns.point(&longest);
            equal(lab, row, &[&longest], &longest).await;
        }
    });
}

#[test]
pub(crate) fn v014_underscores() {
    LAB.run(14, async |lab, row| {
        for name in [
            "_srv.wild.test",
            "a_b.wild.test",
            "_dmarc._tcp.wild.test",
            "a--b.wild.test",
        ] {
            lab.dns.point(name);
            equal(lab, row, &[name], name).await;
        }
    });
}

#[test]
pub(crate) fn v016_names_around_the_allowed_one() {
    LAB.run(16, async |lab, row| {
        let hosts = [
            "api.allowed.test.evil.test",
            "notapi.allowed.test",
            "evilwild.test",
            "allowed.test",
            "x.api.allowed.test",
            "api-allowed.test",
            "api.allowed.test-evil",
            "a.wild.test.evil.test",
            "a.wildx.test",
        ];
        denied(lab, row, &hosts).await;
    });
}

#[test]
pub(crate) fn v017_a_wildcard_and_its_apex() {
    LAB.run(17, async |lab, row| {
        denied(lab, row, &["wild.test", "WILD.test.", "test"]).await;
        for host in ["a.wild.test", "a.b.wild.test", "a.b.c.wild.test"] {
            lab.dns.point(host);
            equal(lab, row, &[host], host).await;
        }
    });
}

#[test]
pub(crate) fn v018_broad_patterns_at_load() {
    LAB.run(18, async |lab, row| {
        let path = "/runtime/providers/test/sessions";
        for pattern in [
            "*",
            "*.com",
            "*.co.uk",
            "a*b.*",
            "",
            "*.*",
            "api.*.test",
            "**.test",
            "*.",
            "*a.test",
        ] {
            for list in ["allowedHosts", "deniedHosts"] {
                let body = json!({"egress": {list: [pattern]}}).to_string();
                let reply = lab.gateway.admin("POST", path, &body).await;
                let broad = list == "deniedHosts" && matches!(pattern, "*.com" | "*.co.uk" | "*");
                // A broad deny widens nothing, so it may be written; a broad allow may not.
                if !broad {
                    assert_eq!(reply.status(), 422, "{list} {pattern:?}: {}", reply.text());
                }
            }
        }
        for pattern in ["*.s3.amazonaws.com", "*.amazonaws.com", "*.internal"] {
            let file = lab.gateway.directory().join("warned.yaml");
            std::fs::write(
                &file,
                format!("egress: {{allowedHosts: [\"{pattern}\"]}}\n"),
            )
            .unwrap();
            let checked = check(&file).await;
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&checked.stdout),
                checked.stderr
            );
            assert_eq!(checked.code, Some(0), "{pattern}: {said}");
            assert!(
                said.contains("warning") && said.contains(pattern),
                "{pattern}: {said}"
            );
        }
        row.on(crate::table::Front::Configuration);
    });
}
