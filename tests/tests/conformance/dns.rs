//! D. DNS: one resolution per open, every answer judged, failures told apart.

use std::net::IpAddr;
use std::time::Duration;

use e2e::Answer;
use hickory_proto::op::ResponseCode;
use serde_json::json;
use tokio::time::Instant;

use crate::forms::{FORMS, Form};
use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Expect::{self, Denied};
use crate::sandbox::{Sandbox, refusal_reason};
use crate::table::Row;
use crate::tap::{Mode, Tap};

static LAB: Shared = Shared::new(|| {
    let mut settings = settings();
    settings.more = "dns: {servers: [\"RESOLVER\"], timeout: 1s}\n".into();
    settings
});

const SPECIAL: Expect = Denied(&["special_address"]);
const METADATA: Expect = Denied(&["metadata_address"]);

fn ips(texts: &[&str]) -> Answer {
    Answer::Addresses(
        texts
            .iter()
            .map(|text| text.parse::<IpAddr>().unwrap())
            .collect(),
    )
}

/// Ask for an allowed name by every form: refused with this, nothing dialled.
async fn refused(lab: &Lab, row: &mut Row, session: &Sandbox, name: &str, expect: Expect) {
    let target = format!("{name}:{}", lab.api.port());
    session
        .refused_once_resolved(lab, row, &target, expect)
        .await;
}

/// Ask for an allowed name that cannot be resolved: this status, this reason.
async fn fails(lab: &Lab, row: &mut Row, name: &str, wanted: &[(u16, &str)]) {
    // SOCKS has one code for all of them.
    for form in FORMS.into_iter().filter(|form| *form != Form::Socks) {
        let target = format!("{name}:{}", lab.api.port());
        let (mark, reply) = lab.session.reply(lab, form, &target).await;
        let got = (reply.status(), refusal_reason(&reply));
        assert!(
            wanted
                .iter()
                .any(|one| (one.0, one.1) == (got.0, got.1.as_str())),
            "{form:?} {name}: {got:?}"
        );
        lab.nothing_dialled_since(&mark, name);
        row.on(form.front());
    }
}

/// Ask for names that are not there by CONNECT, in this order, three times.
async fn never_there(lab: &Lab, names: &[&str]) {
    for name in names.iter().chain(names).chain(names) {
        let target = format!("{name}:{}", lab.api.port());
        let (mark, reply) = lab.session.reply(lab, Form::Connect, &target).await;
        let got = (reply.status(), refusal_reason(&reply));
        let wanted = (502, "dns_not_found".to_owned());
        assert_eq!(got, wanted, "{name} of {names:?}");
        lab.nothing_dialled_since(&mark, name);
    }
}

async fn served(lab: &Lab, row: &mut Row, session: &Sandbox, name: &str) {
    let target = format!("{name}:{}", lab.api.port());
    session.served(lab, row, &target, &target, &lab.api).await;
}

#[test]
pub(crate) fn v032_rebinding() {
    LAB.run(32, async |lab, row| {
        let name = "rebind.wild.test";
        let target = format!("{name}:{}", lab.api.port());
        lab.dns.point(name);
        for opens in 1..=3 {
            lab.session.tunnel(&target).await;
            // A and AAAA, once each per open.
            assert_eq!(
                lab.dns.queries_for(name),
                2 * opens,
                "{:?}",
                lab.dns.queries()
            );
        }
        lab.dns.set_with_ttl(
            name,
            Answer::Addresses(vec![IpAddr::from([127, 0, 0, 1])]),
            1,
        );
        let mut wire = lab.session.tunnel(&target).await;
        lab.dns.set(name, ips(&["10.0.0.1"]));
        // The next open is judged anew as soon as the answer has expired, and not before.
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let deadline = Instant::now() + e2e::tasks::PATIENCE;
        loop {
            tick.tick().await;
            let mut next = lab.session.dial().await;
            let head = Form::Connect.head(target.as_bytes(), &lab.session.credential());
            next.send(head).await;
            if next.head().await.status == 403 {
                break;
            }
            assert!(Instant::now() < deadline, "the answer never expired");
        }
        refused(lab, row, &lab.session, name, SPECIAL).await;
        // The open tunnel stays where it was judged.
        wire.send(format!("GET /probe HTTP/1.1\r\nHost: {target}\r\n\r\n"))
            .await;
        assert_eq!(wire.reply().await.status(), 200);
    });
}

#[test]
pub(crate) fn v033_mixed_answers() {
    LAB.run(33, async |lab, row| {
        let name = "mixed.wild.test";
        for answers in [
            &["127.0.0.1", "10.0.0.1"][..],
            &["10.0.0.1", "127.0.0.1"],
            &["127.0.0.1", "fc00::1"],
        ] {
            lab.dns.set(name, ips(answers));
            refused(lab, row, &lab.session, name, SPECIAL).await;
        }
        let mut settings = settings();
        settings.more = "dns: {servers: [\"RESOLVER\"], mixedAnswers: filter}\n".into();
        let filtering = Lab::start(settings).await;
        filtering
            .dns
            .set(name, ips(&["10.0.0.1", "127.0.0.1", "fc00::1"]));
        served(&filtering, row, &filtering.session, name).await;
        let name = "unmixed.wild.test";
        filtering.dns.set(name, ips(&["10.0.0.1", "fc00::1"]));
        refused(&filtering, row, &filtering.session, name, SPECIAL).await;
    });
}

#[test]
pub(crate) fn v034_aliases() {
    LAB.run(34, async |lab, row| {
        lab.dns.set(
            "alias.wild.test",
            Answer::Alias("elsewhere.evil.test".into()),
        );
        lab.dns.point("elsewhere.evil.test");
        served(lab, row, &lab.session, "alias.wild.test").await;
        let target = format!("alias.wild.test:{}", lab.api.port());
        lab.gateway
            .record("a record with the chain", |record| {
                record.text("target") == target && record.mentions("elsewhere.evil.test")
            })
            .await;
        // Also where the rest of the way was known before.
        let here = Answer::Addresses(vec![IpAddr::from([127, 0, 0, 1])]);
        lab.dns.set_with_ttl("known.wild.test", here, 300);
        served(lab, row, &lab.session, "known.wild.test").await;
        let to = Answer::AliasAlone("known.wild.test".into());
        lab.dns.set_with_ttl("late.wild.test", to, 300);
        served(lab, row, &lab.session, "late.wild.test").await;
        let target = format!("late.wild.test:{}", lab.api.port());
        lab.gateway
            .record("a record with the end of the chain", |record| {
                record.text("target") == target && record.mentions("known.wild.test")
            })
            .await;
        let strict =
            json!({"egress": {"allowedHosts": [format!("*.wild.test:{}", lab.api.port())]}});
        let strict = lab.sandbox(strict).await;
        lab.dns
            .set("metadata.google.internal", ips(&["169.254.169.254"]));
        for (name, to, expect) in [
            ("near.wild.test", "localhost", SPECIAL),
            ("meta.wild.test", "metadata.google.internal", METADATA),
        ] {
            lab.dns.set(name, Answer::Alias(to.into()));
            refused(lab, row, &strict, name, expect).await;
        }
    });
}

#[test]
pub(crate) fn v035_alias_loops() {
    LAB.run(35, async |lab, row| {
        let failed: &[(u16, &str)] = &[(502, "dns_failed")];
        lab.dns
            .set("a.loop.wild.test", Answer::Alias("b.loop.wild.test".into()));
        lab.dns
            .set("b.loop.wild.test", Answer::Alias("a.loop.wild.test".into()));
        fails(lab, row, "a.loop.wild.test", failed).await;
        // An address beside the loop makes it no better.
        let here = vec![IpAddr::from([127, 0, 0, 1])];
        lab.dns.set(
            "c.loop.wild.test",
            Answer::AliasBeside("d.loop.wild.test".into(), here.clone()),
        );
        lab.dns
            .set("d.loop.wild.test", Answer::Alias("c.loop.wild.test".into()));
        fails(lab, row, "c.loop.wild.test", failed).await;
        lab.dns.set(
            "self.loop.wild.test",
            Answer::AliasBeside("self.loop.wild.test".into(), here),
        );
        fails(lab, row, "self.loop.wild.test", failed).await;
        for link in 0..12 {
            lab.dns.set(
                &format!("l{link}.wild.test"),
                Answer::Alias(format!("l{}.wild.test", link + 1)),
            );
        }
        lab.dns.point("l12.wild.test");
        fails(lab, row, "l0.wild.test", failed).await;
        served(lab, row, &lab.session, "l4.wild.test").await;
        lab.dns
            .set("only.wild.test", Answer::Alias("nothing.wild.test".into()));
        lab.dns
            .set("nothing.wild.test", Answer::Addresses(Vec::new()));
        fails(lab, row, "only.wild.test", &[(502, "dns_not_found")]).await;
    });
}

#[test]
pub(crate) fn v036_failures_are_told_apart() {
    LAB.run(36, async |lab, row| {
        for (name, answer, status, reason) in [
            ("missing.wild.test", Answer::Missing, 502, "dns_not_found"),
            ("failing.wild.test", Answer::Failing, 502, "dns_failed"),
            ("silent.wild.test", Answer::Silent, 504, "dns_timeout"),
            ("cut.wild.test", Answer::Truncated, 504, "dns_timeout"),
        ] {
            lab.dns.set(name, answer);
            fails(lab, row, name, &[(status, reason)]).await;
        }
        // What stands beside "no such name" is no address, also where the answer is cached.
        let beside = |code| Answer::CodeBeside(code, vec![lab.api.address.ip()]);
        for (name, code, reason) in [
            ("beside", ResponseCode::NXDomain, "dns_not_found"),
            ("torn", ResponseCode::ServFail, "dns_failed"),
            ("odd", ResponseCode::Unknown(12), "dns_failed"),
        ] {
            let name = format!("{name}.wild.test");
            lab.dns.set_with_ttl(&name, beside(code), 300);
            fails(lab, row, &name, &[(502, reason)]).await;
        }
        // Nor where aliases lead to it, however they are told and in whatever order they are asked for.
        let whole: fn(String) -> Answer = Answer::Alias;
        let alone: fn(String) -> Answer = Answer::AliasAlone;
        let mut case = 0;
        for [first, second] in [
            [whole, whole],
            [alone, alone],
            [alone, whole],
            [whole, alone],
        ] {
            for order in [[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]] {
                case += 1;
                let [one, two, gone] =
                    ["one", "two", "gone"].map(|name| format!("{name}.case{case}.wild.test"));
                lab.dns.set_with_ttl(&one, first(two.clone()), 300);
                lab.dns.set_with_ttl(&two, second(gone.clone()), 300);
                let nowhere = beside(ResponseCode::NXDomain);
                lab.dns.set_with_ttl(&gone, nowhere, 300);
                let names = [one, two, gone];
                never_there(lab, &order.map(|n| names[n].as_str())).await;
            }
        }
        // A name server that never answers for one family does not take the other away.
        let half = Answer::SilentSix(vec![lab.api.address.ip()]);
        lab.dns.set("half.wild.test", half);
        served(lab, row, &lab.session, "half.wild.test").await;
    });
}

#[test]
pub(crate) fn v037_a_thousand_records() {
    LAB.run(37, async |lab, row| {
        // Too many for a datagram: truncated, asked again over TCP, and only so many of them dialled.
        let many = (0..1000).map(|n| IpAddr::from([127, 0, (n / 250) as u8, (n % 250) as u8 + 1]));
        lab.dns
            .set("many.wild.test", Answer::Addresses(many.collect()));
        served(lab, row, &lab.session, "many.wild.test").await;
        // Judged are all: whether a set is mixed must not depend on its order.
        let public = (0..64).map(|n| IpAddr::from([127, 0, 0, n + 1]));
        let private = (0..100).map(|n| IpAddr::from([10, 0, 0, n + 1]));
        lab.dns.set(
            "capped.wild.test",
            Answer::Addresses(public.chain(private).collect()),
        );
        refused(lab, row, &lab.session, "capped.wild.test", SPECIAL).await;
    });
}

#[test]
pub(crate) fn v038_a_denied_name_is_never_asked_for() {
    LAB.run(38, async |lab, row| {
        lab.dns.point("secret-data.evil.test");
        for target in [
            "secret-data.evil.test:443",
            "secret-data.evil.test:80",
            "c2VjcmV0.evil.test:443",
        ] {
            lab.session
                .refused(lab, row, target, Denied(&["host_not_allowed"]))
                .await;
        }
        assert_eq!(lab.dns.queries_for("secret-data.evil.test"), 0);
    });
}

#[test]
pub(crate) fn v039_no_search_domains_no_hosts_file() {
    LAB.run(39, async |lab, row| {
        // Names this machine's hosts file knows, and names a search domain would complete.
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let mut names = vec!["single", "two.labels"];
        let listed = hosts.lines().filter(|line| !line.starts_with('#'));
        let listed = listed.flat_map(|line| line.split_whitespace().skip(1));
        // `localhost` is loopback by definition (RFC 6761 §6.3), whoever is asked.
        let sound = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        names.extend(listed.filter(|name| !name.contains("localhost") && sound(name)));
        let entries: Vec<String> = names.iter().map(|name| format!("{name}:*")).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let session = lab.allowing(&entries).await;
        for name in names {
            for form in FORMS.into_iter().filter(|form| *form != Form::Socks) {
                let target = format!("{name}:{}", lab.api.port());
                let (mark, reply) = session.reply(lab, form, &target).await;
                assert_eq!(
                    (reply.status(), refusal_reason(&reply).as_str()),
                    (502, "dns_not_found"),
                    "{name}"
                );
                let asked = lab.asked_since(&mark);
                assert!(
                    !asked.is_empty() && asked.iter().all(|(asked, _)| asked == name),
                    "{asked:?}"
                );
                row.on(form.front());
            }
        }
    });
}

#[test]
pub(crate) fn v041_broken_ipv6() {
    LAB.run(41, async |lab, row| {
        let egress = json!({
            "allowedHosts": ["*.wild.test:*"], "allowedAddresses": ["127.0.0.0/8", "::1/128"],
        });
        let session = lab.sandbox(json!({"egress": egress})).await;
        lab.dns.set("both.wild.test", ips(&["::1", "127.0.0.1"]));
        served(lab, row, &session, "both.wild.test").await;
        // IPv6 alone, where there is any.
        let Ok(tap) = Tap::start_on("[::1]:0".parse().unwrap(), Mode::Http).await else {
            return;
        };
        lab.dns.set("six.wild.test", ips(&["::1"]));
        let target = format!("six.wild.test:{}", tap.port());
        session.served(lab, row, &target, &target, &tap).await;
    });
}
