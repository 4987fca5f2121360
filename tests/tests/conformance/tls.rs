//! G. TLS inside a tunnel: the first bytes are judged before any of them goes up.

mod extensions;
mod names;
mod other;
mod records;

use e2e::raw::End;
use e2e::{Record, Wire, until};
use serde_json::json;

use crate::hello::{Hello, message, record, retry_request, server_name};
use crate::lab::{Lab, Shared, settings};
use crate::sandbox::{Form, Sandbox, refusal_reason};
use crate::table::{Front, Row};
use crate::tap::{Mode, Tap};

pub(crate) use extensions::*;
pub(crate) use names::*;
pub(crate) use other::*;
pub(crate) use records::*;

static LAB: Shared = Shared::new(settings);

/// A fatal `access_denied` (RFC 8446 §6.2).
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];
/// `encrypted_client_hello` (RFC 9849).
const ECH: u16 = 0xfe0d;
/// An outer ECH extension as GREASE and real ones look: suite, config id, encapsulated key, payload.
const ECH_OUTER: [u8; 12] = [0, 0, 1, 0, 1, 42, 0, 0, 0, 2, 7, 7];

/// How a cut shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Alert,
    Reset,
}

/// Tunnels of one session to upstreams of the row's own, one per rule.
struct Tunnels<'a> {
    lab: &'a Lab,
    session: Sandbox,
}

/// Bytes sent apart, or in one segment with the CONNECT.
const WAYS: [(Form, bool); 4] = [
    (Form::Connect, false),
    (Form::Connect, true),
    (Form::ConnectKept, true),
    (Form::Socks, true),
];

impl<'a> Tunnels<'a> {
    async fn of(lab: &'a Lab) -> Self {
        let name = |rule: &str| format!("{rule}.tls.test:*");
        let rules =
            ["require", "auto", "opaque"].map(|rule| json!({"host": name(rule), "tls": rule}));
        let ech = [
            json!({"host": name("deny"), "tls": "require", "ech": "deny"}),
            json!({"host": name("public"), "tls": "require", "ech": {"publicNames": ["cloudflare-ech.com"]}}),
            json!({"host": "127.0.0.0/8:*", "tls": "require"}),
        ];
        let names = ["require", "auto", "opaque", "deny", "public"];
        for rule in names {
            lab.dns.point(&format!("{rule}.tls.test"));
        }
        let hosts: Vec<String> = names
            .iter()
            .map(|rule| name(rule))
            .chain(["127.0.0.0/8:*".to_owned()])
            .collect();
        let rules = [&rules[..], &ech[..]].concat();
        let grant = json!({"egress": {
            "allowedHosts": hosts,
            "allowedAddresses": ["127.0.0.0/8"],
            "rules": rules,
        }});
        let session = lab.sandbox(grant).await;
        Self { lab, session }
    }

    async fn open(&self, host: &str, tap: &Tap, form: Form, together: &[u8]) -> Wire {
        let target = format!("{host}:{}", tap.port());
        let mut wire = self.session.ready(self.lab, form).await;
        let head = form.head(target.as_bytes(), &self.session.credential());
        wire.send([&head[..], together].concat()).await;
        form.opened(&mut wire, &target).await;
        wire
    }

    /// `pieces` must reach the upstream as they are.
    async fn passes(&self, row: &mut Row, host: &str, pieces: &[impl AsRef<[u8]>]) {
        for (form, together) in WAYS {
            let what = format!("{form:?} to {host}");
            let whole: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.as_ref().to_vec())
                .collect();
            let tap = Tap::start(Mode::Silent).await;
            let early: &[u8] = if together { &whole } else { b"" };
            let mut wire = self.open(host, &tap, form, early).await;
            if !together {
                for piece in pieces {
                    wire.send(piece).await;
                }
            }
            tap.receives(&whole, &what).await;
            row.on(form.front());
        }
    }

    /// `pieces` must be cut, and not one byte of them reach the upstream.
    async fn cuts(
        &self,
        row: &mut Row,
        host: &str,
        pieces: &[impl AsRef<[u8]>],
        cut: Cut,
        reason: &str,
    ) {
        for (form, together) in WAYS {
            let what = format!("{form:?} to {host}, {reason}");
            let whole: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.as_ref().to_vec())
                .collect();
            let tap = Tap::start(Mode::Silent).await;
            let target = format!("{host}:{}", tap.port());
            let before = records_of(self.lab, &target).len();
            let early: &[u8] = if together { &whole } else { b"" };
            let mut wire = self.open(host, &tap, form, early).await;
            if !together {
                for piece in pieces {
                    wire.send(piece).await;
                }
            }
            is_cut(&mut wire, cut, &what).await;
            drop(wire);
            tap.got_nothing(&what).await;
            let record = record_after(self.lab, &target, before).await;
            assert_eq!(
                (record.text("outcome"), record.text("reason")),
                ("cut", reason),
                "{what}: {record:?}"
            );
            row.on(form.front());
        }
    }
}

async fn is_cut(wire: &mut Wire, cut: Cut, what: &str) {
    let expected = match cut {
        Cut::Alert => (ACCESS_DENIED.to_vec(), End::Fin),
        Cut::Reset => (Vec::new(), End::Reset),
    };
    assert_eq!(wire.rest().await, expected, "{what}");
}

/// The records of a target. Ports come again, so an earlier tunnel of another row may be among them.
fn records_of(lab: &Lab, target: &str) -> Vec<Record> {
    let mut records = lab.gateway.records();
    records.retain(|record| record.text("target") == target);
    records
}

/// Waits for the record after the first `before` of this target.
async fn record_after(lab: &Lab, target: &str, before: usize) -> Record {
    until("a record", || {
        records_of(lab, target).into_iter().nth(before)
    })
    .await
}

const REQUIRE: &str = "require.tls.test";
const AUTO: &str = "auto.tls.test";

impl Tunnels<'_> {
    /// Cut with an alert; whether the name is malformed or only another one is a matter of taste.
    async fn cuts_somehow(&self, row: &mut Row, host: &str, name: &str) {
        for (form, _) in WAYS {
            let tap = Tap::start(Mode::Silent).await;
            let hello = Hello::new(name).wire();
            let mut wire = self.open(host, &tap, form, &hello).await;
            is_cut(&mut wire, Cut::Alert, name).await;
            tap.got_nothing(name).await;
            row.on(form.front());
        }
    }
}

/// A tunnel whose upstream has asked for a second hello.
async fn retried(tunnels: &Tunnels<'_>) -> (Wire, Tap, Vec<u8>) {
    let tap = Tap::start(Mode::Answer(retry_request())).await;
    let first = Hello::new(REQUIRE).wire();
    let mut wire = tunnels.open(REQUIRE, &tap, Form::Connect, &first).await;
    assert_eq!(wire.take(retry_request().len()).await, retry_request());
    (wire, tap, first)
}
