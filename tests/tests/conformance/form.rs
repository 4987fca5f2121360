//! E. CONNECT and the form of requests.

mod absolute;
mod connect;
mod passing;

use crate::forms::{self, FORMS, Form, TEMPLATES};
use crate::lab::{Lab, Mark, Shared, settings};
use crate::table::{Front, Row};
use crate::tap::{Mode, Tap};
use e2e::Answer;
use e2e::raw::End;
use e2e::wire::Reply;

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

/// The ways of clients that know of no proxy, whom each leads to, and by which name: the second has one port.
fn captured(lab: &Lab) -> [(Form, String, &Tap); 2] {
    [
        (Form::Captured, lab.plain_target(), &lab.plain),
        (Form::Named, lab.api_target(), &lab.api),
    ]
}

/// The answer to this on a connection that was meant for the port of `target`; and how far the witnesses' logs were before.
async fn captured_answer(lab: &Lab, form: Form, target: &str, head: &str) -> (Mark, Reply) {
    let mut wire = lab.session.ready(lab, form).await;
    let mark = lab.mark();
    let preface = forms::preface(target.as_bytes(), &lab.session.credential());
    wire.send([&preface[..], head.as_bytes()].concat()).await;
    (mark, wire.reply().await)
}

/// It is refused with `status`, and nothing is asked or dialled.
async fn turned_away(
    lab: &Lab,
    row: &mut Row,
    (form, target): (Form, &str),
    head: &str,
    status: u16,
) -> Reply {
    let (mark, reply) = captured_answer(lab, form, target, head).await;
    let got = reply.status();
    assert_eq!(got, status, "{form:?} {head:?}: {}", reply.text());
    lab.nothing_since(&mark, head);
    row.on(form.front());
    reply
}

/// It is no request that goes anywhere.
async fn refused_captured(lab: &Lab, row: &mut Row, form: Form, target: &str, head: &str) {
    turned_away(lab, row, (form, target), head, 400).await;
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

/// The answer of an upstream that says `raw` to an upgrade (or none), and whether what the client sends then goes up. `named`: the
/// upstream of clients that come by name.
async fn upgraded(lab: &Lab, form: Form, named: &Tap, raw: &str, upgrade: &str) -> (u16, Vec<u8>) {
    let answer = Mode::Answer(raw.into());
    let (name, tap) = match form {
        Form::Named => ("named.allowed.test", named.afresh(answer)),
        _ => ("raw.allowed.test", Tap::start(answer).await),
    };
    lab.dns.set(name, Answer::Addresses(vec![tap.address.ip()]));
    let target = format!("{name}:{}", tap.port());
    let session = lab.allowing(&[&target]).await;
    let fields = format!("Host: {target}\r\n{upgrade}");
    let (reply, mut wire) = if form.is_captured() {
        let mut wire = session.ready(lab, form).await;
        let preface = forms::preface(target.as_bytes(), &session.credential());
        let head = format!("GET /x HTTP/1.1\r\n{fields}\r\n");
        wire.send([&preface[..], head.as_bytes()].concat()).await;
        (wire.reply().await, wire)
    } else {
        let line = format!("GET http://{target}/x");
        session.ask(&line, &fields).await
    };
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
