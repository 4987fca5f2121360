//! One dial, handed to accept streams until one of them delivers.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    board::{Board, Call, Delivery},
    offer::TAKEN,
};
use crate::drain::{DrainWatch, Stage};

/// A dial that was handed to an accept stream and not taken by then is handed to another one too.
const HANDED: Duration = Duration::from_millis(500);
/// Patience for an offer that is there already.
const LEAST: Duration = Duration::from_millis(1);

/// Why a dial has no accept stream.
pub(super) enum Uncalled {
    /// Too many dials wait already.
    Crowd,
    /// There was none.
    Nobody,
    /// There was, and its client gone.
    NotTaken,
    /// The gateway goes down, and offers are taken no more.
    Draining,
}

/// Those that were handed a dial: `None` is received when all of them have let go of it.
type Handed = (mpsc::WeakSender<Delivery>, mpsc::Receiver<Delivery>);

/// Hand the dial to accept streams until one of them delivers: a client may die between its offer and its answer, or be gone without
/// a word. Whichever delivers first has the dial, and nothing of the caller's has been read before; the others are reset. Patience is
/// for offers: one that came in time and has been handed the dial may answer a little later. Nor is an offer waited for when the gateway
/// goes down.
pub(super) async fn called(
    board: &Board,
    patience: Duration,
    drain: &mut DrainWatch,
) -> Result<Delivery, Uncalled> {
    let begun = Instant::now();
    let (mut give_up, mut next) = (begun + patience.max(LEAST), begun);
    let last = give_up + TAKEN;
    let mut handed: Option<Handed> = None;
    let mut why = Uncalled::Nobody;
    // However little patience there is, what is there is looked at.
    let mut now = begun;
    loop {
        let patient = now < give_up;
        if now >= last || (!patient && handed.is_none()) {
            return Err(why);
        }
        tokio::select! {
            biased;
            delivery = delivered(&mut handed) => match delivery {
                Some(delivery) => return Ok(delivery),
                None => (handed, next) = (None, now),
            },
            () = drain.reached(Stage::Refusing), if patient => {
                (give_up, why) = (now, Uncalled::Draining);
            }
            accept = board.take(), if patient && now >= next => match accept {
                Some(accept) => {
                    if accept.send(call(&mut handed)).is_ok() {
                        (why, next) = (Uncalled::NotTaken, Instant::now() + HANDED);
                    }
                }
                None if handed.is_none() => return Err(Uncalled::Crowd),
                None => next = Instant::now() + HANDED,
            },
            () = sleep_until(next), if patient && now < next => {}
            () = sleep_until(if patient { give_up } else { last }) => {}
        }
        now = Instant::now();
    }
}

async fn delivered(handed: &mut Option<Handed>) -> Option<Delivery> {
    match handed {
        Some((_, delivered)) => delivered.recv().await,
        None => std::future::pending().await,
    }
}

/// One more call of the same dial's.
fn call(handed: &mut Option<Handed>) -> Call {
    let another = handed.as_ref().and_then(|(calls, _)| calls.upgrade());
    another.unwrap_or_else(|| {
        let (call, delivered) = mpsc::channel(1);
        *handed = Some((call.downgrade(), delivered));
        call
    })
}
