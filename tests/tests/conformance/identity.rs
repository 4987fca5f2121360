//! H. Identity and session.

mod changes;
mod credentials;

use std::time::Duration;

use data_encoding::BASE64;
use e2e::raw::End;
use e2e::{Wire, socks, within};
use serde_json::json;

use crate::forms::{Form, TEMPLATES};
use crate::lab::{Lab, Shared, alone, is_closed, settings};
use crate::sandbox::Expect::Denied;
use crate::sandbox::{Sandbox, refusal_reason};
use crate::table::{Front, Row};
use crate::tap::{HALF, Mode};

pub(crate) use changes::*;
pub(crate) use credentials::*;

static LAB: Shared = Shared::new(settings);

const FORMS: [Form; 3] = [Form::Connect, Form::ConnectKept, Form::Absolute];

fn basic(text: &str) -> String {
    format!(
        "Proxy-Authorization: Basic {}\r\n",
        BASE64.encode(text.as_bytes())
    )
}

/// `credential` is refused with a challenge by every form that has a place for one; answers the bodies' reasons. To clients of
/// `connect-tcp` we are an origin.
async fn challenged(lab: &Lab, row: &mut Row, credential: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let streams = [Form::Http2, Form::Http3, Form::Http3Forward];
    for form in FORMS.into_iter().chain(streams).chain(TEMPLATES) {
        let target = if form.tunnels() {
            lab.api_target()
        } else {
            lab.plain_target()
        };
        let asked = lab.session.reply_to(lab, form, &target, credential);
        let (mark, reply) = asked.await;
        let (status, field, scheme) = if TEMPLATES.contains(&form) {
            (401, "www-authenticate", "Bearer")
        } else {
            (407, "proxy-authenticate", "Basic")
        };
        let what = format!("{form:?} {credential:?}: {}", reply.text());
        assert_eq!(reply.status(), status, "{what}");
        assert!(reply.head.value(field).starts_with(scheme), "{what}");
        lab.nothing_since(&mark, credential);
        reasons.push(refusal_reason(&reply));
        row.on(form.front());
    }
    reasons
}

/// What the SOCKS listener says to this password, and why as the record has it.
async fn login(lab: &Lab, row: &mut Row, password: &str) -> (Vec<u8>, String) {
    let mut wire = Wire::dial(lab.gateway.listener("socks").await).await;
    let mark = lab.mark();
    let login = socks::login("sluicegate", password);
    wire.send([&socks::GREETING[..], &login].concat()).await;
    let (answer, end) = wire.rest().await;
    assert_eq!(end, End::Fin, "{password:?}");
    lab.nothing_since(&mark, password);
    let record = lab.refusal_of(wire.local()).await;
    row.on(Front::Socks);
    (answer, record.text("reason").to_owned())
}

/// `POST …/sessions/ID:ACTION`.
async fn act(lab: &Lab, session: &Sandbox, action: &str) {
    let path = format!("/runtime/providers/test/sessions/{}:{action}", session.id);
    let reply = lab.gateway.admin("POST", &path, "{}").await;
    assert_eq!(reply.status(), 200, "{action}: {}", reply.text());
}
