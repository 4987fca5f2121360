//! Tasks that get a while to end, and are cut then.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// Where what is carried runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    /// Run `work` until it ends, or is cut.
    pub fn spawn(&self, work: impl Future<Output: Send + 'static> + Send + 'static) {
        // What is cut already does not begin.
        if !self.cut.is_cancelled() {
            let cut = self.cut.clone().cancelled_owned();
            self.tracker.spawn(UntilCut { work, cut });
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Wait for them, and after `grace` no longer: what is cut is dropped before this returns, and so said to whoever is at
    /// the other end.
    pub async fn end(&self, grace: Duration) {
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_err()
        {
            self.cut.cancel();
            self.tracker.wait().await;
        }
    }
}

pin_project! {
    /// Work until it ends or is cut. By hand: `run_until_cancelled_owned` holds what it runs three times.
    struct UntilCut<W> {
        #[pin]
        work: W,
        #[pin]
        cut: WaitForCancellationFutureOwned,
    }
}

impl<W: Future> Future for UntilCut<W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.work.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        this.cut.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio_util::sync::CancellationToken;

    use super::{Tasks, UntilCut};

    #[test]
    fn work_is_held_once() {
        let work = std::future::ready([0u8; 4096]);
        let cut = CancellationToken::new().cancelled_owned();
        let task = UntilCut { work, cut };
        assert!(size_of_val(&task) < 4096 + 256, "{}", size_of_val(&task));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_is_dropped_before_the_end() {
        let (held, kept) = (std::sync::Arc::new(()), Tasks::default());
        let within = held.clone();
        kept.spawn(async move {
            let _within = within;
            pending::<()>().await;
        });
        kept.spawn(async {});
        assert_eq!(kept.count(), 2);
        kept.end(Duration::from_secs(5)).await;
        assert_eq!((kept.count(), std::sync::Arc::strong_count(&held)), (0, 1));
    }
}
