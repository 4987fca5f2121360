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

/// A dial that was handed to an accept stream and not taken by then is handed to another one too …
const HANDED: Duration = Duration::from_millis(500);
/// … or, where the listener's clients are far away, by so many times what they took of late …
const TIMES: u32 = 3;
/// … up to this: one that is gone must not cost the dial all the time there is.
const HANDED_MOST: Duration = Duration::from_millis(2500);
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
/// for offers: one that came in time and has been handed the dial may answer a little later, and is not the last to be handed it. Nor is
/// an offer waited for when the gateway goes down.
pub(super) async fn called(
    board: &Board,
    patience: Duration,
    drain: &mut DrainWatch,
) -> Result<Delivery, Uncalled> {
    let begun = Instant::now();
    let (mut give_up, mut next) = (begun + patience.max(LEAST), begun);
    let last = give_up + TAKEN;
    let handed_for = (board.takes() * TIMES).clamp(HANDED, HANDED_MOST);
    let mut handed: Option<Handed> = None;
    let (mut why, mut refusing) = (Uncalled::Nobody, false);
    // However little patience there is, what is there is looked at.
    let mut now = begun;
    loop {
        let patient = now < give_up;
        if now >= last || (!patient && handed.is_none()) {
            return Err(why);
        }
        // Beyond its patience a dial waits for those that were handed it, and one of them may be gone.
        let hands = !refusing;
        tokio::select! {
            biased;
            delivery = delivered(&mut handed) => match delivery {
                Some(delivery) => return Ok(delivery),
                None => (handed, next) = (None, now),
            },
            () = drain.reached(Stage::Refusing), if !refusing => {
                if patient {
                    (give_up, why) = (now, Uncalled::Draining);
                }
                refusing = true;
            }
            accept = board.take(), if hands && now >= next => match accept {
                Some(accept) => {
                    if accept.send(call(&mut handed)).is_ok() {
                        (why, next) = (Uncalled::NotTaken, Instant::now() + handed_for);
                    }
                }
                None if handed.is_none() => return Err(Uncalled::Crowd),
                None => next = Instant::now() + handed_for,
            },
            () = sleep_until(next), if hands && now < next => {}
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Board, HANDED, HANDED_MOST, Uncalled, called};
    use crate::drain::Drain;

    /// When the first is handed a dial and when the second is, where neither takes it. The listener is patient for a second.
    async fn handed(board: &Board) -> [Duration; 2] {
        let (drain, begun) = (Drain::default(), Instant::now());
        let mut watch = drain.watch();
        let (second, first) = (board.offer().unwrap(), board.offer().unwrap());
        let calls = async {
            let first = (first.await.unwrap(), begun.elapsed());
            let second = (second.await.unwrap(), begun.elapsed());
            [first.1, second.1]
        };
        let patience = Duration::from_secs(1);
        let (ended, handed) = tokio::join!(called(board, patience, &mut watch), calls);
        assert!(matches!(ended, Err(Uncalled::NotTaken)));
        handed
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_far_away_is_waited_for_longer() {
        let board = Board::default();
        let millis = Duration::from_millis;
        for (took, waited) in [
            (None, HANDED),
            // At hand.
            (Some(millis(3)), HANDED),
            // On the other side of the world; longer than the listener is patient, too.
            (Some(millis(300)), millis(900)),
            (Some(millis(600)), millis(1800)),
            // It took its time.
            (Some(millis(4000)), HANDED_MOST),
        ] {
            if let Some(took) = took {
                board.taken_in(took);
            }
            let [first, second] = handed(&board).await;
            assert_eq!(first, Duration::ZERO);
            let late = second.saturating_sub(waited);
            assert!(
                second >= waited && late <= millis(10),
                "{took:?}: {second:?}"
            );
        }
    }

    /// One that was slow once is not waited for for ever.
    #[tokio::test(start_paused = true)]
    async fn what_was_slow_is_forgotten() {
        let board = Board::default();
        board.taken_in(Duration::from_secs(4));
        for _ in 0..30 {
            board.taken_in(Duration::from_millis(1));
        }
        let [_, second] = handed(&board).await;
        assert!(second < HANDED + Duration::from_millis(10), "{second:?}");
    }

    /// Nor is a dial handed on by a gateway that goes down.
    #[tokio::test(start_paused = true)]
    async fn who_goes_down_hands_nothing_on() {
        let (board, drain) = (Board::default(), Drain::default());
        let mut watch = drain.watch();
        let (mut second, first) = (board.offer().unwrap(), board.offer().unwrap());
        let calls = async {
            let _first = first.await.unwrap();
            let down = drain.run(Duration::from_secs(5), Duration::from_secs(5));
            tokio::join!(down, tokio::time::sleep(Duration::from_secs(4))).0
        };
        let patience = Duration::from_secs(1);
        let (ended, _) = tokio::join!(called(&board, patience, &mut watch), calls);
        assert!(matches!(ended, Err(Uncalled::Draining)));
        assert!(second.try_recv().is_err());
    }
}
