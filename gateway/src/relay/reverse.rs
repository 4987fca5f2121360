//! The relay's other direction: a host dials a listener inside a sandbox.
//!
//! The sandbox's client keeps *accept streams* open, each answered only once there is a dial ([`Waiting`]); the host dials
//! a place the registry has bound (`session::Dials`), which listens while the sandbox is there ([`doorway`]). Here the two meet ([`board`]), and one task, the dial's, owns the
//! record, the budget's slot and both ends until they are done. Works the same on every transport, since no stream is
//! ever opened from the gateway.

mod board;
mod called;
mod doorway;
mod offer;
mod private;
mod standing;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, ListenerPermit, Refusal, ServiceName, decide_listener};
use sluicegate_relay::flow::{Flow, Shared, SocketFlow, Timers};
use tokio::{
    net,
    sync::mpsc,
    time::{sleep, timeout},
};

use self::{
    board::{Board, Delivery, MAX_DIALS},
    called::{Uncalled, called},
    doorway::Doorway,
    standing::Standing,
};
use super::stream::{Spending, join};
use crate::{
    drain::{DrainWatch, Stage},
    outcome::{Outcome, Party},
    session::{Judged, Listening, Offer, Session, SessionKey, Slot},
    telemetry::{Caller, Front, Kind, Recorder, Telemetry},
};
pub use offer::{Dialled, Waiting};

/// Pause after an accept that failed for want of file descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// A listener of one generation; its board goes with the generation.
type Boards = HashMap<(SessionKey, u64, ServiceName), (Weak<Session>, Arc<Board>)>;

/// Joins dials and accept streams. Cheap to clone; lives as long as the process.
#[derive(Clone, Debug)]
pub struct Reverse {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    boards: Mutex<Boards>,
    telemetry: Telemetry,
    drain: DrainWatch,
}

impl Reverse {
    /// Record into `telemetry`; dials run in `drain`'s tasks.
    pub fn new(telemetry: Telemetry, drain: DrainWatch) -> Self {
        let inner = Inner {
            boards: Mutex::default(),
            telemetry,
            drain,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }

    /// Where dials and accept streams of this listener meet.
    fn board(&self, session: &Arc<Session>, name: &ServiceName) -> Arc<Board> {
        let key = (session.key().clone(), session.generation(), name.clone());
        let mut boards = self
            .inner
            .boards
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, board)) = boards.get(&key) {
            return board.clone();
        }
        // Generations that are over leave with the first board of another.
        boards.retain(|_, (session, _)| session.strong_count() > 0);
        let board = Arc::new(Board::default());
        boards.insert(key, (Arc::downgrade(session), board.clone()));
        board
    }

    /// Where those of a place meet, for as long as its generation lives. An accept stream may have come before, by a credential that sees
    /// the generation more narrowly, and ends earlier.
    fn board_of(&self, place: &Offer) -> Arc<Board> {
        let (session, name) = (&place.session, &place.name);
        let board = self.board(session, name);
        let key = (session.key().clone(), session.generation(), name.clone());
        let kept = (Arc::downgrade(session), board.clone());
        let mut boards = self
            .inner
            .boards
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        boards.insert(key, kept);
        board
    }

    /// Serve places as they are bound, until the drain is over.
    pub async fn serve(self, mut offers: mpsc::UnboundedReceiver<Offer>) {
        let mut drain = self.inner.drain.clone();
        loop {
            let offer = tokio::select! {
                offer = offers.recv() => offer,
                () = drain.reached(Stage::Forced) => return,
            };
            let Some(place) = offer else { return };
            let doorway = self.board_of(&place).doorway().clone();
            doorway.serve(&place.door);
            self.inner
                .drain
                .spawn_service(self.clone().listen(place, doorway));
        }
    }

    /// Serve the place until it is taken away or the gateway goes down.
    async fn listen(self, place: Offer, doorway: Arc<Doorway>) {
        let mut drain = self.inner.drain.clone();
        tokio::select! {
            biased;
            () = place.closed.cancelled() => {}
            () = drain.reached(Stage::Draining) => {}
            () = self.attend(&place, &doorway) => {}
        }
        doorway.forget(&place.door);
    }

    /// Accept while the sandbox is there.
    async fn attend(&self, place: &Offer, doorway: &Doorway) {
        loop {
            doorway.until(true).await;
            if !doorway.attend(&place.door) {
                continue;
            }
            match Socket::of(place) {
                Ok(Some(socket)) => self.accept(place, doorway, socket).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "a dial target cannot be served; trying again");
                    doorway.neglect(&place.door);
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }

    /// Accept until the sandbox has been gone for as long as its listener is patient.
    async fn accept(&self, place: &Offer, doorway: &Doorway, socket: Socket) {
        let mut drain = self.inner.drain.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = doorway.until(false) => {
                    // What dials now waits in the kernel's queue: whoever comes back has it, and else it is reset.
                    let back = came_back(place, doorway, &mut drain).await;
                    if back {
                        continue;
                    }
                    let Some(left) = doorway.shut(&place.door, || socket.left()) else {
                        continue;
                    };
                    for (socket, caller) in left {
                        Dial::begin_at(self, place, socket, caller).leave();
                    }
                    return;
                }
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((socket, caller, welcome)) => {
                    let dial = Dial::begin_at(self, place, socket, caller);
                    let work = async move {
                        match welcome {
                            true => dial.run().await,
                            false => dial.refuse(Denial::SourceNotAllowed.into()),
                        }
                    };
                    self.inner.drain.spawn(work);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accept failed; pausing");
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

/// Is somebody here again, within the patience of the listener? None is had with a session that may not go on: a dial of it would hang,
/// and be carried after all if the session goes on in time. Nor is it when the gateway goes down: nobody is let in again.
async fn came_back(place: &Offer, doorway: &Doorway, drain: &mut DrainWatch) -> bool {
    let (session, name) = (&place.session, &place.name);
    let judged = session.judge(None, |policy| decide_listener(&policy.grant, None, name));
    let Ok(judged) = judged else { return false };
    let patience = judged.permit.listener().patience;
    tokio::select! {
        biased;
        back = timeout(patience, doorway.until(true)) => back.is_ok(),
        () = session.barred() => false,
        () = drain.reached(Stage::Refusing) => false,
    }
}

/// An open door, on this runtime.
enum Socket {
    Unix(net::UnixListener, Option<u32>),
    Tcp(net::TcpListener),
}

impl Socket {
    /// Registered anew each time the door is opened: epoll says once and for all that a socket has stopped to listen. `None`: the
    /// place has been taken away.
    fn of(place: &Offer) -> io::Result<Option<Self>> {
        Ok(match place.door.open()? {
            Some(Listening::Unix(listener, uid)) => {
                Some(Self::Unix(net::UnixListener::from_std(listener)?, uid))
            }
            Some(Listening::Tcp(listener)) => {
                Some(Self::Tcp(net::TcpListener::from_std(listener)?))
            }
            None => None,
        })
    }

    /// What waits in the kernel's queue, and who it is. On a unix socket it is left there, for the kernel to reset: accepted, a program
    /// that has said nothing could not tell the failure from an end.
    fn left(&self) -> Vec<(Shared, Caller)> {
        let Self::Tcp(listener) = self else {
            return Vec::new();
        };
        let Ok(handle) = listener.as_fd().try_clone_to_owned() else {
            return Vec::new();
        };
        let listener = std::net::TcpListener::from(handle);
        let next = || {
            // It does not block. What cannot be accepted is reset all the same.
            let (tcp, peer) = listener.accept().ok()?;
            tcp.set_nonblocking(true).ok()?;
            let tcp = net::TcpStream::from_std(tcp).ok()?;
            Some((Shared::from(tcp), Caller::Address(peer)))
        };
        std::iter::from_fn(next).take(MAX_DIALS).collect()
    }

    /// The next connection, who it is, and whether it is welcome.
    async fn accept(&self) -> io::Result<(Shared, Caller, bool)> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                Ok((tcp.into(), Caller::Address(peer), true))
            }
            Self::Unix(listener, also) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                let welcome = uid == rustix::process::geteuid().as_raw() || Some(uid) == *also;
                Ok((stream.into(), Caller::User(uid), welcome))
            }
        }
    }
}

/// One connection of the host, from its accept to its end.
struct Dial {
    reverse: Reverse,
    session: Arc<Session>,
    name: ServiceName,
    flow: Box<dyn Flow>,
    recorder: Recorder,
}

impl Dial {
    fn begin_at(reverse: &Reverse, place: &Offer, socket: Shared, caller: Caller) -> Self {
        let (session, name) = (place.session.clone(), place.name.clone());
        let flow = Box::new(SocketFlow::new(socket));
        Self::begin(reverse, session, name, flow, caller)
    }

    fn begin(
        reverse: &Reverse,
        session: Arc<Session>,
        name: ServiceName,
        flow: Box<dyn Flow>,
        caller: Caller,
    ) -> Self {
        let mut recorder = reverse
            .telemetry()
            .begin(Kind::stream, Front::listener, caller);
        recorder.service(&name);
        recorder.whose(session.label());
        Self {
            reverse: reverse.clone(),
            session,
            name,
            flow,
            recorder,
        }
    }

    /// There is no answer on a byte stream but a reset; the reason is in the record.
    fn refuse(mut self, refusal: Refusal) {
        self.recorder.refused(&refusal);
        self.flow.reset();
    }

    /// It waited for a client to come back, in vain.
    fn leave(mut self) {
        let refusal = match self.judge() {
            Ok(_) if self.reverse.inner.drain.refusing() => Denial::Draining.into(),
            Ok(judged) => {
                let patience = judged.permit.listener().patience;
                self.recorder.detail(format!(
                    "no client of the sandbox came back within {patience:?}"
                ));
                let now = SystemTime::now();
                self.session
                    .refused(Denial::ListenerNotConnected.into(), now)
            }
            Err(refusal) => refusal,
        };
        self.refuse(refusal);
    }

    async fn run(mut self) {
        let (mut standing, _slot) = match self.admit() {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(refusal),
        };
        let delivery = match self.meet(&mut standing).await {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return self.recorder.ended(Outcome::Reset, Party::Downstream),
            Err(denial) => return self.refuse(denial.into()),
        };
        self.recorder.opened();
        let listener = standing.permit().listener();
        let timers = Timers {
            idle: listener.idle_timeout.or(delivery.idle),
            half_close: listener.half_close_timeout,
        };
        let meter = Spending::new(&self.session, self.recorder.counters());
        let (mut sandbox, mut accepted) = (delivery.flow, delivery.standing);
        let lost = async {
            tokio::select! {
                lost = standing.lost() => lost,
                lost = accepted.lost() => lost,
            }
        };
        join(
            &mut *self.flow,
            &mut *sandbox,
            lost,
            timers,
            &meter,
            &mut self.recorder,
        )
        .await;
        self.session.touch(SystemTime::now());
        // Both ends are let go before the accept stream's own task hears that it is over.
        drop((sandbox, self.flow));
        drop(delivery.over);
    }

    /// By one generation of policy: the session's state, its grant, its budget.
    fn admit(&mut self) -> Result<(Standing, Slot), Refusal> {
        if self.reverse.inner.drain.refusing() {
            return Err(Denial::Draining.into());
        }
        let judged = self.judge()?;
        let now = SystemTime::now();
        let slot = self.session.budget().open(now)?;
        self.session.touch(now);
        Ok((Standing::new(None, judged.permit, judged.changes), slot))
    }

    /// By the session's state, and its grant.
    fn judge(&mut self) -> Result<Judged<ListenerPermit>, Refusal> {
        let (session, name, recorder) = (&self.session, &self.name, &mut self.recorder);
        let judged = session.judge(None, |policy| {
            recorder.session(session.label(), policy.number);
            let decided = decide_listener(&policy.grant, None, name);
            decided.map_err(|refusal| session.refused(refusal, SystemTime::now()))
        });
        judged.map_err(|refusal: Refusal| match refusal.denial {
            // Nobody presented a credential here: it is the session that is over.
            Denial::CredentialInvalid => Denial::SessionRevoked.into(),
            _ => refusal,
        })
    }

    /// Wait for an accept stream, as long as the listener's patience lasts. `None`: the caller gave up.
    async fn meet(&mut self, standing: &mut Standing) -> Result<Option<Delivery>, Denial> {
        let patience = standing.permit().listener().patience;
        let board = self.reverse.board(&self.session, &self.name);
        let mut drain = self.reverse.inner.drain.clone();
        let (flow, recorder) = (&mut self.flow, &mut self.recorder);
        tokio::select! {
            biased;
            lost = standing.lost() => Err(lost.told(recorder)),
            found = called(&board, patience, &mut drain) => match found {
                Ok(delivery) => Ok(Some(delivery)),
                Err(Uncalled::Draining) => Err(Denial::Draining),
                Err(Uncalled::Crowd) => Err(Denial::TooManyOpens),
                Err(Uncalled::Nobody) => {
                    recorder.detail(format!("no client of the sandbox offered it within {patience:?}"));
                    Err(Denial::ListenerNotConnected)
                }
                Err(Uncalled::NotTaken) => {
                    recorder.detail("clients of the sandbox had offered it, and none was there");
                    Err(Denial::ListenerNotConnected)
                }
            },
            _ = std::future::poll_fn(|cx| flow.poll_broken(cx)) => Ok(None),
        }
    }
}

/// For who accepts elsewhere: the address a caller came from.
fn caller(address: SocketAddr) -> Caller {
    Caller::Address(address)
}

#[cfg(test)]
mod tests;
