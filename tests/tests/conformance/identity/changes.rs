//! What changes while somebody asks.

use e2e::RawOrigin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::hello::Hello;

#[test]
pub(crate) fn v107_revoked_in_mid_tunnel() {
    LAB.run(107, async |lab, row| {
        let api = lab.api_target();
        let mut other = lab.session.tunnel(&api).await;
        for form in crate::forms::FORMS {
            other
                .send("GET /probe HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
                .await;
            assert_eq!(other.reply().await.status(), 200, "the neighbour's tunnel");
            let session = lab.allowing(&[&api]).await;
            // What is no tunnel is in the middle of its answer.
            let half = Mode::Answer(HALF.to_vec());
            let tap = (!form.tunnels()).then(|| lab.api.afresh(half));
            let mut wire = if form.tunnels() {
                session.opened(lab, form, &api, b"").await
            } else {
                let (head, mut body) = session.begun(lab, form, &api).await.unwrap();
                assert_eq!(head.status, 200, "{form:?}");
                assert_eq!(body.take(4).await, b"half", "{form:?}");
                body
            };
            act(lab, &session, "reset").await;
            let took = wire.cut().await;
            assert!(took < Duration::from_secs(1), "{form:?}: {took:?}");
            let own = |one: &e2e::Record| one.0["session"]["id"] == session.id.as_str();
            let record = lab.gateway.record("what was cut", own).await;
            let said = (record.text("reason"), record.text("outcome"));
            assert_eq!(said, ("session_revoked", "cut"), "{form:?} {record:?}");
            drop(tap);
            row.on(form.front());
        }
        other
            .send("GET /probe HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
            .await;
        assert_eq!(other.reply().await.status(), 200, "the neighbour's tunnel");
    });
}

#[test]
pub(crate) fn v108_a_tighter_policy_cuts_exactly_what_it_forbids() {
    LAB.run(108, async |lab, row| {
        let (api, plain) = (lab.api_target(), lab.plain_target());
        let session = lab.allowing(&[&api, &plain]).await;
        let (mut stays, mut goes) = (session.tunnel(&api).await, session.tunnel(&plain).await);
        let egress = json!({"allowedHosts": [api], "allowedAddresses": ["127.0.0.0/8"]});
        session.patch(&lab.gateway, egress).await;
        assert!(goes.cut().await < Duration::from_secs(1));
        let what = "the cut tunnel's record";
        let record = lab
            .gateway
            .record(what, |one| one.text("reason") == "policy_changed")
            .await;
        assert_eq!(
            (record.text("target"), record.text("outcome")),
            (plain.as_str(), "cut")
        );
        stays
            .send("GET /probe HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
            .await;
        assert_eq!(stays.reply().await.status(), 200);
        session
            .refused(lab, row, plain.clone(), Denied(&["host_not_allowed"]))
            .await;
        // Plain HTTP in a tunnel is cut as the tunnel would be, between two requests and in the middle of an answer.
        lab.dns.point("half.allowed.test");
        let origin = RawOrigin::start().await;
        let half = format!("half.allowed.test:{}", origin.address.port());
        let session = lab.allowing(&[&lab.api_target(), &plain, &half]).await;
        let request = |host: &str| format!("GET /probe HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (mut idle, mut busy) = (session.tunnel(&plain).await, session.tunnel(&half).await);
        idle.send(request(&plain)).await;
        assert_eq!(idle.reply().await.status(), 200);
        busy.send(request(&half)).await;
        let mut far = origin.accept().await;
        // An answer before its request would be none.
        assert_ne!(far.read(&mut [0; 1000]).await.unwrap(), 0);
        far.write_all(HALF).await.unwrap();
        assert_eq!(busy.head().await.status, 200);
        let egress = json!({"allowedHosts": [api], "allowedAddresses": ["127.0.0.0/8"]});
        session.patch(&lab.gateway, egress).await;
        assert!(idle.cut().await < Duration::from_secs(1));
        assert!(busy.cut().await < Duration::from_secs(1));
        // Two tunnels and one exchange; the other had ended.
        let mut ids = Vec::new();
        while ids.len() < 3 {
            let record = lab
                .gateway
                .record("a cut's record", |one| {
                    one.text("reason") == "policy_changed"
                        && one.mentions(&session.id)
                        && !ids.contains(&one.text("id").to_owned())
                })
                .await;
            ids.push(record.text("id").to_owned());
        }
        // A rule that asks for less leaves what is open; one that asks for more does not.
        let api = lab.api_target();
        let with = |rule: serde_json::Value| {
            let mut rule = rule;
            rule["host"] = json!(api);
            json!({"allowedHosts": [api], "allowedAddresses": ["127.0.0.0/8"], "rules": [rule]})
        };
        let auto = with(json!({"tls": "auto", "ech": "deny"}));
        let session = lab.sandbox(json!({"egress": auto})).await;
        let mut tunnel = session.tunnel(&api).await;
        // Neither TLS nor HTTP: the gate is open, and stays so.
        tunnel.send("\0open").await;
        for looser in [
            json!({"ech": "outer"}),
            json!({"tls": "opaque"}),
            json!({"tls": "auto"}),
        ] {
            session.patch(&lab.gateway, with(looser)).await;
        }
        tunnel.stays_quiet().await;
        session
            .patch(&lab.gateway, with(json!({"tls": "require"})))
            .await;
        assert!(tunnel.cut().await < Duration::from_secs(1));
        what_was_seen_decides(lab).await;
    });
}

/// A tunnel is judged by what it began with, as a new one would be that begins so.
async fn what_was_seen_decides(lab: &Lab) {
    const ECH: u16 = 0xfe0d;
    let name = "seen.allowed.test";
    lab.dns.point(name);
    let origin = RawOrigin::start().await;
    let target = format!("{name}:{}", origin.address.port());
    let with = |more: serde_json::Value| {
        let mut egress = json!({"allowedHosts": [target], "allowedAddresses": ["127.0.0.0/8"]});
        for (key, value) in more.as_object().into_iter().flatten() {
            egress[key] = value.clone();
        }
        egress
    };
    let rule = |mut rule: serde_json::Value| {
        rule["host"] = json!(target);
        with(json!({ "rules": [rule] }))
    };
    let plain = Hello::new(name).wire();
    let encrypted = Hello::new(name).with(ECH, &[0; 10]).wire();
    let ruled = |mode: &str| {
        let rule = json!({"host": target, "http": {"methods": ["GET"]}});
        with(json!({"mode": mode, "rules": [rule]}))
    };
    let answer = |address: &str| with(json!({"hosts": {name: address}}));
    let front = json!({"ech": {"publicNames": ["front.test"]}});
    let outer = || rule(json!({"ech": "outer"}));
    for (bytes, before, after, stays) in [
        (&plain, outer(), rule(json!({"tls": "require"})), true),
        (&plain, outer(), rule(json!({"ech": "deny"})), true),
        (&plain, rule(front.clone()), outer(), true),
        (&encrypted, rule(front), outer(), true),
        (&encrypted, outer(), rule(json!({"ech": "deny"})), false),
        (&plain, ruled("report"), ruled("enforce"), false),
        (&plain, answer("127.0.0.1"), answer("127.0.0.1"), true),
        (&plain, answer("127.0.0.1"), answer("127.0.0.2"), false),
    ] {
        let what = format!("{before} to {after}");
        let session = lab.sandbox(json!({"egress": before})).await;
        let mut tunnel = session.tunnel(&target).await;
        tunnel.send(bytes).await;
        let mut far = origin.accept().await;
        assert_ne!(far.read(&mut [0; 1000]).await.unwrap(), 0, "{what}");
        session.patch(&lab.gateway, after).await;
        if stays {
            tunnel.stays_quiet().await;
            far.write_all(b"well").await.unwrap();
            assert_eq!(tunnel.take(4).await, b"well", "{what}");
        } else {
            assert!(tunnel.cut().await < Duration::from_secs(1), "{what}");
        }
    }
    // What has said nothing yet is judged by the rule of the moment it speaks.
    for (bytes, passes) in [(&plain[..], true), (b"\0open", false)] {
        let session = lab.sandbox(json!({"egress": with(json!({}))})).await;
        let mut tunnel = session.tunnel(&target).await;
        let mut far = origin.accept().await;
        session
            .patch(&lab.gateway, rule(json!({"tls": "require"})))
            .await;
        tunnel.send(bytes).await;
        if passes {
            assert_ne!(far.read(&mut [0; 1000]).await.unwrap(), 0);
        } else {
            tunnel.cut().await;
            assert_eq!(far.read(&mut [0; 1000]).await.unwrap_or_default(), 0);
        }
    }
}

#[test]
pub(crate) fn v109_empty_is_not_absent() {
    LAB.run(109, async |lab, row| {
        let nothing = Denied(&["host_not_allowed"]);
        for egress in [
            json!({"allowedHosts": []}),
            json!({"allowedHosts": [], "defaultAction": "allow"}),
            json!({}),
            json!({"defaultAction": "deny"}),
        ] {
            let session = lab.sandbox(json!({"egress": egress})).await;
            session.refused(lab, row, lab.api_target(), nothing).await;
        }
        let path = "/runtime/providers/test/sessions";
        let null = json!({"egress": {"allowedHosts": null}}).to_string();
        assert_eq!(
            lab.gateway.admin("POST", path, &null).await.status(),
            422,
            "null is neither"
        );
        let open =
            json!({"egress": {"defaultAction": "allow", "allowedAddresses": ["127.0.0.0/8"]}});
        lab.sandbox(open).await.tunnel(&lab.api_target()).await;
    });
}

#[test]
pub(crate) fn v110_an_unreadable_policy_changes_nothing() {
    LAB.run(110, async |lab, row| {
        let session = lab.allowing(&[&lab.api_target()]).await;
        let path = format!("/runtime/providers/test/sessions/{}", session.id);
        let tap = lab.api.afresh(Mode::Http);
        for body in [
            "{\"egress\": {\"allowedHosts\": [\"*\"]}}",
            "{\"egress\": {\"alowedHosts\": []}}",
            "{\"egress\": [",
            "egress: {a: &b}",
        ] {
            let reply = lab.gateway.admin("PATCH", &path, body).await;
            assert!(
                [400, 422].contains(&reply.status()),
                "{body}: {}",
                reply.text()
            );
            let (api, expect) = (lab.api_target(), Denied(&["host_not_allowed"]));
            session.served(lab, row, &api, &api, &tap).await;
            session.refused(lab, row, "evil.test:443", expect).await;
        }
        let file = lab.gateway.directory().join("sluicegate.yaml");
        let good = std::fs::read_to_string(&file).unwrap();
        std::fs::write(
            &file,
            format!("{good}\negress: {{allowedHosts: [\"*\"]}}\nnonsense: 1\n"),
        )
        .unwrap();
        let reply = lab.gateway.admin("POST", "/reload", "").await;
        assert_eq!(reply.status(), 422, "{}", reply.text());
        for said in ["nonsense", "allowedHosts"] {
            assert!(
                reply.text().contains(said),
                "all faults at once: {}",
                reply.text()
            );
        }
        session.tunnel(&lab.api_target()).await;
        std::fs::write(&file, good).unwrap();
    });
}

#[test]
pub(crate) fn v111_one_generation_judges() {
    LAB.run(111, async |lab, row| {
        let (api, plain) = (lab.api_target(), lab.plain_target());
        let session = lab.allowing(&[&api]).await;
        let grants = [&api, &plain]
            .map(|one| json!({"allowedHosts": [one], "allowedAddresses": ["127.0.0.0/8"]}));
        // Opens race changes: whatever wins, an open is allowed or refused as one of the two lists says, and its record says
        // by which generation. Odd ones allow `api`, even ones `plain`.
        let changes = async {
            for round in 1..12 {
                session.patch(&lab.gateway, grants[round % 2].clone()).await;
            }
        };
        let opens = async {
            for round in 0..40 {
                let form = RACING[round % RACING.len()];
                // Opened and cut at once, a stream says no more than that.
                if let Some((head, _)) = session.begun(lab, form, &plain).await {
                    assert!([101, 200, 403].contains(&head.status), "{form:?} {head:?}");
                }
                row.on(form.front());
            }
        };
        tokio::join!(changes, opens);
        let of_session = |one: &e2e::Record| one.0["session"]["id"] == session.id.as_str();
        let records = e2e::until("forty records", || {
            let records: Vec<_> = lab
                .gateway
                .records()
                .into_iter()
                .filter(of_session)
                .collect();
            (records.len() == 40).then_some(records)
        });
        for record in records.await {
            let generation = record.number("policyGeneration").unwrap();
            // A request that is overtaken before it has an answer is told so: it was allowed, and is no more.
            let overtaken = record.text("reason") == "policy_changed";
            let allowed = overtaken || record.text("outcome") != "refused";
            assert_eq!(allowed, generation % 2 == 0, "{record:?}");
        }
        overtaken_before_its_first_bytes(lab).await;
    });
}

/// A tunnel of which nothing was judged yet is judged by what is in force when its bytes come, and its record says by what.
async fn overtaken_before_its_first_bytes(lab: &Lab) {
    let api = lab.api_target();
    let session = lab.allowing(&[&api]).await;
    let mut wire = session.tunnel(&api).await;
    let egress = json!({
        "allowedHosts": [api], "allowedAddresses": ["127.0.0.0/8"],
        "rules": [{"host": api, "tls": "require"}],
    });
    session.patch(&lab.gateway, egress).await;
    wire.send(b"\0raw").await;
    wire.cut().await;
    let own = |one: &e2e::Record| one.0["session"]["id"] == session.id.as_str();
    let record = lab.gateway.record("the overtaken tunnel", own).await;
    assert_eq!(record.text("reason"), "tls_required", "{record:?}");
    assert_eq!(record.number("policyGeneration"), Some(2), "{record:?}");
    assert_eq!(record.0["began"], json!({"as": "other"}), "{record:?}");
    assert_eq!(record.text("rule"), format!("rules[0] \"{api}\""));
}

/// One of each kind that can ask for any port.
const RACING: [Form; 7] = [
    Form::Connect,
    Form::Absolute,
    Form::Upgrade,
    Form::Http2,
    Form::Http3,
    Form::Http3Forward,
    Form::Captured,
];

#[test]
pub(crate) fn v113_a_dead_gateway_lets_nothing_out() {
    alone(113, async |row| {
        let lab = Lab::start(settings()).await;
        let api = lab.api_target();
        let mut wire = lab.session.tunnel(&api).await;
        let tap = lab.api.afresh(Mode::Answer(HALF.to_vec()));
        let answer = lab.session.begun(&lab, Form::Absolute, &api).await;
        let (head, mut body) = answer.unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(body.take(4).await, b"half");
        lab.gateway.process.signal(rustix::process::Signal::KILL);
        let took = within("the tunnel to end", wire.cut()).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        within("the answer to end", body.cut()).await;
        drop(tap);
        is_closed(lab.gateway.ports.plain).await;
        is_closed(lab.gateway.ports.public).await;
        row.on(Front::Connect);
        row.on(Front::Absolute);
    });
}

#[test]
pub(crate) fn v114_a_full_audit_sink_drops_and_counts() {
    alone(114, async |row| {
        let mut lab = Lab::start(settings()).await;
        lab.gateway.process.signal(rustix::process::Signal::TERM);
        lab.gateway.process.wait("its end").await;
        let log = lab.gateway.directory().join("access.jsonl");
        std::fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink("/dev/full", &log).unwrap();
        lab.gateway.restart().await;
        let dropped = "sluicegate_access_records_dropped";
        for form in [Form::Connect, Form::Absolute] {
            let before = lab.gateway.metric(dropped).await;
            let (_, reply) = lab.session.reply(&lab, form, "evil.test:443").await;
            assert_eq!(reply.status(), 403, "{form:?}");
            lab.gateway.metric_reaches(dropped, before + 1.0).await;
            row.on(form.front());
        }
        // What is allowed passes, unrecorded.
        let mut wire = lab.session.tunnel(&lab.api_target()).await;
        wire.send("GET /probe HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
            .await;
        assert_eq!(wire.reply().await.status(), 200);
        let plain = lab.plain_target();
        let (_, reply) = lab.session.reply(&lab, Form::Absolute, &plain).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
    });
}

#[test]
pub(crate) fn v142_no_proxy_changes_nothing() {
    LAB.run(142, async |lab, row| {
        for name in ["NO_PROXY", "No-Proxy", "X-No-Proxy"] {
            for form in FORMS {
                let mut wire = lab.session.ready(lab, form).await;
                let mark = lab.mark();
                let fields = format!("{name}: evil.test,*\r\n{}", lab.session.credential());
                wire.send(form.head(b"evil.test:443", &fields)).await;
                lab.session
                    .is_refused(lab, &mut wire, Denied(&["host_not_allowed"]), name)
                    .await;
                lab.nothing_since(&mark, name);
                row.on(form.front());
            }
            for form in crate::forms::FORMS
                .into_iter()
                .filter(|form| form.is_stream())
            {
                let fields = format!("{name}: evil.test,*\r\n{}", lab.session.credential());
                let asked = lab.session.reply_to(lab, form, "evil.test:443", &fields);
                let (mark, reply) = asked.await;
                let told = (reply.status(), refusal_reason(&reply));
                assert_eq!(told, (403, "host_not_allowed".to_owned()), "{form:?}");
                lab.nothing_since(&mark, name);
                row.on(form.front());
            }
        }
    });
}

#[test]
pub(crate) fn v128_the_gateway_is_no_service() {
    LAB.run(128, async |lab, row| {
        let ports = lab.gateway.ports;
        let admin = lab.gateway.state().join("admin.sock");
        let mut urls = vec![format!("unix://{}", admin.display())];
        for own in [ports.public, ports.plain, ports.management] {
            urls.push(format!("tcp://{own}"));
            urls.push(format!("tcp://0.0.0.0:{}", own.port()));
            urls.push(format!("tcp://[::ffff:127.0.0.1]:{}", own.port()));
        }
        let path = "/runtime/providers/test/sessions";
        for url in urls {
            let body = json!({"services": {"own": url}}).to_string();
            let reply = lab.gateway.admin("POST", path, &body).await;
            assert_eq!(reply.status(), 422, "{url}: {}", reply.text());
        }
        let other = format!("tcp://127.0.0.1:{}", lab.api.port());
        lab.sandbox(json!({"services": {"own": other}})).await;
        row.on(Front::Configuration);
    });
}
