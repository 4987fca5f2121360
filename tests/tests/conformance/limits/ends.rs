//! How things end that nobody ends on purpose.

use super::*;

#[test]
pub(crate) fn v116_idle_tunnels() {
    alone(116, async |row| {
        let mut settings = settings();
        settings.limits.push_str("  idleTimeout: 1s\n");
        let lab = Lab::start(settings).await;
        let (api, session) = (lab.api_target(), &lab.session);
        for form in FORMS.into_iter().filter(|form| form.tunnels()) {
            let mut wire = session.opened(&lab, form, &api, b"").await;
            wire.send("GET /probe HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
                .await;
            assert_eq!(wire.reply().await.status(), 200, "{form:?}");
            let took = wire.cut().await;
            assert!(took < Duration::from_secs(6), "{form:?}: {took:?}");
            row.on(form.front());
        }
        // An answer that stops in the middle is no better.
        for form in FORMS.into_iter().filter(|form| !form.tunnels()) {
            let tap = lab.api.afresh(Mode::Answer(HALF.to_vec()));
            let (head, mut body) = session.begun(&lab, form, &api).await.unwrap();
            assert_eq!(head.status, 200, "{form:?}");
            let took = body.cut().await;
            assert!(took < Duration::from_secs(6), "{form:?}: {took:?}");
            drop(tap);
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v117_half_close() {
    LAB.run(117, async |lab, row| {
        lab.dns.point("raw.allowed.test");
        let origin = RawOrigin::start().await;
        let target = format!("raw.allowed.test:{}", origin.address.port());
        let session = lab.allowing(&[&target]).await;
        for form in FORMS.into_iter().filter(|form| form.tunnels()) {
            let mut near = session.opened(lab, form, &target, b"").await;
            near.send("\x01question").await;
            near.finish().await;
            let mut far = origin.accept().await;
            let heard = drain(&mut far).await;
            assert_eq!(heard, (b"\x01question".to_vec(), End::Fin), "{form:?}");
            far.write_all(b"late").await.unwrap();
            drop(far);
            assert_eq!(near.rest().await, (b"late".to_vec(), End::Fin), "{form:?}");
            let mut near = session.opened(lab, form, &target, b"").await;
            let mut far = origin.accept().await;
            far.write_all(b"early").await.unwrap();
            far.shutdown().await.unwrap();
            assert_eq!(near.rest().await, (b"early".to_vec(), End::Fin), "{form:?}");
            near.send("\x01late").await;
            near.finish().await;
            let heard = drain(&mut far).await;
            assert_eq!(heard, (b"\x01late".to_vec(), End::Fin), "{form:?}");
            row.on(form.front());
        }
        half_closed_requests(lab, row, &session, &origin).await;
    });
}

/// A client that has said everything still has its answer, and one that the upstream's end is the end of is whole.
async fn half_closed_requests(lab: &Lab, row: &mut Row, session: &Sandbox, origin: &RawOrigin) {
    let target = format!("raw.allowed.test:{}", origin.address.port());
    for form in FORWARDS.into_iter().chain([Form::Captured]) {
        let asking = async {
            if form.is_stream() {
                return session.reply(lab, form, &target).await.1;
            }
            let mut wire = session.ready(lab, form).await;
            wire.send(form.head(target.as_bytes(), &session.credential()))
                .await;
            wire.finish().await;
            wire.reply().await
        };
        let answering = async {
            let mut far = origin.accept().await;
            read_head(&mut far).await;
            far.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the end")
                .await
                .unwrap();
        };
        let (reply, ()) = tokio::join!(asking, answering);
        assert_eq!((reply.status(), &reply.body[..]), (200, &b"to the end"[..]));
        row.on(form.front());
    }
}

#[test]
pub(crate) fn v118_reset_storm() {
    LAB.run(118, async |lab, row| {
        let target = lab.api_target();
        let before = lab.gateway.descriptors();
        let forms = [Form::Connect, Form::Absolute];
        for (round, form) in (0..200).flat_map(|round| forms.map(|form| (round, form))) {
            let mut wire = lab.session.dial().await;
            let head = form.head(target.as_bytes(), &lab.session.credential());
            let sent = if round % 2 == 0 {
                head.len()
            } else {
                head.len() / 2
            };
            wire.send(&head[..sent]).await;
            wire.abort();
        }
        let what = "the gateway to let go of every socket";
        until(what, || {
            // Of what was answered in time 64 connections at most are kept for the next request.
            (lab.gateway.descriptors() <= before + 8 + 64).then_some(())
        })
        .await;
        lab.session.tunnel(&target).await;
        let (_, reply) = lab.session.reply(lab, Form::Absolute, &target).await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        for form in forms {
            row.on(form.front());
        }
    });
}

#[test]
pub(crate) fn v124_drain() {
    alone(124, async |row| {
        let mut settings = settings();
        settings.limits.push_str("  drainTimeout: 10s\n");
        let mut lab = Lab::start(settings).await;
        lab.dns.point("raw.allowed.test");
        let session = lab.allowing(&["raw.allowed.test:*"]).await;
        let mut tunnels = Vec::new();
        for form in FORMS.into_iter().filter(|form| form.tunnels()) {
            let tap = Tap::start(Mode::Silent).await;
            let target = format!("raw.allowed.test:{}", tap.port());
            let wire = session.opened(&lab, form, &target, b"").await;
            tunnels.push((form, wire, tap));
        }
        let origin = RawOrigin::start().await;
        let target = format!("raw.allowed.test:{}", origin.address.port());
        let mut answers = Vec::new();
        for form in FORWARDS.into_iter().chain([Form::Captured]) {
            for whole in [true, false] {
                let answering = async {
                    let mut far = origin.accept().await;
                    read_head(&mut far).await;
                    far.write_all(HALF).await.unwrap();
                    far
                };
                let (begun, far) = tokio::join!(session.begun(&lab, form, &target), answering);
                answers.push((form, begun.unwrap().1, far, whole));
            }
        }
        lab.gateway.terminate();
        is_closed(lab.gateway.ports.plain).await;
        is_closed(lab.gateway.ports.public).await;
        for (form, wire, tap) in &mut tunnels {
            // No TLS and no HTTP: bytes that only go through.
            wire.send("\x01what is open goes on").await;
            let what = format!("{form:?}");
            tap.receives(b"\x01what is open goes on", &what).await;
        }
        for (form, body, far, whole) in &mut answers {
            if *whole {
                far.write_all(b"half").await.unwrap();
            }
            assert_eq!(body.take(4).await, b"half", "{form:?}");
        }
        // Until the deadline, and not a moment longer.
        for (form, mut wire, _tap) in tunnels {
            assert_eq!(wire.rest().await.1, End::Reset, "{form:?}");
            row.on(form.front());
        }
        for (form, mut body, _far, whole) in answers {
            let expected = if whole {
                (b"half".to_vec(), End::Fin)
            } else {
                (Vec::new(), End::Reset)
            };
            assert_eq!(body.rest().await, expected, "{form:?}");
            row.on(form.front());
        }
        until("the end", || lab.gateway.process.ended()).await;
    });
}
