//! The matrix: which cells there are, one test each, and the document.

use std::fmt::Write;

use crate::act::{Act, Side, run};
use crate::carrier::Carrier;
use crate::together::{Cell, together};
use crate::unix;

/// Rows, in the document's order: how bytes come in.
pub(crate) const CARRIERS: &[Carrier] = &[
    Carrier::Relay("quic"),
    Carrier::Relay("h2"),
    Carrier::Relay("h1"),
    Carrier::Exposed("quic"),
    Carrier::Exposed("h2"),
    Carrier::Exposed("h1"),
    Carrier::Proxy("quic"),
    Carrier::Proxy("h2"),
    Carrier::Proxy("h1"),
    Carrier::Connect,
    Carrier::ConnectTls,
];

const ACTS: &[(Act, &str)] = &[
    (Act::Fin, "FIN"),
    (Act::HalfClose, "half-close, then data the other way"),
    (Act::Rst, "RST"),
    (Act::MidTransfer, "RST in the middle of bulk"),
    (
        Act::MidFrame,
        "its connection ends in the middle of a frame",
    ),
    (Act::Vanish, "vanishes"),
];

macro_rules! cells {
    ($($name:ident $carrier:expr;)*) => {
        $(mod $name {
            use super::{Act, Carrier, Side, run};

            const CARRIER: Carrier = $carrier;
            cells!(@side sandbox Side::Sandbox);
            cells!(@side service Side::Service);
        })*

        #[test]
        fn every_row_has_its_tests() {
            assert_eq!(CARRIERS, &[$($carrier),*]);
        }
    };
    (@side $side:ident $value:expr) => {
        mod $side {
            use super::{Act, CARRIER, Side, run};

            #[tokio::test]
            async fn fin() {
                run(CARRIER, $value, Act::Fin).await;
            }

            #[tokio::test]
            async fn half_close() {
                run(CARRIER, $value, Act::HalfClose).await;
            }

            #[tokio::test]
            async fn rst() {
                run(CARRIER, $value, Act::Rst).await;
            }

            #[tokio::test]
            async fn mid_transfer() {
                run(CARRIER, $value, Act::MidTransfer).await;
            }
        }
    };
}

cells! {
    relay_quic Carrier::Relay("quic");
    relay_h2 Carrier::Relay("h2");
    relay_h1 Carrier::Relay("h1");
    exposed_quic Carrier::Exposed("quic");
    exposed_h2 Carrier::Exposed("h2");
    exposed_h1 Carrier::Exposed("h1");
    proxy_quic Carrier::Proxy("quic");
    proxy_h2 Carrier::Proxy("h2");
    proxy_h1 Carrier::Proxy("h1");
    connect Carrier::Connect;
    connect_tls Carrier::ConnectTls;
}

const SIDES: [Side; 2] = [Side::Sandbox, Side::Service];

/// A connection that ends by datagrams that stop coming waits for them to come again.
fn waits(carrier: Carrier, act: Act) -> bool {
    act == Act::Vanish || (act == Act::MidFrame && carrier.is_quic())
}

fn cells(act: Act, wanted: impl Fn(Carrier) -> bool) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for carrier in CARRIERS.iter().copied().filter(|carrier| wanted(*carrier)) {
        for side in SIDES {
            let name = format!("{carrier:?} {side:?} {act:?}");
            cells.push((name, Box::pin(run(carrier, side, act))));
        }
    }
    cells
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mid_frame() {
    let cells = cells(Act::MidFrame, |carrier| !waits(carrier, Act::MidFrame));
    together(cells, 2).await;
}

/// Cells in which somebody is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    let mut all = cells(Act::Vanish, |_| true);
    all.extend(cells(Act::MidFrame, |carrier| {
        waits(carrier, Act::MidFrame)
    }));
    together(all, 8).await;
}

/// What [`run`] asserts of a cell, in words.
fn outcome(carrier: Carrier, side: Side, act: Act) -> &'static str {
    match act {
        Act::Fin => "every byte, then an end; the answer after it arrives whole",
        Act::HalfClose => "an end; 3 MB the other way arrive whole",
        Act::Rst => "every byte, then a cut",
        Act::MidTransfer => "a prefix, then a cut",
        Act::MidFrame if carrier == Carrier::Connect => "an end: nothing frames it",
        Act::MidFrame if carrier.is_quic() => {
            "a prefix, then a cut when the connection does not answer"
        }
        Act::MidFrame => "a prefix, then a cut, on both sides",
        Act::Vanish if carrier.is_watched() && side == Side::Sandbox => {
            "a cut when the connection does not answer"
        }
        Act::Vanish => "a cut at `idleTimeout`, on both sides",
        Act::Unheard => "every byte, then an end; what it writes then fails (EPIPE)",
    }
}

const PREAMBLE: &str = "# Close matrix\n\n\
What the other side sees when one side of a relay stream or tunnel ends. Written from `tests/tests/close_matrix/table.rs`; each\n\
cell is carried out there, with digests of what was sent and received. `BLESS=1 cargo test -p e2e --test close_matrix the_document`\n\
writes it anew.\n\n\
An *end* is FIN on TCP and close_notify on TLS. A *cut* is RST on TCP, and on TLS a connection that ends without close_notify.\n\
A cut is never reported as an end: beside these cells, 10,000 runs with random lengths, orders and faults (seeded, so that a\n\
failure can be repeated) look for one that is. In a quarter of them the way breaks as well: connections that carry streams end with FIN or RST\n\
behind any byte, with TLS and without, so that records, frames and capsules are cut anywhere; datagrams are lost, late and cut short; UDP\n\
falls silent; the relay client is frozen and then killed.\n\n\
The exception are unix sockets, which have no RST. A program there resets the other side by closing with bytes unread, as by being killed\n\
with some; closed with none, it ends. It reads a reset as ECONNRESET once it has written a byte, and a byte is all it takes: the other end\n\
closes with that byte unread. Before that nothing tells it: it reads a reset, whatever made it, as an end, and learns better only by writing.\n\
Where a program only listens to what comes, use a TCP listener or dial target. The first two tables are of TCP, the last two of unix sockets on\n\
both sides; the runs draw the one or the other for each side.\n\n\
In the middle of a frame ends what carries the stream between sandbox and gateway: half of a TCP segment arrives, and then a FIN without\n\
close_notify. QUIC has no such end; its datagrams stop coming.\n\n\
At an exposed listener it is the host that dials, so that the sandbox's program is the one that listens. A relay client that is\n\
frozen is noticed on QUIC and HTTP/2, which ask it for signs of life; on HTTP/1.1 only its kernel is asked.\n\n";

fn document() -> String {
    let mut text = PREAMBLE.to_owned();
    let tables = [
        (CARRIERS, ACTS, ""),
        (unix::ROWS, unix::ACTS, ", over unix sockets"),
    ];
    for (rows, acts, over) in tables {
        for side in SIDES {
            let (title, sees) = match side {
                Side::Sandbox => ("The sandbox's program ends", "the service sees"),
                Side::Service => ("The service ends, or the host", "the program sees"),
            };
            write!(
                text,
                "## {title}{over}\n\n| way in | it does | {sees} |\n|---|---|---|\n"
            )
            .unwrap();
            for carrier in rows {
                for (act, name) in acts {
                    let outcome = outcome(*carrier, side, *act);
                    writeln!(text, "| {} | {name} | {outcome} |", carrier.text()).unwrap();
                }
            }
            text.push('\n');
        }
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn the_document_says_what_is_tested() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/close-matrix.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, document()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document(),
        "docs/close-matrix.md is not current: run with BLESS=1"
    );
}
