//! F. Smuggling: refused, or forwarded in one form that every reader takes alike.

mod fields;
mod framing;

use e2e::Wire;
use e2e::raw::End;

use crate::lab::{Lab, Shared, settings};
use crate::sandbox::Sandbox;
use crate::table::{Front, Row};
use crate::tap::{Mode, Tap};

pub(crate) use fields::*;
pub(crate) use framing::*;

static LAB: Shared = Shared::new(settings);

/// What a smuggled second request would look like to an upstream.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n";

/// The two ways plain HTTP comes: absolute-form, and origin form inside a CONNECT tunnel.
const WAYS: [Front; 2] = [Front::Absolute, Front::Connect];

async fn way(lab: &Lab, front: Front, method: &str, path: &str) -> (Wire, String) {
    way_to(
        &lab.session,
        &lab.plain_target(),
        front,
        &format!("{method} "),
        path,
    )
    .await
}

async fn way_to(
    session: &Sandbox,
    plain: &str,
    front: Front,
    method: &str,
    path: &str,
) -> (Wire, String) {
    let host = format!("HTTP/1.1\r\nHost: {plain}\r\n");
    if front == Front::Connect {
        return (
            session.tunnel(plain).await,
            format!("{method}{path} {host}"),
        );
    }
    let line = format!(
        "{method}http://{plain}{path} {host}{}",
        session.credential()
    );
    (session.dial().await, line)
}

/// A POST with these fields and content must be refused with `status`, closed, and leave nothing upstream.
async fn refused(lab: &Lab, row: &mut Row, fields: &[u8], content: &str, status: u16) {
    for front in WAYS {
        let what = format!("{front:?} {}", fields.escape_ascii());
        let (mut wire, head) = way(lab, front, "POST", "/refused").await;
        let before = lab.plain.bytes().len();
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
        let bytes = lab.plain.bytes().split_off(before);
        assert!(bytes.is_empty(), "{what}: {}", bytes.escape_ascii());
        row.on(front);
    }
}

/// A POST with these fields and content must reach the upstream as one request with `body`.
async fn forwarded(lab: &Lab, row: &mut Row, fields: &str, content: &str, body: &str) {
    for front in WAYS {
        let (mut wire, head) = way(lab, front, "POST", "/forwarded").await;
        let before = lab.plain.requests_for(" /forwarded ").len();
        wire.send(format!("{head}{fields}\r\n{content}")).await;
        let reply = wire.reply().await;
        assert_eq!(
            reply.status(),
            200,
            "{front:?} {fields:?}: {}",
            reply.text()
        );
        let seen = lab.plain.requests_for(" /forwarded ");
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
