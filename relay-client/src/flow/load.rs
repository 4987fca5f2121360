//! How much a connection has carried lately, on all its streams: what says whether the next one is better off on another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Broken, Flow};

/// Bytes of one stream that are told at once: what carries little asks for no clock and touches nothing that others touch.
const TOLD: usize = 64 * 1024;
/// What was carried in this span counts, and in the one before.
const SPAN: Duration = Duration::from_secs(1);

/// Of one connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<Mutex<Level>>);

#[derive(Debug, Default)]
struct Level {
    /// When the present span began; `None` before the first.
    began: Option<Instant>,
    /// Bytes of the present span, and of the one before it.
    bytes: [u64; 2],
}

impl Level {
    /// Bytes of the last one or two spans.
    fn at(&mut self, now: Instant) -> u64 {
        let began = *self.began.get_or_insert(now);
        let age = now.saturating_duration_since(began);
        let [present, _] = self.bytes;
        if age >= 2 * SPAN {
            (self.began, self.bytes) = (Some(now), [0; 2]);
        } else if age >= SPAN {
            (self.began, self.bytes) = (Some(began + SPAN), [0, present]);
        }
        let [present, before] = self.bytes;
        present.saturating_add(before)
    }

    fn add(&mut self, bytes: usize, now: Instant) {
        self.at(now);
        let [present, _] = &mut self.bytes;
        *present = present.saturating_add(bytes as u64);
    }
}

impl Load {
    /// Bytes that were carried in the last one to two seconds, both ways.
    pub fn at(&self, now: Instant) -> u64 {
        self.level().at(now)
    }

    fn level(&self) -> std::sync::MutexGuard<'_, Level> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A flow whose bytes, both ways, are part of a load.
#[derive(Debug)]
pub struct Counted<F: Flow> {
    flow: F,
    load: Load,
    /// Bytes that have not been told yet.
    untold: usize,
}

impl<F: Flow> Counted<F> {
    /// `flow`, as part of `load`.
    pub fn new(flow: F, load: Load) -> Self {
        let untold = 0;
        Self { flow, load, untold }
    }

    fn moved(&mut self, bytes: usize) {
        self.untold = self.untold.saturating_add(bytes);
        if self.untold >= TOLD {
            let bytes = std::mem::take(&mut self.untold);
            self.load.level().add(bytes, Instant::now());
        }
    }
}

impl<F: Flow> Flow for Counted<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let read = self.flow.poll_read(cx);
        if let Poll::Ready(Ok(Some(chunk))) = &read {
            self.moved(chunk.len());
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        let before = chunk.len();
        let written = self.flow.poll_write(cx, chunk);
        self.moved(before.saturating_sub(chunk.len()));
        written
    }

    crate::forward_flow!(flow);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::poll_fn;

    use bytes::Bytes;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::{Counted, Flow, Level, Load, SPAN, TOLD};
    use crate::flow::{SocketFlow, testing::tcp_pair};

    #[test]
    fn what_was_carried_counts_for_a_second_or_two() {
        let began = Instant::now();
        let mut level = Level::default();
        level.add(7, began);
        level.add(5, began + SPAN / 2);
        assert_eq!(level.at(began + SPAN / 2), 12);
        level.add(3, began + SPAN * 3 / 2);
        assert_eq!(level.at(began + SPAN * 3 / 2), 15, "the span before");
        assert_eq!(level.at(began + SPAN * 2), 3);
        assert_eq!(level.at(began + SPAN * 3), 0);
        level.add(9, began + SPAN * 3);
        assert_eq!(level.at(began + SPAN * 60), 0, "long after");
        assert_eq!(level.at(began), 0, "a clock that was read before");
    }

    #[tokio::test]
    async fn both_ways_count_and_little_does_not() {
        let (near, mut far) = tcp_pair().await;
        let load = Load::default();
        let mut flow = Counted::new(SocketFlow::new(near), load.clone());
        let mut chunk = Bytes::from(vec![7; TOLD - 1]);
        let mut heard = vec![0; chunk.len()];
        let writing = async {
            while !chunk.is_empty() {
                let written = poll_fn(|cx| flow.poll_write(cx, &mut chunk));
                written.await.unwrap();
            }
        };
        let ((), read) = tokio::join!(writing, far.read_exact(&mut heard));
        read.unwrap();
        assert_eq!((flow.untold, load.level().began), (TOLD - 1, None));
        far.write_all(b"x").await.unwrap();
        let read = poll_fn(|cx| flow.poll_read(cx)).await.unwrap();
        assert_eq!(read.as_deref(), Some(&b"x"[..]));
        assert_eq!(flow.untold, 0);
        assert!(load.level().began.is_some(), "it was told");
    }
}
