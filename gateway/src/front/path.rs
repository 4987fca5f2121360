//! Where the client of a QUIC connection is by now: it may go on from another address while the connection is open (RFC 9000 §9).
//!
//! Of two addresses one is proved. That of the handshake is: what the client needs to end it was sent there and nowhere else, and what comes from
//! elsewhere meanwhile is dropped. The present one is the source of the newest packet, which whoever has the connection's keys may write as it
//! likes, and quinn does not say whether its path has been validated (§8.2). So records and services are told the first, and a session with
//! `sources` has to have both inside: the first says who it is, the second that it has not gone.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use sluicegate_policy::Denial;
use tokio::{sync::Notify, time::sleep};

use crate::{auth::Authenticator, session::Session};

/// How often it is looked where the client is, of which two in a row are believed: what has gone is cut within a second.
const LOOK: Duration = Duration::from_millis(450);

/// One connection's.
#[derive(Debug)]
pub(super) struct Path {
    connection: quinn::Connection,
    authenticator: Authenticator,
    /// Sessions with `sources` that have something on it.
    sessions: Mutex<Vec<Weak<Session>>>,
    /// There is one more of them.
    held: Notify,
}

impl Path {
    /// Of this connection, whose sessions this knows.
    pub(super) fn of(connection: quinn::Connection, authenticator: Authenticator) -> Self {
        Self {
            connection,
            authenticator,
            sessions: Mutex::default(),
            held: Notify::new(),
        }
    }

    fn now(&self) -> IpAddr {
        self.connection.remote_address().ip()
    }

    /// Something is asked for in this session: is the client where its credentials may be used from? From here on that is watched.
    ///
    /// # Errors
    /// `SourceNotAllowed`.
    pub(super) fn hold(&self, session: &Arc<Session>) -> Result<(), Denial> {
        if !self.authenticator.has_sources(session) {
            return Ok(());
        }
        if !self.authenticator.accepts(session, self.now()) {
            return Err(Denial::SourceNotAllowed);
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Arc::downgrade(session);
        if !sessions.iter().any(|one| one.ptr_eq(&known)) {
            sessions.retain(|one| one.strong_count() > 0);
            sessions.push(known);
            self.held.notify_one();
        }
        Ok(())
    }

    /// Completes when the client has gone where one of its sessions may not be used from.
    pub(super) async fn left(&self) {
        let mut seen = false;
        loop {
            let Some(outside) = self.outside() else {
                // Nothing to look for: no timer either.
                self.held.notified().await;
                continue;
            };
            if outside && seen {
                return;
            }
            seen = outside;
            sleep(LOOK).await;
        }
    }

    /// `None`: no session of its has sources.
    fn outside(&self) -> Option<bool> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut living = sessions.iter().filter_map(Weak::upgrade).peekable();
        living.peek()?;
        let now = self.now();
        Some(living.any(|session| !self.authenticator.accepts(&session, now)))
    }
}
