//! The same cells where both programs have unix sockets, which know no RST: closed with bytes unread, they reset the other side;
//! and the other side reads a reset once it has written something itself.

use std::io;
use std::rc::Rc;

use e2e::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::act::{
    Act, Seen, Side, aborted, fin, frozen, impatient, in_time, mid_frame, mid_frame_both,
    mid_transfer, rst, silent,
};
use crate::carrier::Carrier;
use crate::lab::Lab;
use crate::stream::{Socket, Stream, UNIX};
use crate::together::{Cell, together};

/// Rows, in the document's order.
pub(crate) const ROWS: &[Carrier] = &[
    Carrier::Relay("quic"),
    Carrier::Relay("h2"),
    Carrier::Relay("h1"),
    Carrier::Exposed("quic"),
    Carrier::Exposed("h2"),
    Carrier::Exposed("h1"),
];

/// What they do, as programs with such sockets do it.
pub(crate) const ACTS: &[(Act, &str)] = &[
    (Act::Fin, "`shutdown`"),
    (
        Act::HalfClose,
        "`shutdown` at once, then data the other way",
    ),
    (Act::Rst, "`close` with bytes unread"),
    (
        Act::MidTransfer,
        "`close` with bytes unread, in the middle of bulk",
    ),
    (
        Act::Unheard,
        "RST, itself on TCP; the other has never written anything",
    ),
    (
        Act::MidFrame,
        "its connection ends in the middle of a frame",
    ),
    (Act::Vanish, "vanishes"),
];

/// Those that need no gateway of their own.
const SHARED: [Act; 5] = [
    Act::Fin,
    Act::HalfClose,
    Act::Rst,
    Act::MidTransfer,
    Act::Unheard,
];

/// Both have written something, and both have read it: from there on neither takes a reset for an end.
async fn greeted(lab: &Lab) -> (Stream, Stream) {
    let greeted = within("a pair that has spoken", try_greeted(lab)).await;
    greeted.unwrap()
}

async fn try_greeted(lab: &Lab) -> io::Result<(Stream, Stream)> {
    let (mut near, mut far) = lab.try_pair(UNIX).await?;
    greet(&mut near, &mut far).await?;
    greet(&mut far, &mut near).await?;
    Ok((near, far))
}

async fn greet(from: &mut Stream, to: &mut Stream) -> io::Result<()> {
    from.write_all(b"!").await?;
    to.read_exact(&mut [0]).await.map(drop)
}

/// The cells of one gateway, at the same time.
async fn shared(carrier: Carrier) {
    let lab = Rc::new(Lab::start(carrier).await);
    let sides = [Side::Sandbox, Side::Service];
    let cells = sides.into_iter().flat_map(|side| {
        let lab = lab.clone();
        SHARED.into_iter().map(move |act| -> Cell {
            let lab = lab.clone();
            let cell = async move { cell(&lab, carrier, side, act).await };
            (format!("{side:?} {act:?}"), Box::pin(cell))
        })
    });
    together(cells, sides.len() * SHARED.len()).await;
}

async fn cell(lab: &Lab, carrier: Carrier, side: Side, act: Act) {
    if act == Act::Unheard {
        return unheard(lab, carrier, side).await;
    }
    let (mut actor, mut other) = side.first(greeted(lab).await);
    match act {
        Act::Fin => fin(actor, other, 300_000, 200_000).await,
        Act::HalfClose => fin(actor, other, 0, 3_000_000).await,
        Act::Rst => {
            leave_unread(&mut actor, &mut other).await;
            rst(actor, other).await;
        }
        Act::MidTransfer => {
            leave_unread(&mut actor, &mut other).await;
            mid_transfer(actor, other).await;
        }
        Act::MidFrame | Act::Vanish | Act::Unheard => panic!("not on a shared gateway"),
    }
}

/// With bytes of the other's that the actor does not read, its close is a reset.
async fn leave_unread(actor: &mut Stream, other: &mut Stream) {
    other.write_all(b"unread").await.unwrap();
    actor.holds_unread().await;
}

/// What cannot be said: whoever has written nothing reads a reset as an end. It is gone all the same.
async fn unheard(lab: &Lab, carrier: Carrier, side: Side) {
    let dialling = match carrier {
        Carrier::Exposed(_) => Side::Service,
        _ => Side::Sandbox,
    };
    let pair = match side {
        _ if side != dialling => lab.quiet_pair().await,
        Side::Sandbox => lab.pair_of((Socket::Tcp, Socket::Unix)).await,
        Side::Service => lab.pair_of((Socket::Unix, Socket::Tcp)).await,
    };
    let (actor, mut other) = side.first(pair);
    assert!(other.is_deaf());
    assert_eq!(aborted(actor, &mut other).await, Seen::End);
    let written = other.write_all(b"?").await.map_err(|error| error.kind());
    assert_eq!(written, Err(io::ErrorKind::BrokenPipe));
}

async fn framed(carrier: Carrier, side: Side) {
    let lab = Lab::behind_a_link(carrier).await;
    let (actor, other) = side.first(greeted(&lab).await);
    mid_frame(lab.link.as_ref().unwrap(), side, actor, other).await;
}

/// Where datagrams stop coming it is all the same whose.
async fn framed_by_datagrams(carrier: Carrier) {
    let lab = Lab::behind_a_link(carrier).await;
    let pairs = [greeted(&lab).await, greeted(&lab).await];
    mid_frame_both(lab.link.as_ref().unwrap(), pairs).await;
}

/// The sandbox's side is gone: its relay client is frozen.
async fn gone(carrier: Carrier) {
    let lab = Lab::start(carrier).await;
    let pair = greeted(&lab).await;
    frozen(&lab, pair).await;
}

/// Either side is gone, and what is asked for signs of life is not it.
async fn idle(carrier: Carrier) {
    let lab = Lab::with(carrier, impatient()).await;
    let pair = in_time(async || try_greeted(&lab).await).await;
    silent(&lab, pair).await;
}

/// Cells in which somebody is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    let mut cells: Vec<Cell> = Vec::new();
    for carrier in ROWS.iter().copied() {
        if carrier.is_quic() {
            let cell = Box::pin(framed_by_datagrams(carrier));
            cells.push((format!("{carrier:?}, no datagrams"), cell));
        }
        if carrier.is_watched() {
            cells.push((format!("{carrier:?}, frozen"), Box::pin(gone(carrier))));
        }
        cells.push((format!("{carrier:?}, idle"), Box::pin(idle(carrier))));
    }
    together(cells, 8).await;
}

macro_rules! rows {
    ($($name:ident $carrier:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            shared($carrier).await;
        })*

        #[test]
        fn every_row_has_its_test() {
            assert_eq!(ROWS, &[$($carrier),*]);
        }
    };
}

rows! {
    relay_quic Carrier::Relay("quic");
    relay_h2 Carrier::Relay("h2");
    relay_h1 Carrier::Relay("h1");
    exposed_quic Carrier::Exposed("quic");
    exposed_h2 Carrier::Exposed("h2");
    exposed_h1 Carrier::Exposed("h1");
}

/// Each takes its gateway's connections with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames() {
    let mut cells: Vec<Cell> = Vec::new();
    for carrier in ROWS.iter().copied().filter(|carrier| !carrier.is_quic()) {
        for side in [Side::Sandbox, Side::Service] {
            let name = format!("{carrier:?} {side:?}");
            cells.push((name, Box::pin(framed(carrier, side))));
        }
    }
    together(cells, 2).await;
}
