//! G. TLS inside a tunnel: the first bytes are judged before any of them goes up.

mod extensions;
mod names;
mod other;
mod records;

use e2e::raw::End;
use e2e::{Pipe, Record, Wire, until};
use serde_json::json;

use crate::forms::{FORWARDS, Form, preface};
use crate::hello::{Hello, message, record, retry_request, server_name};
use crate::lab::{Lab, Shared, settings};
use crate::sandbox::{Sandbox, refusal_reason};
use crate::table::Row;
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

/// Where a target was asked for: the first bytes sent apart, or at once with the request.
const WAYS: [(Form, bool); 11] = [
    (Form::Connect, false),
    (Form::Connect, true),
    (Form::ConnectKept, true),
    (Form::Socks, true),
    (Form::Upgrade, false),
    (Form::Http2, false),
    (Form::Http2, true),
    (Form::Http2Template, true),
    (Form::Http3, true),
    (Form::Http3, false),
    (Form::Http3Template, true),
];
/// One of each kind, where time is what a case costs.
const SLOW: [Form; 6] = [
    Form::Connect,
    Form::Upgrade,
    Form::Http2,
    Form::Http3,
    Form::Captured,
    Form::Named,
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

    /// An upstream that nobody else uses meanwhile. Connections by name have one port for all.
    async fn tap(&self, form: Form, mode: Mode) -> Tap {
        if form == Form::Named {
            self.lab.api.afresh(mode)
        } else {
            Tap::start(mode).await
        }
    }

    async fn open(&self, host: &str, tap: &Tap, form: Form, together: &[u8]) -> Wire<Pipe> {
        let target = format!("{host}:{}", tap.port());
        if !form.is_captured() {
            return self.session.opened(self.lab, form, &target, together).await;
        }
        let mut wire = self.session.ready(self.lab, form).await;
        let preface = preface(target.as_bytes(), &self.session.credential());
        wire.send([&preface[..], together].concat()).await;
        wire.map(Pipe::Tcp)
    }

    /// `pieces` must reach the upstream as they are, where `host` was asked for and where it is what they say.
    async fn passes(&self, row: &mut Row, host: &str, pieces: &[impl AsRef<[u8]>]) {
        self.passes_asked(row, host, pieces).await;
        for form in [Form::Captured, Form::Named] {
            self.passes_by(row, host, pieces, (form, false)).await;
        }
    }

    /// The same where `host` was asked for.
    async fn passes_asked(&self, row: &mut Row, host: &str, pieces: &[impl AsRef<[u8]>]) {
        for way in WAYS {
            self.passes_by(row, host, pieces, way).await;
        }
    }

    async fn passes_by(
        &self,
        row: &mut Row,
        host: &str,
        pieces: &[impl AsRef<[u8]>],
        (form, together): (Form, bool),
    ) {
        let what = format!("{form:?} to {host}");
        let whole = whole(pieces);
        let tap = self.tap(form, Mode::Silent).await;
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

    /// `pieces` must be cut, and not one byte of them reach the upstream: where `host` was asked for, and where nobody but
    /// they can say what for they are.
    async fn cuts(
        &self,
        row: &mut Row,
        host: &str,
        pieces: &[impl AsRef<[u8]>],
        cut: Cut,
        reason: &str,
    ) {
        self.cuts_asked(row, host, pieces, cut, reason).await;
        for form in [Form::Captured, Form::Named] {
            // Another name is another target, and without one there is an address, or nothing.
            let reason = match (reason, form) {
                ("sni_mismatch", _) => "host_not_allowed",
                ("sni_missing" | "tls_required", Form::Captured) => "address_not_allowed",
                _ => reason,
            };
            let mark = self.lab.mark();
            self.cuts_by(row, host, pieces, (form, false), (cut, reason))
                .await;
            if reason != "ech_denied" {
                self.lab.nothing_since(&mark, reason);
            }
        }
    }

    /// The same where `host` was asked for.
    async fn cuts_asked(
        &self,
        row: &mut Row,
        host: &str,
        pieces: &[impl AsRef<[u8]>],
        cut: Cut,
        reason: &str,
    ) {
        for way in WAYS {
            self.cuts_by(row, host, pieces, way, (cut, reason)).await;
        }
    }

    async fn cuts_by(
        &self,
        row: &mut Row,
        host: &str,
        pieces: &[impl AsRef<[u8]>],
        (form, together): (Form, bool),
        (cut, reason): (Cut, &str),
    ) {
        let what = format!("{form:?} to {host}, {reason}");
        let whole = whole(pieces);
        let tap = self.tap(form, Mode::Silent).await;
        let before = self.lab.gateway.records().len();
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
        // Nobody else asks meanwhile, but a record may come late: of a tunnel that passed.
        let record = until(&format!("{what}: its record"), || {
            let records = self.lab.gateway.records().split_off(before);
            let refused = |one: &Record| {
                let outcome = one.text("outcome");
                outcome == "cut" || (outcome == "refused" && form.is_captured())
            };
            records.into_iter().find(refused)
        })
        .await;
        assert_eq!(record.text("reason"), reason, "{what}: {record:?}");
        let dialled = tap.visits().len();
        let refused = record.text("outcome") == "refused";
        assert!(!refused || dialled == 0, "{what}: dialled {record:?}");
        row.on(form.front());
    }
}

fn whole(pieces: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let pieces = pieces.iter().flat_map(|piece| piece.as_ref().to_vec());
    pieces.collect()
}

async fn is_cut(wire: &mut Wire<Pipe>, cut: Cut, what: &str) {
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

const REQUIRE: &str = "require.tls.test";
const AUTO: &str = "auto.tls.test";

impl Tunnels<'_> {
    /// Cut with an alert; whether the name is malformed or only another one is a matter of taste.
    async fn cuts_somehow(&self, row: &mut Row, host: &str, name: &str) {
        let asked = WAYS.map(|(form, _)| form);
        for form in asked.into_iter().chain([Form::Captured, Form::Named]) {
            let tap = self.tap(form, Mode::Silent).await;
            let hello = Hello::new(name).wire();
            let mut wire = if form.takes_early() {
                self.open(host, &tap, form, &hello).await
            } else {
                let mut wire = self.open(host, &tap, form, b"").await;
                wire.send(&hello).await;
                wire
            };
            is_cut(&mut wire, Cut::Alert, name).await;
            tap.got_nothing(name).await;
            row.on(form.front());
        }
    }
}

/// A tunnel whose upstream has asked for a second hello.
async fn retried(tunnels: &Tunnels<'_>, form: Form, host: &str, first: &[u8]) -> (Wire<Pipe>, Tap) {
    let tap = tunnels.tap(form, Mode::Answer(retry_request())).await;
    let mut wire = tunnels.open(host, &tap, form, b"").await;
    wire.send(first).await;
    assert_eq!(wire.take(retry_request().len()).await, retry_request());
    (wire, tap)
}
