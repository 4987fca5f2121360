//! Requests that wait for something: a gateway that goes down answers them before it is gone.

use std::time::Duration;

use axum::response::Response;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{State, seats::until_told};
use crate::drain::Stage;

/// A request that may wait. The drain waits for its answer.
pub(super) struct Waiting(Option<TaskTrackerToken>);

impl Waiting {
    /// For so long at most; zero = it does not wait, and nothing waits for it.
    pub(super) fn begin(state: &State, longest: Duration) -> Self {
        Self((!longest.is_zero()).then(|| state.tasks.hold()))
    }

    /// What it waits for; `None` where the gateway goes down meanwhile.
    pub(super) async fn or_drain<T>(state: &State, what: impl Future<Output = T>) -> Option<T> {
        let mut drain = state.tasks.clone();
        tokio::select! {
            biased;
            done = what => Some(done),
            () = drain.reached(Stage::Draining) => None,
        }
    }

    /// The answer, which is waited for until it has been told.
    pub(super) fn answer(self, response: Response) -> Response {
        match self.0 {
            Some(held) => response.map(|body| until_told(body, held)),
            None => response,
        }
    }
}
