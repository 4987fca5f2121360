//! Each local connection becomes one relay stream.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    flow::{Early, Flow, How, Prefixed, Side, SocketFlow, Timers, pump},
    listen::{Came, Door, Listener, Visitor},
    session::{Session, SessionError},
    tasks::Tasks,
    transport::OpenError,
};

/// After an accept that failed (out of descriptors): long enough for others to close some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accept on `listener` until `stop`, carrying each connection to `service` in a task of its own. A service that is down
/// or refused resets that connection and is one line in the log; it never ends the listener. So is a process of another user,
/// unless `any_uid`.
pub async fn forward(
    listener: Listener,
    service: Arc<str>,
    session: Session,
    any_uid: bool,
    tasks: Tasks,
    stop: CancellationToken,
) {
    let mut door = Door::new(listener, any_uid, usize::MAX);
    while let Some(accepted) = stop.run_until_cancelled(door.visitor()).await {
        match accepted {
            Ok(visitor) => {
                tasks.spawn(carry(visitor, service.clone(), session.clone()));
            }
            Err(error) => {
                tracing::warn!(%service, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry(visitor: Visitor, service: Arc<str>, session: Session) {
    let (socket, _place) = match visitor.known().await {
        Came::Ours(socket, place) => (socket, place),
        Came::Stranger(socket) => return socket.close_resets(),
    };
    let mut local = SocketFlow::new(socket);
    let mut early = Early::of(&mut local);
    // Larger than all that comes after it.
    let opened = Box::pin(session.open_early(&service, &mut early)).await;
    let rest = early.rest();
    drop(session);
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(SessionError::Open(OpenError::Broken(broken))) => {
            tracing::debug!(%service, %broken, "closed before the stream was open");
            return local.reset();
        }
        Err(error) => {
            tracing::warn!(%service, reason = %error, "stream refused");
            return local.reset();
        }
    };
    let mut local = Prefixed::new(rest, local);
    let ending = pump(&mut local, &mut stream, Timers::default(), &()).await;
    let by = match ending.by {
        Some(Side::A) => "local",
        Some(Side::B) => "gateway",
        None => "relay",
    };
    match ending.how {
        How::Completed => tracing::debug!(%service, by, "closed"),
        how => tracing::info!(%service, by, ?how, "reset"),
    }
}
