//! E. CONNECT and the form of requests.

mod absolute;
mod connect;
mod passing;

use crate::forms::{self, FORMS, Form, TEMPLATES};
use crate::lab::{Lab, Shared, settings};
use crate::table::{Front, Row};
use crate::tap::{Mode, Tap};
use e2e::raw::End;

pub(crate) use absolute::*;
pub(crate) use connect::*;
pub(crate) use passing::*;

static LAB: Shared = Shared::new(settings);

const CONNECTS: [Form; 2] = [Form::Connect, Form::ConnectKept];
/// The same as streams.
const STREAMS: [Form; 2] = [Form::Http2, Form::Http3];
/// Requests that are streams.
const STREAMED: [Form; 2] = [Form::Http2Forward, Form::Http3Forward];

/// Each of these, sent as it is, is answered with `status`, and nothing is asked, dialled or read after it.
async fn answered(lab: &Lab, row: &mut Row, form: Form, head: &str, status: u16) {
    let mut wire = lab.session.ready(lab, form).await;
    let mark = lab.mark();
    wire.send(head).await;
    let reply = wire.reply().await;
    assert_eq!(
        reply.status(),
        status,
        "{form:?} {head:?}: {}",
        reply.text()
    );
    if status == 400 {
        assert_eq!(
            wire.rest().await,
            (Vec::new(), End::Fin),
            "{form:?} {head:?}: goes on"
        );
    }
    lab.nothing_since(&mark, head);
    row.on(form.front());
}

/// This, sent as it is through a tunnel that this form opens, is answered with 400, and nothing of it goes up.
async fn refused_inside(lab: &Lab, row: &mut Row, form: Form, head: &str) {
    let mut wire = lab
        .session
        .opened(lab, form, &lab.plain_target(), b"")
        .await;
    let before = lab.plain.bytes().len();
    wire.send(head).await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 400, "{form:?} {head:?}: {}", reply.text());
    assert_eq!(lab.plain.bytes().len(), before, "{form:?} {head:?}");
    row.on(form.front());
}

/// The same of a connection that was meant for the port of `target`: nothing is asked or dialled either.
async fn refused_captured(lab: &Lab, row: &mut Row, form: Form, target: &str, head: &str) {
    let mut wire = lab.session.ready(lab, form).await;
    let mark = lab.mark();
    wire.send(forms::preface(target.as_bytes(), &lab.session.credential()))
        .await;
    wire.send(head).await;
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 400, "{form:?} {head:?}: {}", reply.text());
    lab.nothing_since(&mark, head);
    row.on(form.front());
}

/// The target asked for as streams with each of these as `host` is malformed, and nothing is asked or dialled.
async fn other_hosts(lab: &Lab, row: &mut Row, forms: [Form; 2], target: &str, hosts: &[&str]) {
    for (form, host) in forms
        .iter()
        .flat_map(|form| hosts.iter().map(move |h| (*form, *h)))
    {
        let fields = format!("Host: {host}\r\n{}", lab.session.credential());
        let (mark, reply) = lab.session.reply_to(lab, form, target, &fields).await;
        assert_eq!(reply.status(), 400, "{form:?} {host}: {}", reply.text());
        lab.nothing_since(&mark, host);
        row.on(form.front());
    }
}

/// The answer of an upstream that says `raw` to an upgrade (or none), and whether what the client sends then goes up.
async fn upgraded(lab: &Lab, raw: &str, upgrade: &str) -> (u16, Vec<u8>) {
    let tap = Tap::start(Mode::Answer(raw.into())).await;
    lab.dns.point("raw.allowed.test");
    let target = format!("raw.allowed.test:{}", tap.port());
    let session = lab.allowing(&[&target]).await;
    let fields = format!("Host: {target}\r\n{upgrade}");
    let (reply, mut wire) = session
        .ask(&format!("GET http://{target}/x"), &fields)
        .await;
    let before = tap.bytes().len();
    let _ = tokio::io::AsyncWriteExt::write_all(&mut wire.stream, b"raw bytes, no request\r\n\r\n")
        .await;
    if reply.status() != 101 {
        let (rest, _) = wire.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"),
            "{}",
            rest.escape_ascii()
        );
    } else {
        tap.receives(
            &[&tap.bytes()[..before], b"raw bytes, no request\r\n\r\n"].concat(),
            "an upgrade",
        )
        .await;
    }
    (reply.status(), tap.bytes()[before..].to_vec())
}
