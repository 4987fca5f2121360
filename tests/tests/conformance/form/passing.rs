//! What passes through, and what does not.

use std::net::SocketAddr;

use e2e::raw::drain;
use e2e::{RawOrigin, Wire};
use serde_json::json;

use super::*;

#[test]
pub(crate) fn v055_connect_inside_a_tunnel() {
    LAB.run(55, async |lab, row| {
        let credential = lab.session.credential();
        let connect = |target: &str| {
            format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n")
        };
        let plain = lab.plain_target();
        let inner = [
            connect("evil.test:443"),
            connect(&plain),
            // Absolute-form is judged by the same rule.
            "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
        ];
        for form in FORMS.into_iter().filter(|form| form.tunnels()) {
            for request in &inner {
                let mut wire = lab.session.opened(lab, form, &plain, b"").await;
                let before = lab.plain.bytes().len();
                wire.send(request).await;
                assert_eq!(wire.reply().await.status(), 400, "{form:?} {request}");
                assert_eq!(lab.plain.bytes().len(), before, "{form:?} {request}");
                assert_eq!(lab.dns.queries_for("evil.test"), 0);
            }
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v056_steering_fields() {
    LAB.run(56, async |lab, row| {
        let plain = lab.plain_target();
        let steering = [
            "X-Upstream-Https-Proxy",
            "Proxy",
            "X-Host",
            "Forwarded",
            "X-Forwarded-Host",
            "X-Forwarded-For",
            "X-Real-IP",
            "X-Forwarded-Proto",
        ];
        let steered: String = steering
            .iter()
            .map(|name| format!("{name}: host=evil.test\r\n"))
            .collect();
        let fields = format!("Host: {plain}\r\n{steered}X-Kept: kept\r\n");
        let (reply, _) = lab
            .session
            .ask(&format!("GET http://{plain}/steered"), &fields)
            .await;
        assert_eq!(reply.status(), 200);
        let mut wire = lab.session.tunnel(&plain).await;
        wire.send(format!("GET /steered HTTP/1.1\r\n{fields}\r\n"))
            .await;
        assert_eq!(wire.reply().await.status(), 200);
        let mut seen = lab.plain.requests_for(" /steered ");
        assert_eq!(seen.len(), 2);
        for form in STREAMED {
            let fields = fields.replace(&format!("Host: {plain}\r\n"), &lab.session.credential());
            let (_, reply) = lab.session.reply_to(lab, form, &plain, &fields).await;
            assert_eq!(reply.status(), 200, "{form:?}");
            seen.extend(lab.plain.requests_for(" /probe ").pop());
            row.on(form.front());
        }
        for (form, target, tap) in captured(lab) {
            let head = format!(
                "GET /captured HTTP/1.1\r\nHost: {target}\r\n{steered}X-Kept: kept\r\n\r\n"
            );
            let (_, reply) = captured_answer(lab, form, &target, &head).await;
            assert_eq!(reply.status(), 200, "{form:?}");
            seen.extend(tap.requests_for(" /captured ").pop());
            row.on(form.front());
        }
        assert_eq!(seen.len(), 6);
        for request in seen {
            assert_eq!(request.values("x-kept"), ["kept"]);
            for name in steering {
                assert!(
                    request.values(&name.to_ascii_lowercase()).is_empty(),
                    "{request:?}"
                );
            }
        }
        row.on(Front::Absolute);
        row.on(Front::Connect);
    });
}

#[test]
pub(crate) fn v057_loops() {
    LAB.run(57, async |lab, row| {
        let plain = lab.plain_target();
        let line = format!("GET http://{plain}/looped");
        let (reply, _) = lab
            .session
            .ask(
                &line,
                &format!("Host: {plain}\r\nVia: 1.0 other, 1.1 another\r\n"),
            )
            .await;
        assert_eq!(reply.status(), 200);
        let seen = lab.plain.requests_for(" /looped ").pop().unwrap();
        let via = seen.values("via").join(", ");
        assert!(via.starts_with("1.0 other, 1.1 another, "), "{via}");
        let mark = lab.mark();
        let (reply, _) = lab
            .session
            .ask(&line, &format!("Host: {plain}\r\nVia: {via}\r\n"))
            .await;
        assert_eq!(reply.status(), 502, "{}", reply.text());
        assert!(
            reply
                .head
                .value("proxy-status")
                .contains("proxy_loop_detected"),
            "{:?}",
            reply.head
        );
        lab.nothing_since(&mark, "a loop");
        row.on(Front::Absolute);
        for form in STREAMED {
            let fields = format!("Via: {via}\r\n{}", lab.session.credential());
            let (mark, reply) = lab.session.reply_to(lab, form, &plain, &fields).await;
            assert_eq!(reply.status(), 502, "{form:?}: {}", reply.text());
            lab.nothing_since(&mark, "a loop");
            row.on(form.front());
        }
        for (form, target, _) in captured(lab) {
            let head = format!("GET /looped HTTP/1.1\r\nHost: {target}\r\nVia: {via}\r\n\r\n");
            let reply = turned_away(lab, row, (form, &target), &head, 502).await;
            let told = reply.head.value("proxy-status");
            assert!(told.contains("proxy_loop_detected"), "{form:?}: {told}");
        }
    });
}

#[test]
pub(crate) fn v058_expect_and_a_denied_target() {
    LAB.run(58, async |lab, row| {
        let mark = lab.mark();
        let fields = "Host: evil.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
        let (reply, _) = lab.session.ask("POST http://evil.test/x", fields).await;
        // The first status to come is the final one.
        assert_eq!(reply.status(), 403);
        lab.nothing_since(&mark, "100-continue");
        row.on(Front::Absolute);
        for form in STREAMED {
            let fields = format!("Expect: 100-continue\r\n{}", lab.session.credential());
            let asked = lab.session.reply_to(lab, form, "evil.test:80", &fields);
            let (mark, reply) = asked.await;
            assert_eq!(reply.status(), 403, "{form:?}");
            lab.nothing_since(&mark, "100-continue");
            row.on(form.front());
        }
        for (form, target, _) in captured(lab) {
            let head = format!("POST /x HTTP/1.1\r\n{fields}\r\n");
            turned_away(lab, row, (form, &target), &head, 403).await;
        }
    });
}

#[test]
pub(crate) fn v059_upgrades_nobody_agreed_on() {
    LAB.run(59, async |lab, row| {
        let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nok";
        let asking = "Connection: Upgrade\r\nUpgrade: echo\r\n";
        // At the one port that is known of those who come by name.
        let named = SocketAddr::from(([127, 0, 0, 2], lab.api.port()));
        let named = Tap::start_on(named, Mode::Silent).await.unwrap();
        for form in [Form::Absolute, Form::Captured, Form::Named] {
            let with = async |raw, fields| upgraded(lab, form, &named, raw, fields).await;
            assert_eq!(with(switching, "").await, (502, Vec::new()), "{form:?}");
            assert_eq!(with(ok, asking).await, (200, Vec::new()), "{form:?}");
            assert_eq!(with(switching, asking).await.0, 101, "{form:?}: the control");
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v060_h2c() {
    LAB.run(60, async |lab, row| {
        let plain = lab.plain_target();
        for protocol in ["h2c", "H2C", "h2c, websocket"] {
            let fields = format!("Host: {plain}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n");
            let (reply, _) = lab.session.ask(&format!("GET http://{plain}/h2c"), &fields).await;
            assert_eq!(reply.status(), 200);
        }
        for (form, target, _) in captured(lab) {
            let head = format!("GET /h2c HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
            let (_, reply) = captured_answer(lab, form, &target, &head).await;
            assert_eq!(reply.status(), 200, "{form:?}");
            row.on(form.front());
        }
        let seen = [lab.plain.requests_for(" /h2c "), lab.api.requests_for(" /h2c ")].concat();
        assert_eq!(seen.len(), 5);
        for request in seen {
            for gone in ["upgrade", "http2-settings", "connection"] {
                assert!(request.values(gone).is_empty(), "{request:?}");
            }
        }
        prior_knowledge(lab, row).await;
        row.on(Front::Absolute);
    });
}

/// Without an upgrade, inside a tunnel: nobody could say which host it asks for. By a rule that lets any bytes pass it does.
async fn prior_knowledge(lab: &Lab, row: &mut Row) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    lab.dns.point("prior.allowed.test");
    let origin = RawOrigin::start().await;
    let target = format!("prior.allowed.test:{}", origin.address.port());
    let session = lab.allowing(&[&target]).await;
    for form in FORMS.into_iter().filter(|form| form.tunnels()) {
        for cut in [1, 14, PREFACE.len()] {
            let mut near = session.opened(lab, form, &target, b"").await;
            let mut far = origin.accept().await;
            near.send(&PREFACE[..cut]).await;
            if cut < PREFACE.len() {
                near.send(&PREFACE[cut..]).await;
            }
            near.cut().await;
            let (heard, _) = drain(&mut far).await;
            assert_eq!(heard, b"", "{form:?}, cut at {cut}");
        }
        row.on(form.front());
    }
    lab.gateway
        .record("a cut preface", |one| {
            one.text("target") == target && one.text("reason") == "unsupported_protocol"
        })
        .await;
    let egress = json!({
        "allowedHosts": [target], "allowedAddresses": ["127.0.0.0/8"],
        "rules": [{"host": target, "tls": "opaque"}],
    });
    let session = lab.sandbox(json!({"egress": egress})).await;
    let mut near = session.tunnel(&target).await;
    near.send(PREFACE).await;
    near.finish().await;
    let mut far = origin.accept().await;
    assert_eq!(drain(&mut far).await, (PREFACE.to_vec(), End::Fin));
}

#[test]
pub(crate) fn v143_proxy_protocol_preambles() {
    LAB.run(143, async |lab, row| {
        let v1 = b"PROXY TCP4 192.0.2.1 127.0.0.1 1234 3128\r\n".to_vec();
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let v2 = [
            &signature[..],
            &[0x21, 0x11, 0, 12],
            &[127, 0, 0, 1, 127, 0, 0, 1, 4, 0xd2, 0xc, 0x38],
        ]
        .concat();
        let long = [&signature[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        for preamble in [
            v1.clone(),
            [&v1[..], &v1].concat(),
            v2.clone(),
            long.clone(),
        ] {
            for form in [Form::Connect, Form::Absolute] {
                let mark = lab.mark();
                let target = lab.plain_target();
                let head = form.head(target.as_bytes(), &lab.session.credential());
                let mut wire = lab.session.dial().await;
                wire.send([&preamble[..], &head].concat()).await;
                assert_eq!(
                    wire.reply().await.status(),
                    400,
                    "{}",
                    preamble.escape_ascii()
                );
                assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
                lab.nothing_since(&mark, "a preamble");
                row.on(form.front());
            }
        }
        // From a trusted one: once and readable, or nothing.
        let (plain, socks) = (
            lab.gateway.listeners("plain").await[1],
            lab.gateway.listeners("socks").await[1],
        );
        let target = lab.plain_target();
        for form in [Form::Connect, Form::Absolute, Form::Socks] {
            let address = if form == Form::Socks { socks } else { plain };
            let head = form.head(target.as_bytes(), &lab.session.credential());
            for preamble in [
                Vec::new(),
                long.clone(),
                [&v1[..], &v1].concat(),
                [&v2[..], &v1].concat(),
            ] {
                let mark = lab.mark();
                let mut wire = Wire::dial(address).await;
                wire.send([&preamble[..], &head].concat()).await;
                if form == Form::Socks {
                    assert_eq!(wire.rest().await.0, Vec::<u8>::new());
                } else {
                    assert_eq!(wire.reply().await.status(), 400);
                    assert_eq!(wire.rest().await, (Vec::new(), End::Fin));
                }
                lab.nothing_since(&mark, "a header that is none");
                row.on(form.front());
            }
            for preamble in [&v1, &v2] {
                let mut wire = Wire::dial(address).await;
                wire.send([&preamble[..], &head].concat()).await;
                if form == Form::Absolute {
                    assert_eq!(wire.reply().await.status(), 200);
                } else {
                    let mut wire = form.opened(wire, "behind a header").await;
                    // Until its visit is counted.
                    let probe = format!("GET /probe HTTP/1.1\r\nHost: {target}\r\n\r\n");
                    wire.send(probe).await;
                    assert_eq!(wire.reply().await.status(), 200);
                }
            }
        }
    });
}
