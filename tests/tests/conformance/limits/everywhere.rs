//! What limits refuse, whatever it is asked by.

use e2e::wire::Reply;

use super::*;

/// Ask for the target: nothing where it is served, else the reason of a 429 (of SOCKS: of "not allowed").
async fn limit_of(lab: &Lab, session: &Sandbox, form: Form, target: &str) -> Option<String> {
    if form == Form::Socks {
        let mut wire = session.ready(lab, form).await;
        let head = form.head(target.as_bytes(), &session.credential());
        wire.send(head).await;
        // The method, the login, the reply.
        let answer = wire.take(2 + 2 + 10).await;
        assert_eq!(answer[..5], [5, 2, 1, 0, 5], "{answer:?}");
        if answer[5] == 0 {
            return None;
        }
        assert_eq!(answer[5], 2, "{answer:?}");
        let record = lab.refusal_of(wire.local()).await;
        return Some(record.text("reason").to_owned());
    }
    let begun = session.begun(lab, form, target).await;
    let (head, mut rest) = begun.unwrap_or_else(|| panic!("{form:?}: reset"));
    if [101, 200].contains(&head.status) {
        return None;
    }
    assert_eq!(head.status, 429, "{form:?}: {head:?}");
    let body = match head.value("content-length").parse() {
        Ok(length) => rest.take(length).await,
        Err(_) => rest.rest().await.0,
    };
    Some(refusal_reason(&Reply { head, body }))
}

/// Opens are counted by their session, and the neighbour's are served.
pub(super) async fn opens(lab: &Lab, row: &mut Row) {
    let target = lab.api_target();
    for form in FORMS {
        let session = limited(lab, json!({"opensPerSecond": 1})).await;
        let refused = async {
            loop {
                if let Some(reason) = limit_of(lab, &session, form, &target).await {
                    break reason;
                }
            }
        };
        let reason = within("a flood to be refused", refused).await;
        assert_eq!(reason, "too_many_opens", "{form:?}");
        let neighbour = limit_of(lab, &lab.session, form, &target).await;
        assert_eq!(neighbour, None, "{form:?}: the neighbour");
        row.on(form.front());
    }
}

/// A tunnel and the first request in it are one open, and each further request is one more.
pub(super) async fn requests_in_a_tunnel(lab: &Lab) {
    let plain = lab.plain_target();
    let session = limited(lab, json!({"opensPerSecond": 1})).await;
    let mut wire = session.tunnel(&plain).await;
    let ask = format!("GET /probe HTTP/1.1\r\nHost: {plain}\r\n\r\n");
    wire.send(&ask).await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 200, "{}", reply.text());
    let refused = async {
        loop {
            wire.send(&ask).await;
            let reply = wire.reply().await;
            if reply.status() != 200 {
                break (reply.status(), refusal_reason(&reply));
            }
        }
    };
    let refused = within("requests to be refused", refused).await;
    assert_eq!(refused, (429, "too_many_opens".to_owned()));
}

/// A place that a tunnel holds is taken, and bytes that are spent are, for everything else that is asked.
pub(super) async fn places_and_bytes(lab: &Lab, row: &mut Row) {
    let target = lab.api_target();
    let spent = limited(lab, json!({"bytes": 1000})).await;
    let (_, _, mut wire) = attempt(&spent, &target).await;
    let _ = wire.stream.write_all(&[1; 4000]).await;
    wire.cut().await;
    let narrow = limited(lab, json!({"tunnels": 1})).await;
    for form in FORMS {
        let reason = limit_of(lab, &spent, form, &target).await;
        assert_eq!(reason.as_deref(), Some("byte_quota"), "{form:?}");
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let held = async {
            loop {
                // What was asked before may still be about to end.
                let (status, _, wire) = attempt(&narrow, &target).await;
                if status == 200 {
                    break wire;
                }
                tick.tick().await;
            }
        };
        let held = within("the one place", held).await;
        let reason = limit_of(lab, &narrow, form, &target).await;
        assert_eq!(reason.as_deref(), Some("too_many_tunnels"), "{form:?}");
        drop(held);
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let served = async {
            while limit_of(lab, &narrow, form, &target).await.is_some() {
                tick.tick().await;
            }
        };
        within("the freed place", served).await;
        row.on(form.front());
    }
}
