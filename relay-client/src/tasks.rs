//! Tasks that get a while to end, and are cut then.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Where what is carried runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    /// Run `work` until it ends, or is cut.
    pub fn spawn(&self, work: impl Future<Output: Send + 'static> + Send + 'static) {
        let cut = self.cut.clone();
        self.tracker.spawn(cut.run_until_cancelled_owned(work));
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

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::Tasks;

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
