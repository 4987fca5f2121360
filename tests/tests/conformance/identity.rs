//! H. Identity and session.

mod changes;
mod credentials;

use std::time::Duration;

use data_encoding::BASE64;
use e2e::within;
use serde_json::json;
use tokio::time::Instant;

use crate::lab::{Lab, Shared, alone, is_closed, settings};
use crate::sandbox::Expect::Denied;
use crate::sandbox::{Form, Sandbox, refusal_reason};
use crate::table::{Front, Row};

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

/// `credential` is refused with 407 and a challenge by every form; answers the bodies' reasons.
async fn challenged(lab: &Lab, row: &mut Row, credential: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    for form in FORMS {
        let target = if form.tunnels() {
            lab.api_target()
        } else {
            lab.plain_target()
        };
        let mut wire = lab.session.ready(lab, form).await;
        let mark = lab.mark();
        wire.send(form.head(target.as_bytes(), credential)).await;
        let reply = wire.reply().await;
        assert_eq!(
            reply.status(),
            407,
            "{form:?} {credential:?}: {}",
            reply.text()
        );
        assert!(
            reply.head.value("proxy-authenticate").starts_with("Basic"),
            "{:?}",
            reply.head
        );
        lab.nothing_since(&mark, credential);
        reasons.push(refusal_reason(&reply));
        row.on(form.front());
    }
    reasons
}

/// `POST …/sessions/ID:ACTION`.
async fn act(lab: &Lab, session: &Sandbox, action: &str) {
    let path = format!("/runtime/providers/test/sessions/{}:{action}", session.id);
    let reply = lab.gateway.admin("POST", &path, "{}").await;
    assert_eq!(reply.status(), 200, "{action}: {}", reply.text());
}
