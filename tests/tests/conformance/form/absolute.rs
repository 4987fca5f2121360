//! Absolute-form, and what is neither.

use super::*;

#[test]
pub(crate) fn v048_absolute_form_and_its_host() {
    LAB.run(48, async |lab, row| {
        let (plain, credential) = (lab.plain_target(), lab.session.credential());
        let others = [
            "evil.test",
            "api.allowed.test",
            "plain.allowed.test:1",
            "plain.allowed.test.evil.test",
            "@",
        ];
        other_hosts(lab, row, STREAMED, &plain, &others).await;
        for host in others {
            let head = format!("GET http://{plain}/x HTTP/1.1\r\nHost: {host}\r\n{credential}\r\n");
            answered(lab, row, Form::Absolute, &head, 400).await;
        }
        for host in [plain.as_str(), "plain.allowed.test", "PLAIN.allowed.test."] {
            let (reply, _) = lab
                .session
                .ask(
                    &format!("GET http://{plain}/rebuilt"),
                    &format!("Host: {host}\r\n"),
                )
                .await;
            assert_eq!(reply.status(), 200, "{host}");
            let seen = lab.plain.requests_for(" /rebuilt ");
            assert_eq!(
                seen.last().unwrap().values("host"),
                [plain.as_str()],
                "{host}"
            );
        }
        for (form, target, tap) in captured(lab) {
            let name = target.rsplit_once(':').unwrap().0;
            let others = [
                "evil.test".to_owned(),
                "a.wild.test".to_owned(),
                format!("{name}:1"),
                format!("{name}.evil.test"),
                "@".to_owned(),
            ];
            for host in others {
                let head = format!("GET http://{target}/x HTTP/1.1\r\nHost: {host}\r\n\r\n");
                refused_captured(lab, row, form, &target, &head).await;
            }
            let spelled = format!("{}.", name.to_ascii_uppercase());
            for (line, host) in [
                (format!("http://{target}/rebuilt"), target.clone()),
                (format!("http://{target}/rebuilt"), name.to_owned()),
                ("/rebuilt".to_owned(), spelled),
            ] {
                let head = format!("GET {line} HTTP/1.1\r\nHost: {host}\r\n\r\n");
                let (_, reply) = captured_answer(lab, form, &target, &head).await;
                assert_eq!(reply.status(), 200, "{form:?} {host}: {}", reply.text());
                let seen = tap.requests_for(" /rebuilt ");
                let rebuilt = seen.last().unwrap().values("host");
                assert_eq!(rebuilt, [target.as_str()], "{form:?} {host}");
            }
        }
    });
}

#[test]
pub(crate) fn v049_one_plain_host() {
    LAB.run(49, async |lab, row| {
        let (plain, credential) = (lab.plain_target(), lab.session.credential());
        let api = lab.api_target();
        for fields in [
            "Host: NAME\r\nHost: NAME\r\n",
            "Host: NAME\r\nHost: evil.test\r\n",
            "Host: evil.test\r\nHost: NAME\r\n",
            "Host: NAME, evil.test\r\n",
            "Host: NAME,NAME\r\n",
            "Host : NAME\r\n",
            "Host\t: NAME\r\n",
            " Host: NAME\r\n",
            "Host:\r\n",
            "Host: NAME\r\n evil.test\r\n",
            "",
            "hOsT: NAME\r\nHoSt: NAME\r\n",
            "Host: NAME evil.test\r\n",
        ] {
            let absolute = format!(
                "GET http://{plain}/x HTTP/1.1\r\n{}{credential}\r\n",
                fields.replace("NAME", &plain)
            );
            answered(lab, row, Form::Absolute, &absolute, 400).await;
            for form in CONNECTS {
                let connect = format!(
                    "CONNECT {api} HTTP/1.1\r\n{}{credential}\r\n",
                    fields.replace("NAME", &api)
                );
                answered(lab, row, form, &connect, 400).await;
            }
            for (form, target, _) in captured(lab) {
                let fields = fields.replace("NAME", &target);
                let head = format!("GET /x HTTP/1.1\r\n{fields}\r\n");
                refused_captured(lab, row, form, &target, &head).await;
            }
        }
        // HTTP/1.0 knows none, and in a tunnel means what the tunnel leads to.
        for (version, status) in [("HTTP/1.0", 200), ("HTTP/1.1", 400)] {
            let mut wire = lab.session.tunnel(&plain).await;
            wire.send(format!("GET /hostless {version}\r\n\r\n")).await;
            assert_eq!(wire.reply().await.status(), status, "{version}");
        }
        let seen = lab.plain.requests_for(" /hostless ");
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].values("host"), [plain.as_str()]);
    });
}

#[test]
pub(crate) fn v050_https_in_absolute_form() {
    LAB.run(50, async |lab, row| {
        for (scheme, target) in [
            ("https", lab.api_target()),
            ("HTTPS", lab.plain_target()),
            ("https", lab.plain_target()),
            ("wss", lab.plain_target()),
        ] {
            let credential = lab.session.credential();
            let head =
                format!("GET {scheme}://{target}/x HTTP/1.1\r\nHost: {target}\r\n{credential}\r\n");
            answered(lab, row, Form::Absolute, &head, 400).await;
        }
        // A client that takes what is behind the tunnel for a proxy, or what caught it for one.
        let plain = lab.plain_target();
        for scheme in ["https", "HTTPS", "ws", "wss", "ftp", "foo"] {
            let head = format!("GET {scheme}://{plain}/x HTTP/1.1\r\nHost: {plain}\r\n\r\n");
            for form in FORMS.into_iter().filter(|form| form.tunnels()) {
                refused_inside(lab, row, form, &head).await;
            }
            refused_captured(lab, row, Form::Captured, &plain, &head).await;
        }
        let api = lab.api_target();
        let head = format!("GET https://{api}/x HTTP/1.1\r\nHost: {api}\r\n\r\n");
        refused_captured(lab, row, Form::Named, &api, &head).await;
    });
}

#[test]
pub(crate) fn v051_other_forms_and_versions() {
    LAB.run(51, async |lab, row| {
        let (plain, credential) = (lab.plain_target(), lab.session.credential());
        for line in [
            "GET * HTTP/1.1",
            "GET http://TARGET/x HTTP/1.2",
            "GET http://TARGET/x HTTP/2.0",
            "GET http://TARGET/x HTTP/0.9",
            "GET http://TARGET/x http/1.1",
            "GET http://TARGET/x",
            "GET ftp://TARGET/x HTTP/1.1",
            "GET file:///etc/passwd HTTP/1.1",
            "GET unix:/run/docker.sock HTTP/1.1",
            "GET unix:///run/docker.sock HTTP/1.1",
            "GET gopher://TARGET/x HTTP/1.1",
            "GET  http://TARGET/x HTTP/1.1",
            "GET http:/x HTTP/1.1",
            "GET http:TARGET/x HTTP/1.1",
            "GET http:///x HTTP/1.1",
            "GET TARGET HTTP/1.1",
            "GET http://TARGET/x HTTP/1.1 ",
            "G(T http://TARGET/x HTTP/1.1",
            "GET http://TARGET/#x HTTP/1.1",
        ] {
            let line = line.replace("TARGET", &plain);
            let head = format!("{line}\r\nHost: {plain}\r\n{credential}\r\n");
            answered(lab, row, Form::Absolute, &head, 400).await;
            // What no server could take for a method is no HTTP there, and passes as other bytes do.
            if !line.starts_with("G(T") {
                refused_inside(lab, row, Form::Connect, &head).await;
            }
        }
        for path in [
            "/",
            "/etc/passwd",
            "/metrics",
            "/readyz",
            "/admin/api/v1/sessions",
            "/healthz/",
            "//evil.test/",
        ] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {plain}\r\n{credential}\r\n");
            answered(lab, row, Form::Absolute, &head, 404).await;
        }
    });
}
