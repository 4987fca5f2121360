//! Whoever drives a connection goes last: what all the streams that are awake have to say leaves in one piece.
//!
//! A stream that writes wakes its connection's driver. Run at once, the driver would make a record, a packet and a system
//! call of every single write; run behind all that is awake already, it makes one of them all.

mod together;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

use together::{Socket, Together};

/// Has a driver that was woken stood aside already?
#[derive(Clone, Copy, Default, Debug)]
pub struct Aside(bool);

impl Aside {
    /// Poll `drive`, but not before everything else that is awake has had its turn.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        drive: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0 = !self.0;
        if self.0 {
            // Woken while it runs, a task goes to the end of the queue.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        drive(cx)
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
            aside: Aside::default(),
            together: Together::default(),
        }
    }
}

impl<F: Future + Unpin> Future for Last<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let driver = Pin::new(&mut this.driver);
        let together = &mut this.together;
        this.aside.poll(cx, |cx| together.run(|| driver.poll(cx)))
    }
}

/// tokio, with the drivers of quinn's connections last, and small buffers for those that have little to say.
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
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Socket::new(socket)))
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
    };

    use tokio::{sync::Notify, task::JoinSet};

    use super::Last;

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
            drivers.spawn(Last::new(driver));
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
