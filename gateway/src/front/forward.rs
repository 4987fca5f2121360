//! Requests in absolute-form (RFC 9112 §3.2.2), and plain HTTP found inside a CONNECT tunnel: one connection of them, and what it
//! becomes.
//!
//! Each request is judged by itself: its credential, its target, its Host (`answer`). What goes up is written anew from the
//! target. `scope` says where they go, `own` is what the gateway serves itself.

mod answer;
mod own;
mod scope;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task,
};

use bytes::BytesMut;
use hyper::{service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use sluicegate_certs::Channel;

use super::{
    connect, connect_tcp, context::Current, exchange::Upgraded, guard::SharedGuard, upgrade,
};
use crate::{
    drain::Stage,
    egress::{Guarded, Tunnel, linger_close},
    listen::{Downstream, Hangup},
    lost::Lost,
    message::{Judged, Verdict},
};

pub(super) use self::{answer::WholeServer, scope::Scope};
pub(super) use super::send::adopt;

/// The connection as hyper sees it.
type Io = TokioIo<Judged>;

/// What a connection becomes after its last answer.
enum After {
    Upgraded(OnUpgrade, Box<Upgraded>),
    Connected(OnUpgrade, connect::Opened),
    /// Capsules follow.
    Capsules(OnUpgrade, connect_tcp::Opened),
    /// Nothing, though it was offered: the library lets go of the connection as if it had become what was asked for.
    Declined(OnUpgrade),
}

struct Connection {
    current: Arc<Current>,
    peer: SocketAddr,
    channel: Option<Channel>,
    scope: Scope,
    verdict: Arc<Verdict>,
    after: Mutex<Option<After>>,
    /// An answer may have been ended by the connection's end alone: its client speaks HTTP/1.0.
    unframed: AtomicBool,
    /// Tells that a client which waits for its answer has gone.
    hangup: Mutex<Option<Hangup>>,
    /// Over the answer that is on its way.
    watching: Mutex<Option<SharedGuard>>,
}

/// A connection that begins like this may wait long for its answer.
const LONG_WAIT: &[u8] = b"GET /relay/v1/listeners/";

/// Serve requests until the connection ends. `buffer` was read already; nothing of it was consumed.
pub(super) fn serve(
    downstream: Guarded<Downstream>,
    buffer: BytesMut,
    peer: SocketAddr,
    current: Arc<Current>,
    scope: Scope,
) -> impl Future<Output = ()> + Send {
    let serving = serve_while(downstream, buffer, peer, current, scope, None);
    async move {
        serving.await;
    }
}

/// The same until the right to `tunnel`, which the connection came out of, is withdrawn. What is under way then is ended by
/// whoever watches it, and the reason is answered.
pub(super) async fn serve_while(
    downstream: Guarded<Downstream>,
    buffer: BytesMut,
    peer: SocketAddr,
    current: Arc<Current>,
    scope: Scope,
    mut tunnel: Option<&mut Tunnel>,
) -> Option<Lost> {
    let mut reason = None;
    let (timeouts, mut drain) = {
        let context = current.now();
        (context.egress.timeouts, context.drain.clone())
    };
    let verdict = Arc::new(Verdict::default());
    if matches!(scope, Scope::Inside { .. }) {
        verdict.trust();
    }
    let hangup = if buffer.starts_with(LONG_WAIT) {
        downstream.get().and_then(Downstream::hangup)
    } else {
        None
    };
    let channel = downstream.get().and_then(Downstream::channel);
    let io: Io = TokioIo::new(Judged::new(downstream, buffer, verdict.clone(), timeouts));
    let state = Arc::new(Connection {
        current,
        peer,
        channel,
        scope,
        verdict,
        after: Mutex::new(None),
        unframed: AtomicBool::new(false),
        hangup: Mutex::new(hangup),
        watching: Mutex::default(),
    });
    let service = {
        let state = state.clone();
        service_fn(move |request| {
            let state = state.clone();
            // The library keeps room for it for as long as the connection lives: in a box it is gone with its answer.
            Box::pin(async move {
                let answer = state.answer(request).await;
                state.verdict.answered();
                Ok::<_, io::Error>(answer)
            })
        })
    };
    // Gone before anybody asks what it left: an upgrade it never came to would be waited for as long as it lived.
    let ended = {
        let serving = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            // A client may end its side and still wait for its answer.
            .half_close(true)
            .max_buf_size(128 * 1024)
            .serve_connection(io, service)
            .with_upgrades();
        tokio::pin!(serving);
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                ended = serving.as_mut() => break Some(ended),
                () = std::future::poll_fn(|cx| state.poll_cut(cx)) => break None,
                () = drain.reached(Stage::Draining), if !told => told = true,
                lost = withdrawn(&mut tunnel, &state.scope), if reason.is_none() => reason = Some(lost),
            }
            serving.as_mut().graceful_shutdown();
        }
    };
    match ended {
        // Dropped by now, with the record of why.
        None => state.verdict.arm(),
        Some(Ok(())) => state.verdict.release(),
        // Framed, the answer's end is missed anyway; a reset could only take what arrived of it.
        Some(Err(error)) if !state.unframed.load(Ordering::Acquire) => {
            state.verdict.release();
            tracing::debug!(%error, "connection ended early");
        }
        // The guard inside resets the connection: a cut answer must not look whole.
        Some(Err(error)) => {
            state.verdict.arm();
            tracing::debug!(%error, "connection ended early");
        }
    }
    // It holds the socket too: what ends from here on must end at once.
    drop(state.take_hangup());
    let after = state
        .after
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match after {
        None => {}
        Some(After::Upgraded(client, upgraded)) => {
            if let Some((downstream, first)) = reclaim(client).await {
                upgraded.carry(downstream, first).await;
            }
        }
        Some(After::Connected(client, opened)) => {
            if let Some((downstream, first)) = reclaim(client).await {
                Box::pin(connect::carry(
                    downstream,
                    first,
                    opened,
                    peer,
                    state.current.clone(),
                ))
                .await;
            }
        }
        Some(After::Capsules(client, opened)) => match reclaim(client).await {
            Some((downstream, first)) => {
                let early = state.verdict.take();
                let current = state.current.clone();
                Box::pin(upgrade::carry(
                    downstream, first, early, opened, peer, current,
                ))
                .await;
            }
            None => opened.abandon(None),
        },
        Some(After::Declined(client)) => {
            if let Some((mut downstream, _)) = reclaim(client).await {
                linger_close(&mut downstream).await;
                downstream.release();
            }
        }
    }
    // What was under way may have been ended by the same change a moment earlier.
    reason.or_else(|| tunnel?.still_serves().err())
}

/// Completes when no request may be made any more in what the tunnel has become. What was dialled for it and has carried nothing was
/// judged before each change, and is closed by it.
async fn withdrawn(tunnel: &mut Option<&mut Tunnel>, scope: &Scope) -> Lost {
    let Some(tunnel) = tunnel else {
        return std::future::pending().await;
    };
    loop {
        let changed = tunnel.changed().await;
        if let Scope::Inside { adopted, .. } = scope {
            adopted.close();
        }
        if let Err(lost) = changed {
            return lost;
        }
    }
}

/// The connection behind an upgrade, and what was read of it.
async fn reclaim(client: OnUpgrade) -> Option<(Guarded<Downstream>, Vec<u8>)> {
    let parts = client.await.ok()?.downcast::<Io>().ok()?;
    let (downstream, unread) = parts.io.into_inner().into_parts()?;
    let mut first = parts.read_buf.to_vec();
    first.extend_from_slice(&unread);
    Some((downstream, first))
}

impl Connection {
    fn take_hangup(&self) -> Option<Hangup> {
        self.hangup
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn watching(&self) -> MutexGuard<'_, Option<SharedGuard>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once the last exchange must be ended: its client may take nothing, and then nobody asks for its body.
    fn poll_cut(&self, cx: &mut task::Context<'_>) -> task::Poll<()> {
        let mut watching = self.watching();
        let Some(shared) = watching.as_ref() else {
            return task::Poll::Pending;
        };
        if Arc::strong_count(shared) == 1 {
            // It has ended.
            *watching = None;
            return task::Poll::Pending;
        }
        let mut guard = shared.lock().unwrap_or_else(PoisonError::into_inner);
        guard.poll(cx).map(drop)
    }

    fn become_after(&self, after: After) {
        *self.after.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
    }
}
