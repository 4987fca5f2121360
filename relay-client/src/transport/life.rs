//! How much longer a connection is good for, known to it and to the tasks that watch it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// What is said of a connection whose gateway has said so.
const GOES_DOWN: &str = "the gateway goes down";

/// Clones share one life.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// No new streams.
    retired: CancellationToken,
    /// Nothing comes back: what has no answer yet will not get one here.
    dead: CancellationToken,
    why: Arc<Mutex<Option<String>>>,
}

impl Life {
    /// New streams belong elsewhere. The first reason counts.
    pub(super) fn retire(&self, why: impl Into<String>) {
        let mut said = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        said.get_or_insert_with(|| why.into());
        drop(said);
        self.retired.cancel();
    }

    /// The gateway goes down, by its own word.
    pub(super) fn leave(&self) {
        self.retire(GOES_DOWN);
    }

    pub(super) fn goes_down(&self) -> bool {
        self.is_retired() && self.why() == GOES_DOWN
    }

    /// It is over, or as good as.
    pub(super) fn end(&self, why: impl Into<String>) {
        self.retire(why);
        self.dead.cancel();
    }

    pub(super) async fn retired(&self) {
        self.retired.cancelled().await;
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    pub(super) async fn ended(&self) {
        self.dead.cancelled().await;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub(super) fn why(&self) -> String {
        let said = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
            .unwrap_or_else(|| "the connection ended".to_owned())
    }
}

/// Ends the life when the task that holds it goes.
pub(super) struct EndOnDrop(pub(super) Life);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end("the connection ended");
    }
}
