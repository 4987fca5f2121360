//! What is no hello.

use super::*;

#[test]
pub(crate) fn v091_not_tls() {
    LAB.run(91, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let others: [&[u8]; 4] = [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\x01\x02\x03random",
            b"EHLO me\r\n",
            b"*1\r\n$4\r\nPING\r\n",
        ];
        for bytes in others {
            tunnels
                .cuts(row, REQUIRE, &[bytes], Cut::Reset, "tls_required")
                .await;
            tunnels.passes_asked(row, AUTO, &[bytes]).await;
            tunnels.passes_asked(row, "opaque.tls.test", &[bytes]).await;
        }
        // For an address that may be reached by TLS only.
        let (captured, cut) = ((Form::Captured, false), (Cut::Reset, "tls_required"));
        tunnels
            .cuts_by(row, "127.0.0.1", &others[..1], captured, cut)
            .await;
        let http = b"GET /probe HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        tunnels
            .cuts_asked(row, REQUIRE, &[http], Cut::Reset, "tls_required")
            .await;
        tunnels.passes_asked(row, "opaque.tls.test", &[http]).await;
        // Nor as a request of its own: it would reach the host in the plain.
        let captured = [Form::Captured, Form::Named];
        for form in FORWARDS.into_iter().chain(captured) {
            let tap = tunnels.tap(form, Mode::Http).await;
            let asked = format!("{REQUIRE}:{}", tap.port());
            let (_, reply) = tunnels.session.reply(lab, form, &asked).await;
            assert_eq!(reply.status(), 403, "{form:?} {}", reply.text());
            assert_eq!(refusal_reason(&reply), "tls_required");
            assert_eq!(tap.bytes(), b"");
            row.on(form.front());
        }
        let asked = WAYS.map(|(form, _)| form);
        for form in asked.into_iter().chain(captured) {
            let tap = tunnels.tap(form, Mode::Http).await;
            let mut wire = tunnels.open(AUTO, &tap, form, b"").await;
            wire.send(http).await;
            // Where nobody has asked for another host, it is only one that is denied.
            let refused = if form.is_captured() { 403 } else { 400 };
            assert_eq!(wire.reply().await.status(), refused, "{form:?}");
            assert_eq!(tap.bytes(), b"", "another host's request");
            drop(tap);
            let tap = tunnels.tap(form, Mode::Http).await;
            let host = format!("{AUTO}:{}", tap.port());
            let right = format!("GET /probe HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let mut wire = tunnels.open(AUTO, &tap, form, b"").await;
            wire.send(right).await;
            assert_eq!(wire.reply().await.status(), 200);
            assert_eq!(
                tap.requests_for("/probe")[0].values("host"),
                [host.as_str()]
            );
        }
        half_a_request(&tunnels).await;
        almost_a_request(&tunnels).await;
        proxy_headers(&tunnels, row).await;
    });
}

/// Nor half a request and the end of the stream, which some servers take for the end of its line.
async fn half_a_request(tunnels: &Tunnels<'_>) {
    for line in [
        "GET http://evil.test/ HTTP/1.1",
        "GET / HTTP/1.0\rHost: evil.test\r\r",
        "GET /old",
    ] {
        for form in [Form::Connect, Form::Socks, Form::Http2] {
            let what = format!("{form:?} {line:?}");
            let tap = tunnels.tap(form, Mode::Http).await;
            let mut wire = tunnels.open(AUTO, &tap, form, b"").await;
            wire.send(line).await;
            wire.finish().await;
            wire.cut().await;
            tap.got_nothing(&what).await;
            let asked = format!("{AUTO}:{}", tap.port());
            let cut = |one: &Record| {
                one.text("target") == asked && one.text("reason") == "malformed_request"
            };
            tunnels.lab.gateway.record(&what, cut).await;
        }
    }
}

/// Nor what is no request, and servers serve as one.
async fn almost_a_request(tunnels: &Tunnels<'_>) {
    for line in [
        "GET HTTP://evil.test/secret",
        "GET a://evil.test/secret",
        "GET  http://evil.test/secret",
        "PLAY / RTSP/1.1",
        "SOURCE / ICE/1.0",
        "PROPFIND /x",
        "OPTIONS *",
        "CONNECT evil.test:443",
    ] {
        for form in [Form::Connect, Form::Socks, Form::Http2] {
            let what = format!("{form:?} {line:?}");
            let tap = tunnels.tap(form, Mode::Http).await;
            let mut wire = tunnels.open(AUTO, &tap, form, b"").await;
            wire.send(format!("{line}\r\nHost: evil.test\r\n\r\n"))
                .await;
            assert_eq!(wire.reply().await.status(), 400, "{what}");
            assert_eq!(tap.bytes(), b"", "{what}");
        }
    }
}

/// Nor a PROXY header, behind which a server of the balancer's reads on.
async fn proxy_headers(tunnels: &Tunnels<'_>, row: &mut Row) {
    let request = b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    for header in [
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".as_slice(),
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ] {
        let bytes = [header, request].concat();
        for (host, reason) in [(AUTO, "malformed_request"), (REQUIRE, "tls_required")] {
            tunnels
                .cuts_asked(row, host, &[&bytes], Cut::Reset, reason)
                .await;
        }
    }
    let said = |one: &Record| one.text("detail").starts_with("a PROXY header");
    tunnels.lab.gateway.record("why it was cut", said).await;
}

#[test]
pub(crate) fn v092_server_speaks_first() {
    LAB.run(92, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let greet = || Mode::Greet(b"220 ready\r\n".to_vec());
        for form in SLOW {
            // A name that nobody says leads nowhere; an address that was dialled is one.
            let host = if form == Form::Captured {
                "127.0.0.1"
            } else {
                REQUIRE
            };
            let tap = tunnels.tap(form, greet()).await;
            let mut wire = tunnels.open(host, &tap, form, b"").await;
            is_cut(&mut wire, Cut::Reset, "a greeting under require").await;
            tap.got_nothing("a silent client").await;
            row.on(form.front());
        }
        for form in SLOW.into_iter().filter(|form| !form.is_captured()) {
            let tap = tunnels.tap(form, greet()).await;
            let mut wire = tunnels.open(AUTO, &tap, form, b"").await;
            assert_eq!(wire.take(11).await, b"220 ready\r\n");
            wire.send("EHLO me\r\n").await;
            tap.receives(b"EHLO me\r\n", "an answer to the greeting")
                .await;
        }
    });
}

#[test]
pub(crate) fn v093_tls_after_a_request_for_it() {
    LAB.run(93, async |lab, row| {
        let tunnels = Tunnels::of(lab).await;
        let ssl_request = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
        tunnels
            .cuts(row, REQUIRE, &[ssl_request], Cut::Reset, "tls_required")
            .await;
        tunnels.passes_asked(row, AUTO, &[ssl_request]).await;
        tunnels
            .passes_asked(row, "opaque.tls.test", &[ssl_request])
            .await;
    });
}

#[test]
pub(crate) fn v097_resolvers_and_other_ports() {
    LAB.run(97, async |lab, row| {
        let expect = crate::sandbox::Expect::Denied(&[
            "port_not_allowed",
            "host_not_allowed",
            "address_not_allowed",
        ]);
        for target in [
            "api.allowed.test:853",
            "dns.google:443",
            "1.1.1.1:443",
            "one.one.one.one:853",
            "8.8.8.8:853",
        ] {
            lab.session.refused(lab, row, target, expect).await;
        }
        // QUIC carries relay streams only, on public listeners; a plain one has nothing on its UDP side.
        let udp = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        udp.connect(lab.gateway.ports.plain).await.unwrap();
        udp.send(b"\xc0\0\0\0\x01").await.unwrap();
        let answer = e2e::within("a refusal of the port", udp.recv(&mut [0; 64])).await;
        assert!(answer.is_err(), "{answer:?}");
    });
}
