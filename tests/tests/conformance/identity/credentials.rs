//! Who asks.

use super::*;

#[test]
pub(crate) fn v100_credentials_that_are_none() {
    LAB.run(100, async |lab, row| {
        let handle = &lab.session.handle;
        let short: String = handle.chars().skip(1).collect();
        for credential in [
            String::new(),
            "Proxy-Authorization: Basic !!!\r\n".into(),
            "Proxy-Authorization: Basic\r\n".into(),
            "Proxy-Authorization: Digest x\r\n".into(),
            "Proxy-Authorization: Bearer nonsense\r\n".into(),
            "Proxy-Authorization: \r\n".into(),
            basic(&format!("sluicegate:{handle}x")),
            basic(&format!("sluicegate:{short}")),
            basic("sluicegate:"),
            basic(handle),
            format!("Authorization: Bearer {handle}\r\n"),
            "Proxy-Authorization: Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.\r\n".into(),
        ] {
            challenged(lab, row, &credential).await;
        }
        for password in [
            format!("{handle}x"),
            short,
            "nonsense".to_owned(),
            "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.".to_owned(),
        ] {
            let (answer, reason) = login(lab, row, &password).await;
            assert_eq!(answer, [5, 2, 1, 1], "{password}: {reason}");
        }
    });
}

#[test]
pub(crate) fn v101_another_source() {
    LAB.run(101, async |lab, row| {
        let egress =
            json!({"allowedHosts": [lab.api_target()], "allowedAddresses": ["127.0.0.0/8"]});
        let elsewhere = lab
            .sandbox(json!({"egress": egress, "sources": ["192.0.2.0/24"]}))
            .await;
        let expect = Denied(&["source_not_allowed"]);
        elsewhere.refused(lab, row, lab.api_target(), expect).await;
        let here = lab
            .sandbox(json!({"egress": egress, "sources": ["127.0.0.0/8"]}))
            .await;
        here.tunnel(&lab.api_target()).await;
    });
}

#[test]
pub(crate) fn v102_tokens_where_they_do_not_belong() {
    LAB.run(102, async |lab, row| {
        let (plain, handle) = (lab.plain_target(), &lab.session.handle);
        challenged(
            lab,
            row,
            &format!("Cookie: token={handle}; sluicegate={handle}\r\n"),
        )
        .await;
        challenged(
            lab,
            row,
            &format!("X-Token: {handle}\r\nAuthorization: Bearer {handle}\r\n"),
        )
        .await;
        let mark = lab.mark();
        for query in ["token", "access_token", "proxy_authorization"] {
            let mut wire = lab.session.dial().await;
            wire.send(format!(
                "GET http://{plain}/?{query}={handle} HTTP/1.1\r\nHost: {plain}\r\n\r\n"
            ))
            .await;
            assert_eq!(wire.reply().await.status(), 407, "{query}");
        }
        lab.nothing_since(&mark, "a token in the query");
    });
}

#[test]
pub(crate) fn v104_identity_is_each_requests_own() {
    LAB.run(104, async |lab, row| {
        let plain = lab.plain_target();
        let (poor, target) = (
            lab.allowing(&["other.allowed.test:80"]).await,
            plain.as_bytes(),
        );
        for (credential, status) in [
            (String::new(), 407),
            (basic("sluicegate:wrong"), 407),
            (poor.credential(), 403),
        ] {
            for form in [Form::Absolute, Form::Connect] {
                let mut wire = lab.session.ready(lab, Form::ConnectKept).await;
                let mark = lab.mark();
                wire.send(form.head(target, &credential)).await;
                assert_eq!(wire.reply().await.status(), status, "{form:?} {credential}");
                lab.nothing_since(&mark, &credential);
            }
        }
        // And the other way round: a failed identity does not stick.
        let mut wire = lab.session.dial().await;
        wire.send(Form::Absolute.head(target, &poor.credential()))
            .await;
        assert_eq!(wire.reply().await.status(), 403);
        wire.send(Form::Absolute.head(target, &lab.session.credential()))
            .await;
        assert_eq!(wire.reply().await.status(), 200);
        row.on(Front::Absolute);
        row.on(Front::ConnectKept);
        // Streams of one connection, each as itself.
        for form in [Form::Http3, Form::Http3Forward] {
            for (credential, status) in [
                (basic("sluicegate:wrong"), 407),
                (poor.credential(), 403),
                (String::new(), 407),
            ] {
                let asked = lab.session.reply_to(lab, form, &plain, &credential);
                let (mark, reply) = asked.await;
                assert_eq!(reply.status(), status, "{form:?} {credential}");
                lab.nothing_since(&mark, &credential);
                let reply = if form.tunnels() {
                    let mut wire = lab.session.opened(lab, form, &plain, b"").await;
                    let probe = format!("GET /probe HTTP/1.1\r\nHost: {plain}\r\n\r\n");
                    wire.send(probe).await;
                    wire.reply().await
                } else {
                    lab.session.reply(lab, form, &plain).await.1
                };
                assert_eq!(reply.status(), 200, "{form:?} after {credential}");
            }
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v105_upstream_connections_are_one_sessions() {
    LAB.run(105, async |lab, row| {
        let plain = lab.plain_target();
        let sessions = [lab.allowing(&[&plain]).await, lab.allowing(&[&plain]).await];
        let before = lab.plain.visits().len();
        // However they ask; of HTTP/3 even on one connection.
        for form in [
            Form::Absolute,
            Form::Http2Forward,
            Form::Http3Forward,
            Form::Captured,
        ] {
            for number in [0, 1, 0, 1] {
                let session = &sessions[number];
                let reply = if form == Form::Captured {
                    let mut wire = session.ready(lab, form).await;
                    let head = form.head(plain.as_bytes(), &session.credential());
                    let marked = format!("X-Pool: pool{number}\r\n\r\n");
                    wire.send([&head[..head.len() - 2], marked.as_bytes()].concat())
                        .await;
                    wire.reply().await
                } else {
                    let fields = format!("{}X-Pool: pool{number}\r\n", session.credential());
                    session.reply_to(lab, form, &plain, &fields).await.1
                };
                assert_eq!(reply.status(), 200, "{form:?}");
            }
            row.on(form.front());
        }
        let visits = lab.plain.visits().split_off(before);
        assert_eq!(visits.len(), 2, "one connection each, used again");
        for visit in visits {
            let text = String::from_utf8_lossy(&visit.bytes).into_owned();
            assert!(
                text.contains("pool0") != text.contains("pool1"),
                "two sessions met: {text}"
            );
        }
    });
}

#[test]
pub(crate) fn v106_unknown_and_revoked_look_alike() {
    LAB.run(106, async |lab, row| {
        let gone = lab.allowing(&["api.allowed.test:443"]).await;
        act(lab, &gone, "reset").await;
        let revoked = challenged(lab, row, &gone.credential()).await;
        let unknown = challenged(lab, row, &basic("sluicegate:unknown")).await;
        assert_eq!(revoked, unknown);
        let revoked = login(lab, row, &gone.handle).await;
        let unknown = login(lab, row, "unknown").await;
        assert_eq!(revoked.0, [5, 2, 1, 1], "{}", revoked.1);
        assert_eq!(revoked.0, unknown.0);
    });
}
