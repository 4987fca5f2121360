//! F. Smuggling: refused, or forwarded in one form that every reader takes alike.

mod fields;
mod framing;

use e2e::Wire;
use e2e::raw::End;

use crate::forms::{self, Form};
use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Sandbox;
use crate::table::{Front, Row};
use crate::tap::{Mode, Request, Tap};

pub(crate) use fields::*;
pub(crate) use framing::*;

static LAB: Shared = Shared::new(settings);

/// What a smuggled second request would look like to an upstream.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";

/// The ways plain HTTP comes: absolute-form, origin form inside a CONNECT tunnel, and captured.
const WAYS: [Front; 4] = [
    Front::Absolute,
    Front::Connect,
    Front::Transparent,
    Front::Sni,
];

/// The upstream that a way leads to, and its name: who comes by name has one port.
fn end(lab: &Lab, front: Front) -> (&Tap, String) {
    match front {
        Front::Sni => (&lab.api, lab.api_target()),
        _ => (&lab.plain, lab.plain_target()),
    }
}

/// What both upstreams have been asked for, as they read it.
fn seen(lab: &Lab, part: &str) -> Vec<Request> {
    [lab.plain.requests_for(part), lab.api.requests_for(part)].concat()
}

async fn way(lab: &Lab, front: Front, method: &str, path: &str) -> (Wire, String) {
    let (_, target) = end(lab, front);
    way_to((lab, &lab.session), &target, front, method, path).await
}

async fn way_to(
    (lab, session): (&Lab, &Sandbox),
    target: &str,
    front: Front,
    method: &str,
    path: &str,
) -> (Wire, String) {
    let origin = format!("{method} {path} HTTP/1.1\r\nHost: {target}\r\n");
    let form = match front {
        Front::Connect => return (session.tunnel(target).await, origin),
        Front::Transparent => Form::Captured,
        Front::Sni => Form::Named,
        _ => {
            let credential = session.credential();
            let line = format!("{method} http://{target}{path} HTTP/1.1\r\n");
            let head = format!("{line}Host: {target}\r\n{credential}");
            return (session.dial().await, head);
        }
    };
    let mut wire = session.ready(lab, form).await;
    let preface = forms::preface(target.as_bytes(), &session.credential());
    wire.send(preface).await;
    (wire, origin)
}

/// A POST with these fields and content must be refused with `status`, closed, and leave nothing upstream.
async fn refused(lab: &Lab, row: &mut Row, fields: &[u8], content: &str, status: u16) {
    for front in WAYS {
        let what = format!("{front:?} {}", fields.escape_ascii());
        let (tap, _) = end(lab, front);
        let (mut wire, head) = way(lab, front, "POST", "/refused").await;
        let before = tap.bytes().len();
        wire.send(
            [
                head.as_bytes(),
                fields,
                b"\r\n",
                content.as_bytes(),
                SMUGGLED.as_bytes(),
            ]
            .concat(),
        )
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), status, "{what}: {}", reply.text());
        assert_eq!(wire.rest().await, (Vec::new(), End::Fin), "{what}: goes on");
        let bytes = tap.bytes().split_off(before);
        assert!(bytes.is_empty(), "{what}: {}", bytes.escape_ascii());
        row.on(front);
    }
}

/// A POST with these fields and content must reach the upstream as one request with `body`.
async fn forwarded(lab: &Lab, row: &mut Row, fields: &str, content: &str, body: &str) {
    for front in WAYS {
        let (tap, _) = end(lab, front);
        let (mut wire, head) = way(lab, front, "POST", "/forwarded").await;
        let before = tap.requests_for(" /forwarded ").len();
        wire.send(format!("{head}{fields}\r\n{content}")).await;
        let reply = wire.reply().await;
        assert_eq!(
            reply.status(),
            200,
            "{front:?} {fields:?}: {}",
            reply.text()
        );
        let seen = tap.requests_for(" /forwarded ");
        assert_eq!(seen.len(), before + 1, "{front:?} {fields:?}");
        assert_eq!(
            seen.last().unwrap().body,
            body.as_bytes(),
            "{front:?} {fields:?}"
        );
        row.on(front);
    }
}

/// Everything every upstream of the lab has ever received.
fn everything(lab: &Lab) -> String {
    let bytes = [lab.plain.bytes(), lab.api.bytes()].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}
