//! Whoever drives a connection goes last: what all the streams that are awake have to say leaves in one piece.
//!
//! A stream that writes wakes its connection's driver. Run at once, the driver would make a record, a packet and a system
//! call of every single write; run behind all that is awake already, it makes one of them all. Where nobody else is awake it runs at once.

mod datagrams;
mod gathered;
mod together;

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::{Handle, RuntimeFlavor};

pub use gathered::Gathered;

use datagrams::Datagrams;
use together::{Socket, Together};

/// A driver that is polled again so soon after it ran has company: others are awake that write, or the stream that it has just given.
const SOON: Duration = Duration::from_micros(10);
/// Turns for which company, once seen, is reckoned with.
const COMPANY: u8 = 8;

/// A turn that moves so much is one of a flow, of which more is about to come: a full record (RFC 8446 §5.1).
const FLOW: usize = 16 * 1024;

thread_local! {
    /// Bytes that the driver which runs on this thread has moved in this turn.
    static MOVED: Cell<usize> = const { Cell::new(0) };
}

/// So many bytes came or left, for whichever connection's driver runs on this thread now.
pub(super) fn moved(bytes: usize) {
    MOVED.set(MOVED.get().saturating_add(bytes));
}

/// Whether a driver that is woken stands aside for what else is awake.
///
/// Where there are several threads, only in company or in a flow: to stand aside is to be queued anew, for which an idle thread is woken. Where one
/// stream speaks, and waits for an answer, there is nothing to gather, and each word would wait for that thread. One thread alone wakes nobody.
#[derive(Clone, Copy, Default, Debug)]
pub struct Aside {
    /// It costs nothing: the runtime has one thread.
    always: bool,
    /// It has stood aside already.
    stood: bool,
    /// When it last ran.
    ran: Option<Instant>,
    /// Turns for which it has company yet.
    company: u8,
}

impl Aside {
    /// Of a driver that the runtime of now is about to run.
    #[must_use]
    pub fn new() -> Self {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        Self {
            always: matches!(flavor, Ok(RuntimeFlavor::CurrentThread)),
            ..Self::default()
        }
    }

    /// Poll `drive`, but in company not before everything else that is awake has had its turn. Once more where what it [gathered](Gathered) would
    /// wait.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        drive: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.stands(Instant::now()) {
            // Woken while it runs, a task goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let others = MOVED.replace(0);
        let driven = gathered::turn(cx, drive);
        self.ended(MOVED.replace(others), Instant::now());
        driven
    }

    /// A turn is over, in which it moved so much.
    fn ended(&mut self, moved: usize, now: Instant) {
        self.ran = Some(now);
        if moved >= FLOW {
            self.company = COMPANY;
        }
    }

    /// It is woken now: does it stand aside?
    fn stands(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.stood) {
            return false;
        }
        let soon = self
            .ran
            .is_some_and(|ran| now.saturating_duration_since(ran) < SOON);
        self.company = if soon {
            COMPANY
        } else {
            self.company.saturating_sub(1)
        };
        self.stood = self.always || self.company > 0;
        self.stood
    }
}

/// A driver that goes last.
#[derive(Debug)]
pub struct Last<F> {
    driver: F,
    aside: Aside,
    together: Together,
}

impl<F> Last<F> {
    /// This driver.
    pub fn new(driver: F) -> Self {
        Self {
            driver,
            aside: Aside::new(),
            together: Together::default(),
        }
    }
}

impl<F: Future + Unpin> Future for Last<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let (driver, together) = (&mut this.driver, &mut this.together);
        this.aside
            .poll(cx, |cx| together.run(|| Pin::new(&mut *driver).poll(cx)))
    }
}

/// tokio, with the drivers of quinn's connections last, small buffers for those that have little to say, and no reads in vain.
#[derive(Debug)]
pub struct DriversLast;

impl Runtime for DriversLast {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Last::new(driver)));
    }

    fn wrap_udp_socket(
        &self,
        socket: std::net::UdpSocket,
    ) -> std::io::Result<Arc<dyn AsyncUdpSocket>> {
        let socket = Datagrams::new(socket)?;
        Ok(Arc::new(Socket::new(Arc::new(socket))))
    }

    fn now(&self) -> std::time::Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        future::{Future, poll_fn},
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Poll,
        time::{Duration, Instant},
    };

    use tokio::{sync::Notify, task::JoinSet};

    use super::{Aside, COMPANY, FLOW, Last, SOON, moved};

    /// Woken so long after it ran: does it stand aside?
    fn woken(aside: &mut Aside, after: Duration) -> bool {
        let ran = Instant::now();
        aside.ran = Some(ran);
        let stands = aside.stands(ran + after);
        if stands {
            assert!(!aside.stands(ran + after), "twice in one turn");
        }
        stands
    }

    #[test]
    fn who_speaks_alone_is_not_kept_waiting() {
        let mut aside = Aside::default();
        assert!(!aside.stands(Instant::now()), "it never ran");
        for _ in 0..100 {
            assert!(!woken(&mut aside, SOON), "nobody else is awake");
        }
    }

    #[test]
    fn company_is_waited_for_and_forgotten() {
        let mut aside = Aside::default();
        assert!(woken(&mut aside, SOON / 2));
        for turn in 1..COMPANY {
            assert!(woken(&mut aside, SOON), "turn {turn}");
        }
        assert!(!woken(&mut aside, SOON));
        assert!(woken(&mut aside, SOON / 2), "company anew");
    }

    #[test]
    fn in_a_flow_it_waits_for_more() {
        let mut aside = Aside::default();
        aside.ended(FLOW - 1, Instant::now());
        assert!(!woken(&mut aside, SOON), "a few words");
        aside.ended(FLOW, Instant::now());
        assert!(woken(&mut aside, SOON));
    }

    #[tokio::test]
    async fn on_one_thread_it_always_stands_aside() {
        let mut aside = Aside::new();
        for _ in 0..100 {
            assert!(woken(&mut aside, SOON));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_a_turn_moves_is_its_own() {
        let turn = |bytes| {
            moved(bytes);
            Poll::Ready(())
        };
        let mut aside = Aside::new();
        moved(FLOW);
        poll_fn(|cx| aside.poll(cx, |_| turn(1))).await;
        assert_eq!(aside.company, 0, "others moved the rest");
        poll_fn(|cx| aside.poll(cx, |_| turn(FLOW))).await;
        assert_eq!(aside.company, COMPANY);
    }

    /// How many writes each run of a driver finds, with five tasks awake at once that write and wake it.
    async fn batches(last: bool) -> Vec<usize> {
        let written = Arc::new(AtomicUsize::new(0));
        let (wake, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut writers = JoinSet::new();
        for _ in 0..5 {
            let (written, wake) = (written.clone(), wake.clone());
            let going = go.clone().notified_owned();
            writers.spawn(async move {
                going.await;
                written.fetch_add(1, Ordering::Relaxed);
                wake.notify_one();
            });
        }
        let mut woken = Box::pin(wake.clone().notified_owned());
        let (found, kept) = (Arc::new(std::sync::Mutex::new(Vec::new())), written.clone());
        let (told, total) = (found.clone(), Arc::new(AtomicUsize::new(0)));
        let driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(poll_fn(move |cx| {
            while woken.as_mut().poll(cx).is_ready() {
                woken.set(wake.clone().notified_owned());
            }
            let count = kept.swap(0, Ordering::Relaxed);
            if count > 0 {
                told.lock().unwrap().push(count);
            }
            match total.fetch_add(count, Ordering::Relaxed) + count {
                5 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        let mut drivers = JoinSet::new();
        if last {
            let mut last = Last::new(driver);
            last.aside.company = COMPANY;
            drivers.spawn(last);
        } else {
            drivers.spawn(driver);
        }
        // From a task of the same thread, once all the others wait.
        let trigger = async move {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            go.notify_waiters();
        };
        writers.spawn(trigger);
        while writers.join_next().await.is_some() {}
        drivers.join_next().await;
        found.lock().unwrap().clone()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_awake_is_one_batch() {
        assert_eq!(batches(true).await, [5]);
        assert!(batches(false).await.len() > 1, "or nothing was proved");
    }
}
