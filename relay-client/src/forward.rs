//! Each local connection becomes one relay stream.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    flow::{Early, Flow, How, Prefixed, Side, SocketFlow, Timers, pump},
    listen::{Came, Door, Listener, Place, Visitor},
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

/// Opening takes several times as much room as what is left then, which may be there for days: it has a box of its own.
fn carry(visitor: Visitor, service: Arc<str>, session: Session) -> impl Future<Output = ()> + Send {
    let opening = Box::pin(open(visitor, service.clone(), session));
    async move {
        let Some((_place, mut local, mut stream)) = opening.await else {
            return;
        };
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
}

/// The visitor's place and the two ends of a stream that is open; `None` where it is not, and why has been said.
async fn open(
    visitor: Visitor,
    service: Arc<str>,
    session: Session,
) -> Option<(Place, Prefixed<SocketFlow>, Box<dyn Flow>)> {
    let (socket, place) = match visitor.known().await {
        Came::Ours(socket, place) => (socket, place),
        Came::Stranger(socket) => {
            socket.close_resets();
            return None;
        }
    };
    let mut local = SocketFlow::new(socket);
    let mut early = Early::of(&mut local);
    let opened = session.open_early(&service, &mut early).await;
    let rest = early.rest();
    match opened {
        Ok(stream) => return Some((place, Prefixed::new(rest, local), stream)),
        Err(SessionError::Open(OpenError::Broken(broken))) => {
            tracing::debug!(%service, %broken, "closed before the stream was open");
        }
        Err(error) => tracing::warn!(%service, reason = %error, "stream refused"),
    }
    local.reset();
    None
}

#[cfg(test)]
mod tests {
    use super::{Arc, Session, Visitor, carry};

    fn size<F: Future>(_: fn(Visitor, Arc<str>, Session) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_stream_holds_little() {
        let size = size(carry);
        assert!(size <= 480, "{size}");
    }
}
