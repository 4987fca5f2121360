//! Seats of one HTTP/2 connection: who opens a stream takes one, and the windows of all streams follow how many are taken and
//! how well their readers keep up.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use h2::client::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::sleep,
};

use super::adaptive::Adaptive;
use crate::flow::{Chunk, Rounds, Tally};

/// Between two rounds at least this, and at most that; within, as long as the last one took: what was told then is felt by now.
const REST: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// What a connection, its driver and its streams share.
#[derive(Debug)]
pub(super) struct Seats {
    state: Mutex<State>,
    /// What the peer was told last; nothing is told any more at 0. Changed with `state` locked.
    told: watch::Sender<u32>,
    rounds: Arc<Rounds>,
}

#[derive(Debug, Default)]
struct State {
    windows: Adaptive,
    /// Wakes who tells.
    driver: Option<Waker>,
}

/// One stream's seat. Dropped behind the stream itself, it is free again.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.state().windows.closes();
    }
}

impl Seats {
    pub(super) fn new() -> Arc<Self> {
        let state = State::default();
        Arc::new(Self {
            told: watch::Sender::new(state.windows.told()),
            state: Mutex::new(state),
            rounds: Arc::default(),
        })
    }

    /// Waits where the peer has to be told of a smaller window first: until that is on its way, and for a round trip longer where
    /// the word before is not acknowledged yet.
    pub(super) async fn take(self: &Arc<Self>) -> Seat {
        let waits = self.enter();
        let seat = Seat(self.clone());
        if let Some(most) = waits {
            self.fits(most).await;
        }
        seat
    }

    /// Completes when what the peer was told is right for who waits for this, or when the connection has ended.
    async fn fits(&self, most: u32) {
        let mut told = self.told.subscribe();
        loop {
            let ended = *told.borrow_and_update() == 0;
            // Not by the word alone: until this is polled, others may have gone and a larger one have followed.
            if ended || self.state().windows.fits(most) {
                return;
            }
            // It goes on as long as its sender is there, which is here.
            let _ = told.changed().await;
        }
    }

    /// Counts one in: what the peer has to be told of first, at most, where it knows of more.
    fn enter(&self) -> Option<u32> {
        let mut state = self.state();
        let most = state.windows.opens();
        let waits = state.windows.told() > most;
        let driver = state.driver.take_if(|_| waits);
        drop(state);
        driver.into_iter().for_each(Waker::wake);
        waits.then_some(most)
    }

    /// For a stream that sits here.
    pub(super) fn tally(&self) -> Tally {
        Tally::new(self.rounds.clone())
    }

    /// A PING goes out.
    pub(super) fn begin_round(&self) {
        self.rounds.begin();
    }

    /// It has come back after so long.
    pub(super) fn end_round(&self, took: Duration) {
        let bytes = self.rounds.most();
        let mut state = self.state();
        let grown = state.windows.round(bytes, took);
        let driver = state.driver.take_if(|_| grown);
        drop(state);
        driver.into_iter().for_each(Waker::wake);
    }

    /// Completes when the next round may tell something, after one that took so long.
    pub(super) async fn worth_a_round(&self, before: Duration) {
        sleep(before.clamp(REST.0, REST.1)).await;
        let may_grow = self.state().windows.may_grow();
        if !may_grow {
            pending::<()>().await;
        }
        self.rounds.due().await;
    }

    /// Bytes that each stream may have unread now; 0 where the connection has ended.
    pub(super) fn window(&self) -> u32 {
        *self.told.borrow()
    }

    fn driven_by(&self, waker: &Waker) {
        let mut state = self.state();
        if !state.driver.as_ref().is_some_and(|it| it.will_wake(waker)) {
            state.driver = Some(waker.clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's driver, which tells the peer of its windows: a word that is given to h2 leaves before the streams that are opened after it.
pub(super) struct Telling<T> {
    connection: Connection<T, Chunk>,
    seats: Arc<Seats>,
}

impl<T> Telling<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(connection: Connection<T, Chunk>, seats: Arc<Seats>) -> Self {
        Self { connection, seats }
    }

    /// Is there a word on its way that was not before?
    fn tell(&mut self) -> bool {
        let mut state = self.seats.state();
        let Some(window) = state.windows.to_tell() else {
            return false;
        };
        // h2 takes none before the last one is acknowledged; the acknowledgement brings us here again.
        if self.connection.set_initial_window_size(window).is_err() {
            return false;
        }
        state.windows.has_told(window);
        self.seats.told.send_replace(window);
        true
    }
}

impl<T> Future for Telling<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.seats.driven_by(cx.waker());
        loop {
            this.tell();
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
                return Poll::Ready(ended);
            }
            // What it has read may be the acknowledgement that the next word waited for.
            if !this.tell() {
                return Poll::Pending;
            }
        }
    }
}

impl<T> Drop for Telling<T> {
    fn drop(&mut self) {
        // Who waits for a seat waits no longer: the stream will find no connection.
        self.seats.told.send_replace(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::{
        future::Future,
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use super::{Seat, Seats};
    use crate::transport::windows::STREAM;

    fn at_once(seats: &Arc<Seats>) -> Seat {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(seats.take()).poll(&mut cx) {
            Poll::Ready(seat) => seat,
            Poll::Pending => panic!("the window is right for it"),
        }
    }

    /// As the driver does.
    fn tell(seats: &Seats) {
        let mut state = seats.state();
        if let Some(window) = state.windows.to_tell() {
            state.windows.has_told(window);
            seats.told.send_replace(window);
        }
    }

    /// A stream carries a whole window in a round.
    fn grow(seats: &Seats) {
        let bytes = seats.window().into();
        let round = Duration::from_millis(100);
        assert!(seats.state().windows.round(bytes, round));
        tell(seats);
    }

    /// The word that it waits for is told, and before its turn comes a larger one: it is one of few by then.
    #[test]
    fn who_waits_misses_no_word() {
        let mut cx = Context::from_waker(Waker::noop());
        let seats = Seats::new();
        let mut taken: Vec<Seat> = (0..4).map(|_| at_once(&seats)).collect();
        for _ in 0..4 {
            grow(&seats);
        }
        assert_eq!(seats.window(), 16 * STREAM);
        let mut fifth = pin!(seats.take());
        assert!(fifth.as_mut().poll(&mut cx).is_pending());
        tell(&seats);
        assert_eq!(seats.window(), 8 * STREAM);
        taken.pop();
        grow(&seats);
        assert_eq!(seats.window(), 16 * STREAM);
        assert!(fifth.as_mut().poll(&mut cx).is_ready());
    }
}
