//! Accept streams: a sandbox offers a listener, and is answered once its host dials it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_policy::{Denial, ListenerPermit, Refusal, ServiceName, decide_listener};
use sluicegate_relay::flow::{Broken, Flow};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    board::{Board, Call, Delivery},
    doorway::Here,
    standing::Standing,
};
use crate::{
    auth::{Audience, Identity, Presented},
    drain::{DrainWatch, Stage},
    lost::Lost,
    relay::Endpoint,
    session::Judged,
    telemetry::WaitingGuard,
};

/// A client that says when it has a dial says so within this time, or it is gone.
pub(super) const TAKEN: Duration = Duration::from_secs(5);

/// An accept stream that has been let in and waits for a dial. Dropping it withdraws the offer.
#[derive(Debug)]
pub struct Waiting {
    standing: Standing,
    board: Arc<Board>,
    called: oneshot::Receiver<Call>,
    idle: Option<std::time::Duration>,
    here: Here,
    _counted: WaitingGuard,
}

/// Somebody dials: the stream is to be answered with success and handed over.
#[derive(Debug)]
pub struct Dialled {
    board: Arc<Board>,
    call: Call,
    idle: Option<std::time::Duration>,
    standing: Standing,
    /// Until the stream is over: who carries a dial is connected.
    here: Here,
    /// Its client says when it has it.
    says: bool,
}

impl Endpoint {
    /// Decide for one accept stream of the listener of this name (as sent, percent-decoded), by the credential
    /// presented: each is judged anew, on the live session, and watched from then on. `carried` says whether its connection may
    /// carry it.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn offer(
        &self,
        presented: Presented<'_>,
        listener: &str,
        downstream: SocketAddr,
        carried: impl FnOnce(&Identity) -> Result<(), Refusal>,
    ) -> Result<Waiting, Refusal> {
        let now = SystemTime::now();
        let identity =
            self.authenticator
                .identify(presented, Audience::Relay, downstream.ip(), now)?;
        let session = &identity.session;
        // What is refused has the rate of refused opens, a name that cannot exist like any other.
        let name = ServiceName::parse(listener)
            .map_err(|_| session.refused(Denial::ListenerNotAllowed.into(), now))?;
        let judged: Judged<ListenerPermit> = identity.judge(|policy| {
            let decided = decide_listener(&policy.grant, identity.bound.as_deref(), &name);
            decided.map_err(|refusal| session.refused(refusal, now))
        })?;
        carried(&identity)?;
        let board = self.reverse.board(&identity.session, &name);
        let here = board.doorway().enter(identity.session.door(&name));
        let called = board.offer().ok_or(Denial::TooManyAccepts)?;
        Ok(Waiting {
            standing: Standing::new(identity.bound, judged.permit, judged.changes),
            board,
            called,
            idle: self.services.idle_timeout(),
            here,
            _counted: self.reverse.telemetry().metrics().waiting(),
        })
    }
}

impl Waiting {
    /// Completes when the host dials.
    ///
    /// # Errors
    /// The right to wait has ended, or the gateway goes down: the reason to answer with.
    pub async fn dialled(mut self, drain: &mut DrainWatch) -> Result<Dialled, Lost> {
        loop {
            tokio::select! {
                biased;
                lost = self.standing.lost() => return Err(lost),
                () = drain.reached(Stage::Refusing) => return Err(Denial::Draining.into()),
                called = &mut self.called => match called {
                    Ok(call) => {
                        let Self { board, idle, standing, here, .. } = self;
                        return Ok(Dialled { board, call, idle, standing, here, says: false });
                    }
                    // The dial that had taken it gave up before it called: it is on offer again.
                    Err(_) => self.called = self.board.offer().ok_or(Denial::TooManyAccepts)?,
                },
            }
        }
    }
}

impl Dialled {
    /// Completes when the client may not have the dial any more.
    pub async fn lost(&mut self) -> Lost {
        self.standing.lost().await
    }

    /// The client has said that it will say when it has the dial: nothing of the dial's is passed on before.
    pub fn waits_to_be_taken(&mut self) {
        self.says = true;
    }

    /// Does the client have the dial? It is certain once its word is `heard`; where it has not said that it says one, it is taken
    /// for granted. `false`: it is not there, or may not have it any more, or the dial has been taken elsewhere meanwhile, or has given up.
    pub async fn taken(&mut self, heard: impl Future<Output = Result<(), Broken>>) -> bool {
        if !self.says {
            return true;
        }
        let answered = Instant::now();
        let taken = tokio::select! {
            biased;
            _ = self.standing.lost() => false,
            heard = timeout(TAKEN, heard) => matches!(heard, Ok(Ok(()))),
            () = self.call.closed() => false,
        };
        if taken {
            self.board.taken_in(answered.elapsed());
        }
        taken
    }

    /// Hand the stream, answered with success, to the dial; completes when the stream is over. What is handed to a dial
    /// that is gone is reset.
    pub async fn carry(self, sandbox: impl Flow + 'static) {
        let Self {
            call,
            idle,
            standing,
            here,
            ..
        } = self;
        let (over, ended) = oneshot::channel();
        let delivery = Delivery {
            flow: Box::new(sandbox),
            over,
            idle,
            standing,
        };
        // Whoever comes first has it.
        if call.try_send(delivery).is_ok() {
            let _ = ended.await;
        }
        drop(here);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{future::pending, sync::Arc, time::Duration};

    use sluicegate_policy::{ServiceName, decide_listener};
    use tokio::{
        sync::mpsc,
        time::{Instant, pause},
    };

    use super::{Board, Dialled, Standing};
    use crate::session::{
        lifecycle::Action,
        testing::{Fixture, request},
    };

    /// Handed a dial and not heard of, it is let go as soon as its credential is.
    #[tokio::test]
    async fn whose_right_has_ended_is_not_waited_for() {
        let f = Fixture::new();
        let asked = request("{id: one, expose: [plugin]}");
        f.registry.create("local".into(), asked).await.unwrap();
        let live = f.registry.index().session(&f.key("one")).unwrap();
        let name = ServiceName::parse("plugin").unwrap();
        let judged = live
            .session
            .judge(None, |policy| decide_listener(&policy.grant, None, &name))
            .unwrap();
        let (call, _dial) = mpsc::channel(1);
        let mut dialled = Dialled {
            board: Arc::default(),
            call,
            idle: None,
            standing: Standing::new(None, judged.permit, judged.changes),
            here: Board::default().doorway().enter(None),
            says: true,
        };
        let reset = f.registry.act(f.key("one"), Action::Reset, None);
        reset.await.unwrap();
        pause();
        let begun = Instant::now();
        assert!(!dialled.taken(pending()).await);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
