//! The gateway's word on the credential, which may change at any time: it is asked anew when somebody hears otherwise, when
//! another token is found in the file, and every now and then.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff::Backoff,
    transport::{ConnectError, Connection, Racer, Refused},
};

/// A credential that was refused is shown again after at most this long.
const PROVE_AGAIN: Duration = Duration::from_secs(15);
/// One that was taken, and of which nobody says otherwise, after this long: a client that opens nothing says how it is too.
const STILL: Duration = Duration::from_secs(30);
/// However often somebody hears otherwise: not more often than this.
const LEAST: Duration = Duration::from_millis(500);

/// Where it is said that a stream was answered as if the gateway's word were another one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubt(Arc<Notify>);

impl Doubt {
    /// Somebody has heard otherwise.
    pub(super) fn raise(&self) {
        self.0.notify_one();
    }

    async fn raised(&self) {
        self.0.notified().await;
    }
}

/// Asks.
pub(super) struct Judge {
    doubt: Doubt,
    refused: Backoff,
    still: Backoff,
    /// When it was asked last.
    asked: Option<Instant>,
}

impl Judge {
    pub(super) fn new(doubt: Doubt) -> Self {
        Self {
            doubt,
            refused: Backoff::new(LEAST, PROVE_AGAIN),
            still: Backoff::new(STILL, STILL),
            asked: None,
        }
    }

    /// Completes when the word is another one than `known`.
    pub(super) async fn changed(
        &mut self,
        racer: &Racer,
        connection: &Connection,
        known: Option<&Refused>,
    ) -> Option<Refused> {
        let mut unsure = known.is_some();
        loop {
            let pace = if unsure {
                &mut self.refused
            } else {
                &mut self.still
            };
            tokio::select! {
                () = self.doubt.raised() => {
                    // Another one may be there, whatever the file looks like.
                    racer.token.reread();
                }
                () = racer.token.replaced() => {
                    tracing::info!("another token was found in the file");
                }
                () = sleep(pace.bound() / 2 + pace.wait() / 2) => {
                    racer.token.glance();
                }
            }
            if let Some(asked) = self.asked {
                sleep_until(asked + LEAST).await;
            }
            self.asked = Some(Instant::now());
            match racer.prove(connection).await {
                Ok(verdict) => {
                    if verdict.is_none() {
                        self.refused.reset();
                    }
                    if !same(verdict.as_ref(), known) {
                        return verdict;
                    }
                    unsure = known.is_some();
                    if let Some(refused) = verdict {
                        tracing::warn!(%refused, "the token is still refused");
                    }
                }
                Err(ConnectError::Draining(_)) => connection.leave(),
                Err(error) if known.is_some() => connection.retire(&error.to_string()),
                // A connection that is gone says so itself.
                Err(error) => {
                    unsure = true;
                    tracing::debug!(%error, "the gateway does not say whether it still takes the token");
                }
            }
        }
    }
}

/// Each refusal has a number of its own.
fn same(one: Option<&Refused>, other: Option<&Refused>) -> bool {
    one.map(ToString::to_string) == other.map(ToString::to_string)
}
