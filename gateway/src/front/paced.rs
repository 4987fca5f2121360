//! A part of a body that goes on within a bandwidth: in pieces, each in its turn.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;
use sluicegate_relay::flow::Pacing;

use crate::{
    message::headers::fields_bytes,
    session::{Budget, Way},
    telemetry::{Counters, Wait},
};

/// What was read of a body and waits. Nothing, where there is no bandwidth.
#[derive(Debug, Default)]
pub(super) struct Paced(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    frame: Frame<Bytes>,
    /// Bytes of it that are not paid for.
    left: usize,
    /// Its turn is waited for, and whoever looks for silence knows.
    turn: Option<(Pacing, Wait)>,
}

impl Paced {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A part that was read, and is to go on: at once if it is handed back, and from [`Paced::poll`] otherwise.
    pub(super) fn hold(&mut self, frame: Frame<Bytes>, budget: &Budget) -> Option<Frame<Bytes>> {
        let left = frame_bytes(&frame);
        if left == 0 || budget.piece().is_none() {
            return Some(frame);
        }
        self.0 = Some(Box::new(Waiting {
            frame,
            left,
            turn: None,
        }));
        None
    }

    /// The next of what waits; `None` where nothing does.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (budget, way): (&Arc<Budget>, Way),
        counters: &Arc<Counters>,
    ) -> Poll<Option<Frame<Bytes>>> {
        while let Some(waiting) = &mut self.0 {
            if waiting.turn.is_none() {
                let pacing = budget.pace(way, waiting.left);
                waiting.turn = pacing.map(|pacing| (pacing, counters.wait()));
            }
            let may = match &mut waiting.turn {
                Some((pacing, _)) => ready!(Pin::new(pacing).poll(cx)),
                None => waiting.left,
            };
            waiting.turn = None;
            waiting.left = waiting.left.saturating_sub(may);
            if waiting.left == 0 {
                break;
            }
            // Trailers go as one.
            if let Some(data) = waiting.frame.data_mut() {
                let piece = data.split_to(may.min(data.len()));
                return Poll::Ready(Some(Frame::data(piece)));
            }
        }
        Poll::Ready(self.0.take().map(|waiting| waiting.frame))
    }
}

/// What a part of a body counts.
pub(super) fn frame_bytes(frame: &Frame<Bytes>) -> usize {
    let data = frame.data_ref().map(Bytes::len);
    let trailers = || frame.trailers_ref().map(fields_bytes);
    data.or_else(trailers).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, time::Duration};

    use http::HeaderMap;
    use sluicegate_policy::Limits;
    use tokio::time::timeout;

    use super::*;

    fn budget(bandwidth: Option<u64>) -> Arc<Budget> {
        let limits = Limits {
            bandwidth,
            ..Limits::default()
        };
        Arc::new(Budget::new(limits, None))
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_goes_in_pieces_and_all_of_it() {
        let budget = budget(Some(100));
        let mut paced = Paced::default();
        let data = Bytes::from((0..250).collect::<Vec<u8>>());
        assert!(paced.hold(Frame::data(data.clone()), &budget).is_none());
        let (mut got, mut pieces) = (Vec::new(), 0);
        let counters = Arc::new(Counters::default());
        let down = (&budget, Way::Down);
        while let Some(frame) = poll_fn(|cx| paced.poll(cx, down, &counters)).await {
            assert!(!counters.waits(), "it goes on");
            got.extend_from_slice(&frame.into_data().unwrap());
            pieces += 1;
        }
        assert_eq!((got.as_slice(), pieces), (&data[..], 3));
        let mut fields = HeaderMap::new();
        fields.insert("x-long", "y".repeat(300).parse().unwrap());
        assert!(paced.hold(Frame::trailers(fields), &budget).is_none());
        let last = poll_fn(|cx| paced.poll(cx, down, &counters)).await;
        assert!(last.unwrap().is_trailers());
        assert!(paced.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_looks_for_silence_knows_of_the_wait() {
        let budget = budget(Some(100));
        let counters = Arc::new(Counters::default());
        let mut paced = Paced::default();
        let part = Frame::data(Bytes::from_static(&[1; 150]));
        assert!(paced.hold(part, &budget).is_none());
        let down = (&budget, Way::Down);
        assert!(
            poll_fn(|cx| paced.poll(cx, down, &counters))
                .await
                .is_some()
        );
        let (before, wait) = (counters.motion(), Duration::from_millis(10));
        // The first piece is to be paid for.
        let next = timeout(wait, poll_fn(|cx| paced.poll(cx, down, &counters)));
        assert!(next.await.is_err());
        assert!(counters.waits());
        drop(paced);
        assert!(!counters.waits());
        assert_ne!(counters.motion(), before, "silence counts from its end");
    }

    #[test]
    fn without_a_bandwidth_nothing_waits() {
        let mut paced = Paced::default();
        let part = Frame::data(Bytes::from_static(b"all"));
        assert!(paced.hold(part, &budget(None)).is_some());
        assert!(paced.is_empty());
    }
}
