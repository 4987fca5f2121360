//! The table of `docs/conformance.md`: what is claimed of each row, and by which test.

mod rows;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

pub(crate) use rows::ROWS;

/// A column: how the input arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Front {
    /// The first request of a connection.
    Connect,
    /// CONNECT behind another request on the same connection.
    ConnectKept,
    /// Absolute-form.
    Absolute,
    /// As an answer of the DNS server.
    Answer,
    /// In a configuration or a grant.
    Configuration,
    /// HTTP/2.
    Http2,
    /// HTTP/3.
    Http3,
    /// The template of `connect-tcp`.
    ConnectTcp,
    /// SOCKS5.
    Socks,
    /// A captured connection.
    Transparent,
    /// A connection by name.
    Sni,
    /// What the name server of `run` asks the gateway.
    Names,
}

/// What stands behind a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A test here.
    Held,
    /// A test of another place, which the note names.
    Elsewhere,
    /// The part it speaks of does not exist.
    NotBuilt,
    /// It cannot be kept on the wire.
    Residual,
}

/// One row.
pub(crate) struct Entry {
    number: u16,
    says: &'static str,
    standing: Standing,
    test: Option<(&'static str, fn())>,
    fronts: &'static [Front],
    note: &'static str,
}

/// A row under test. Dropped at its end, it has gone through the fronts its entry claims, no more and no fewer.
pub(crate) struct Row {
    number: u16,
    fronts: BTreeSet<Front>,
}

impl Row {
    /// Row `number` begins.
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            fronts: BTreeSet::new(),
        }
    }

    /// The row held on this front.
    pub(crate) fn on(&mut self, front: Front) {
        self.fronts.insert(front);
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let entry = ROWS.iter().find(|entry| entry.number == self.number);
        let claimed: BTreeSet<Front> = entry.unwrap().fronts.iter().copied().collect();
        assert_eq!(
            self.fronts, claimed,
            "row {}: went through, claims",
            self.number
        );
    }
}

impl Front {
    fn text(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnectKept => "CONNECT on a kept connection",
            Self::Absolute => "absolute-form",
            Self::Answer => "DNS answer",
            Self::Configuration => "configuration",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
            Self::ConnectTcp => "connect-tcp",
            Self::Socks => "SOCKS5",
            Self::Transparent => "transparent",
            Self::Sni => "SNI",
            Self::Names => "names",
        }
    }
}

impl Entry {
    fn line(&self) -> String {
        let fronts: Vec<&str> = self.fronts.iter().map(|front| front.text()).collect();
        let result = match (self.standing, &self.test) {
            (Standing::Held, Some((name, _))) => format!("held: `{name}`"),
            (Standing::Held, None) => String::new(),
            (Standing::Elsewhere, _) => "held elsewhere".to_owned(),
            (Standing::NotBuilt, _) => "not built yet".to_owned(),
            (Standing::Residual, _) => "**residual risk**".to_owned(),
        };
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!("; {}", self.note)
        };
        format!(
            "| {} | {} | {} | {result}{note} |\n",
            self.number,
            self.says,
            fronts.join(", ")
        )
    }
}

const PREAMBLE: &str = "# Conformance\n\n\
What the gateway does, input by input. Written from `tests/tests/conformance/table/rows.rs`; the tests fail when it is not\n\
current. `BLESS=1 cargo test -p e2e --test conformance the_document` writes it anew.\n\n\
A row is *held* when its test passes on every front named, with the DNS server's query log and the upstream's byte log as\n\
witnesses: what is denied causes no query and no byte upstream, what is cut leaves nothing upstream. *HTTP/2* and *HTTP/3*\n\
are CONNECT and forwarded requests, *connect-tcp* its template as an upgrade of HTTP/1.1 and as an extended CONNECT of the\n\
others, *transparent* and *SNI* TLS by its name and HTTP by its Host; a client of HTTP/2 says only what its library takes.\n\
*names* is what the name server of `run` asks the gateway of a host alone: there is such a name, or there is none.\n\
Fronts that are not named cannot express the row, or share the pipeline with one that is named. *Held elsewhere*: a test\n\
of another place, which is named. *Residual risk*: it cannot be kept on the wire, and why.\n\n\
| row | input | fronts | result |\n|---|---|---|---|\n";

#[test]
fn every_row_stands_once_and_in_order() {
    for (entry, number) in ROWS.iter().zip(1..) {
        assert_eq!(entry.number, number);
        let Some((name, _)) = entry.test else {
            assert!(!entry.note.is_empty(), "row {number} gives no reason");
            continue;
        };
        assert!(name.contains(&format!("::v{number:03}_")), "{name}");
        assert!(!entry.fronts.is_empty(), "{name}");
    }
}

/// What stands in backquotes in a note.
fn quoted(note: &str) -> impl Iterator<Item = &str> {
    note.split('`').skip(1).step_by(2)
}

#[test]
fn what_a_row_points_at_is_there() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for entry in ROWS {
        let elsewhere = entry.standing == Standing::Elsewhere;
        let (mut source, mut functions) = (String::new(), 0);
        for part in quoted(entry.note) {
            if part.ends_with(".rs") || part.ends_with(".md") {
                let read = std::fs::read_to_string(root.join(part));
                source =
                    read.unwrap_or_else(|error| panic!("row {}: {part}: {error}", entry.number));
            } else if elsewhere && part.contains('_') {
                // Of several with one beginning, that.
                let function = match part.strip_suffix('…') {
                    Some(start) => format!("fn {start}"),
                    None => format!("fn {part}("),
                };
                let held = source.contains(&function);
                assert!(held, "row {}: no {function}", entry.number);
                functions += 1;
            }
        }
        assert!(!elsewhere || functions > 0, "row {}: no test", entry.number);
    }
}

#[test]
fn the_document_is_current() {
    let mut document = PREAMBLE.to_owned();
    for entry in ROWS {
        write!(document, "{}", entry.line()).unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document,
        "docs/conformance.md is not current: run with BLESS=1"
    );
}
