//! CONNECT.

use super::*;

#[test]
pub(crate) fn v044_nothing_is_read_behind_a_refused_connect() {
    LAB.run(44, async |lab, row| {
        let (plain, credential) = (lab.plain_target(), lab.session.credential());
        let smuggled =
            format!("GET http://{plain}/smuggled HTTP/1.1\r\nHost: {plain}\r\n{credential}\r\n");
        for form in CONNECTS {
            for target in [
                "evil.test:443",
                "api.allowed.test:22",
                "api..allowed.test:443",
            ] {
                let mut wire = lab.session.ready(lab, form).await;
                let mark = lab.mark();
                let head = form.head(target.as_bytes(), &credential);
                wire.send([&head[..], smuggled.as_bytes()].concat()).await;
                assert!(
                    [400, 403].contains(&wire.reply().await.status()),
                    "{target}"
                );
                assert_eq!(
                    wire.rest().await,
                    (Vec::new(), End::Fin),
                    "{form:?} {target}"
                );
                lab.nothing_since(&mark, target);
                row.on(form.front());
            }
        }
    });
}

#[test]
pub(crate) fn v045_connect_with_content() {
    LAB.run(45, async |lab, row| {
        let (target, credential) = (lab.api_target(), lab.session.credential());
        for form in CONNECTS {
            for content in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 00\r\nContent-Length: 0\r\n"] {
                let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}{content}\r\nhello");
                answered(lab, row, form, &head, 400).await;
            }
            let mut wire = lab.session.ready(lab, form).await;
            wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credential}Content-Length: 0\r\n\r\n")).await;
            assert_eq!(wire.head().await.status, 200);
        }
    });
}

#[test]
pub(crate) fn v046_connect_with_another_form_of_target() {
    LAB.run(46, async |lab, row| {
        let credential = lab.session.credential();
        let api = lab.api_target();
        for target in [
            "http://h/",
            "/",
            "*",
            &format!("http://{api}/"),
            &format!("//{api}"),
            &format!("{api}/"),
            &format!("{api}?x"),
            "http:",
        ] {
            for form in CONNECTS {
                let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {api}\r\n{credential}\r\n");
                answered(lab, row, form, &head, 400).await;
            }
        }
    });
}

#[test]
pub(crate) fn v047_connect_and_its_host() {
    LAB.run(47, async |lab, row| {
        let (target, credential) = (lab.api_target(), lab.session.credential());
        let others = [
            "evil.test",
            "evil.test:443",
            "plain.allowed.test",
            "api.allowed.test.evil.test",
            "[::1]",
            "127.0.0.1",
            "@",
        ];
        other_hosts(lab, row, STREAMS, &target, &others).await;
        for form in CONNECTS {
            for host in others {
                let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n{credential}\r\n");
                answered(lab, row, form, &head, 400).await;
            }
            for host in ["Host: api.allowed.test\r\n", "Host: API.allowed.test.\r\n"] {
                let mut wire = lab.session.ready(lab, form).await;
                wire.send(format!(
                    "CONNECT {target} HTTP/1.1\r\n{host}{credential}\r\n"
                ))
                .await;
                assert_eq!(wire.head().await.status, 200, "{host}");
            }
            let mut wire = lab.session.ready(lab, form).await;
            wire.send(format!("CONNECT {target} HTTP/1.0\r\n{credential}\r\n"))
                .await;
            assert_eq!(wire.head().await.status, 200, "HTTP/1.0 without Host");
        }
    });
}

#[test]
pub(crate) fn v103_two_credentials() {
    LAB.run(103, async |lab, row| {
        let credential = lab.session.credential();
        let twice = format!("{credential}{credential}");
        let other = format!("{credential}Proxy-Authorization: Bearer other\r\n");
        for credentials in [&twice, &other] {
            for form in [Form::Connect, Form::ConnectKept, Form::Absolute] {
                let target = if form.tunnels() {
                    lab.api_target()
                } else {
                    lab.plain_target()
                };
                let head = String::from_utf8(form.head(target.as_bytes(), credentials)).unwrap();
                answered(lab, row, form, &head, 400).await;
            }
            let streams = [
                Form::Http2,
                Form::Http2Forward,
                Form::Http3,
                Form::Http3Forward,
            ];
            for form in streams.into_iter().chain(TEMPLATES) {
                let target = lab.plain_target();
                let asked = lab.session.reply_to(lab, form, &target, credentials);
                let (mark, reply) = asked.await;
                assert_eq!(reply.status(), 400, "{form:?}: {}", reply.text());
                lab.nothing_since(&mark, credentials);
                row.on(form.front());
            }
        }
    });
}
