//! What goes on, and what stays.

use super::*;
use crate::forms::FORMS;

#[test]
pub(crate) fn v066_trailers() {
    LAB.run(66, async |lab, row| {
        let names = [
            "Host",
            "Transfer-Encoding",
            "Content-Length",
            "Authorization",
            "Proxy-Authorization",
            "Connection",
            "Content_Length",
        ];
        let trailers: String = names
            .iter()
            .map(|name| format!("{name}: evil\r\n"))
            .collect();
        let content = format!("5\r\nhello\r\n0\r\n{trailers}X-Checksum: 1\r\n\r\n");
        let fields = "Transfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n";
        forwarded(lab, row, fields, &content, "hello").await;
        for request in seen(lab, " /forwarded ") {
            for name in names {
                let left = request
                    .trailers
                    .iter()
                    .any(|(field, _)| field.eq_ignore_ascii_case(name));
                assert!(!left, "{request:?}");
            }
        }
    });
}

#[test]
pub(crate) fn v067_what_connection_may_not_strip() {
    LAB.run(67, async |lab, row| {
        let fields = "Authorization: Bearer theirs\r\nCookie: a=b\r\nX-Hop: hop\r\nConnection: close, Authorization, Host, Cookie, X-Hop, Content-Length\r\nContent-Length: 5\r\n";
        forwarded(lab, row, fields, "hello", "hello").await;
        let mut kept = seen(lab, " /forwarded ");
        kept.retain(|request| request.values("cookie") == ["a=b"]);
        assert_eq!(kept.len(), WAYS.len());
        let targets = [lab.plain_target(), lab.api_target()];
        for request in kept {
            assert_eq!(request.values("authorization"), ["Bearer theirs"]);
            let [host] = request.values("host")[..] else { panic!("{request:?}") };
            assert!(targets.iter().any(|target| target == host), "{request:?}");
            assert!(request.values("x-hop").is_empty(), "{request:?}");
        }
    });
}

#[test]
pub(crate) fn v068_twins() {
    LAB.run(68, async |lab, row| {
        let twins = [
            "Proxy_Authorization",
            "X_Session",
            "Content_Length",
            "Transfer_Encoding",
            "Host_",
            "X_Forwarded_For",
        ];
        let fields: String = twins.iter().map(|name| format!("{name}: 99\r\n")).collect();
        forwarded(
            lab,
            row,
            &format!("{fields}Content-Length: 5\r\nX-Twins: 1\r\n"),
            "hello",
            "hello",
        )
        .await;
        let streamed = [Form::Http2Forward, Form::Http3Forward];
        for form in streamed {
            let fields = format!("{fields}X-Twins: 1\r\n{}", lab.session.credential());
            let plain = lab.plain_target();
            let (_, reply) = lab.session.reply_to(lab, form, &plain, &fields).await;
            assert_eq!(reply.status(), 200, "{form:?}");
            row.on(form.front());
        }
        let mut seen = seen(lab, " /");
        seen.retain(|one| one.values("x-twins") == ["1"]);
        assert_eq!(seen.len(), WAYS.len() + streamed.len());
        for request in seen {
            for twin in twins.iter().filter(|twin| **twin != "Host_") {
                assert!(
                    request.values(&twin.to_ascii_lowercase()).is_empty(),
                    "{request:?}"
                );
            }
        }
    });
}

#[test]
pub(crate) fn v069_too_much_head() {
    LAB.run(69, async |lab, row| {
        let many = "X: y\r\n".repeat(101);
        let long = format!("X: {}\r\n", "y".repeat(70_000));
        for fields in [many, long] {
            refused(lab, row, fields.as_bytes(), "", 431).await;
        }
        let fields = format!("{}Content-Length: 5\r\n", "X: y\r\n".repeat(90));
        forwarded(lab, row, &fields, "hello", "hello").await;
    });
}

#[test]
pub(crate) fn v070_get_with_content() {
    LAB.run(70, async |lab, row| {
        for front in WAYS {
            let (mut wire, head) = way(lab, front, "GET", "/content").await;
            wire.send(format!(
                "{head}Content-Length: {}\r\n\r\n{SMUGGLED}",
                SMUGGLED.len()
            ))
            .await;
            assert_eq!(wire.reply().await.status(), 200);
            row.on(front);
        }
        let contents = seen(lab, " /content ");
        assert_eq!(contents.len(), WAYS.len());
        assert!(
            contents
                .iter()
                .all(|request| request.body == SMUGGLED.as_bytes()),
            "{contents:?}"
        );
        assert!(seen(lab, "/smuggled").is_empty());
    });
}

#[test]
pub(crate) fn v071_pipelined() {
    LAB.run(71, async |lab, row| {
        for front in [Front::Absolute, Front::Transparent, Front::Sni] {
            let (tap, target) = end(lab, front);
            let (mut wire, allowed) = way(lab, front, "GET", "/pipelined").await;
            let denied = allowed.replace(&target, "evil.test");
            let asked = [allowed.as_str(), &denied, &allowed].map(|head| format!("{head}\r\n"));
            wire.send(asked.concat()).await;
            let statuses = [
                wire.reply().await.status(),
                wire.reply().await.status(),
                wire.reply().await.status(),
            ];
            assert_eq!(statuses, [200, 403, 200], "{front:?}");
            let went_up = tap.requests_for(" /pipelined ");
            let of_this = went_up.iter().filter(|one| one.values("host") == [&target]);
            let before = usize::from(front == Front::Transparent) * 2;
            assert_eq!(of_this.count(), before + 2, "{front:?}");
            assert_eq!(lab.dns.queries_for("evil.test"), 0, "{front:?}");
            row.on(front);
        }
    });
}

#[test]
pub(crate) fn v072_credentials_stay_here() {
    LAB.run(72, async |lab, row| {
        let session: &Sandbox = &lab.session;
        let plain = lab.plain_target();
        let basic = session.credential();
        let encoded = basic.trim().rsplit(' ').next().unwrap().to_owned();
        let bearer = format!("Proxy-Authorization: Bearer {}\r\n", session.handle);
        let odd = basic.replace("Proxy-Authorization", "pROXY-aUTHORIZATION");
        for credential in [&basic, &bearer, &odd] {
            let mut wire = session.dial().await;
            wire.send(format!(
                "GET http://{plain}/kept HTTP/1.1\r\nHost: {plain}\r\n{credential}\r\n"
            ))
            .await;
            assert_eq!(wire.reply().await.status(), 200, "{credential}");
            let mut wire = session.dial().await;
            wire.send(format!(
                "CONNECT {plain} HTTP/1.1\r\nHost: {plain}\r\n{credential}\r\n"
            ))
            .await;
            assert_eq!(wire.head().await.status, 200, "{credential}");
            // A client that sends its proxy's credential inside the tunnel too: HTTP there is ours to clean.
            wire.send(format!(
                "GET /kept HTTP/1.1\r\nHost: {plain}\r\n{credential}\r\n"
            ))
            .await;
            assert_eq!(wire.reply().await.status(), 200, "{credential}");
        }
        assert_eq!(lab.plain.requests_for(" /kept ").len(), 6);
        // By whatever way it came; what a tunnel carries is cleaned too.
        for form in FORMS {
            let reply = if form.tunnels() {
                let mut wire = session.opened(lab, form, &plain, b"").await;
                let request = format!("GET /probe HTTP/1.1\r\nHost: {plain}\r\n{basic}\r\n");
                wire.send(request).await;
                wire.reply().await
            } else if form == Form::Named {
                // Another port than the one there is.
                continue;
            } else {
                session.reply(lab, form, &plain).await.1
            };
            assert_eq!(reply.status(), 200, "{form:?}");
            row.on(form.front());
        }
        let all = everything(lab);
        for secret in [
            session.handle.as_str(),
            &encoded,
            "roxy-authorization",
            "ROXY-aUTHORIZATION",
        ] {
            assert!(!all.contains(secret), "{secret} went up");
        }
        let log = std::fs::read_to_string(lab.gateway.directory().join("access.jsonl")).unwrap();
        assert!(
            !log.contains(&session.handle) && !log.contains(&encoded),
            "the log has it"
        );
    });
}
