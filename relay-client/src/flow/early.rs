//! What a program says before its stream is answered: it travels right behind the request, and one round trip is saved.

use std::{
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use nix::time::{ClockId, clock_gettime};
use sluicegate_relay_protocol::{Instance, Once};

use super::{Broken, Flow};

/// So much of it is sent, and kept until the answer: another gateway may have to be told the same.
pub const EARLY: usize = 32 * 1024;
/// A gateway remembers for twice as long which opens it has taken: until then it can be asked.
const ASKED_WITHIN: Duration = Duration::from_secs(60);

/// A moment by both clocks that go on while this machine sleeps: the gateway does not sleep. Of a machine that was stopped from
/// outside and put back only the wall clock tells, once somebody has set it.
struct Moment {
    /// `None`: the kernel does not say.
    since_boot: Option<Duration>,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME);
        Self {
            since_boot: since_boot.ok().map(Duration::from),
            wall: SystemTime::now(),
        }
    }

    /// The longer of the two, where both are known: asked too late, an open could be taken twice.
    fn elapsed(&self) -> Option<Duration> {
        let now = Self::now();
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        let boot = now.since_boot?.saturating_sub(self.since_boot?);
        Some(wall.max(boot))
    }
}

/// The program's side of a stream that is being opened.
pub struct Early<'a> {
    /// `None`: nothing is sent before the answer.
    program: Option<&'a mut dyn Flow>,
    /// Everything it has said so far.
    said: BytesMut,
    /// Of that, not yet sent on this attempt.
    unsent: Bytes,
    ended: bool,
    /// Something was sent that may have arrived, though nobody has said so.
    left: bool,
    /// Which open this is, to the gateway.
    number: Option<u64>,
    /// Who may have got it, in attempts before this one.
    tried: Vec<Instance>,
    /// When it left for the first of them.
    since: Option<Moment>,
}

impl std::fmt::Debug for Early<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Early")
            .field("said", &self.said.len())
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl<'a> Early<'a> {
    /// Of this program.
    pub fn of(program: &'a mut dyn Flow) -> Self {
        Self {
            program: Some(program),
            ..Self::nothing()
        }
    }

    /// Nothing goes before the answer.
    pub fn nothing() -> Self {
        Self {
            program: None,
            said: BytesMut::new(),
            unsent: Bytes::new(),
            ended: false,
            left: false,
            number: None,
            tried: Vec::new(),
            since: None,
        }
    }

    /// A new attempt: what was said is said again. Which open it is, for a gateway that asks.
    pub(crate) fn again(&mut self, gateway: Option<Instance>) -> Option<Once> {
        self.unsent = self.said.clone().freeze();
        self.left = false;
        if self.tried.is_empty() {
            // Nobody has got anything: it is a new open.
            self.number = None;
        }
        self.program.as_ref()?;
        gateway?;
        if self.number.is_none() {
            self.number = getrandom::u64().ok();
        }
        Some(Once {
            number: self.number?,
            tried: self.tried.clone(),
        })
    }

    /// The attempt at this gateway has ended without an answer. May it be made again? Where something of it may have
    /// arrived, only if that can be found out: the gateway remembers its opens.
    pub(crate) fn may_be_asked(&mut self, gateway: Option<Instance>) -> bool {
        if !self.left {
            return true;
        }
        let (Some(gateway), Some(_)) = (gateway, self.number) else {
            return false;
        };
        if !self.tried.contains(&gateway) {
            if !Once::has_room(self.tried.len()) {
                return false;
            }
            self.tried.push(gateway);
        }
        self.since
            .as_ref()
            .and_then(Moment::elapsed)
            .is_some_and(|elapsed| elapsed < ASKED_WITHIN)
    }

    /// May an attempt before this one have arrived? Then only who remembers its opens may have the next.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.tried.is_empty()
    }

    /// The peer has said that it has passed nothing on.
    pub(crate) fn unseen(&mut self) {
        self.left = false;
    }

    /// What was said and not sent: it comes first on the stream that is open now.
    pub fn rest(self) -> Bytes {
        self.unsent
    }

    /// The next bytes to send, to be written from their front. `Err`: the program has given up.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut Bytes, Broken>> {
        let Some(program) = &mut self.program else {
            return Poll::Pending;
        };
        if self.unsent.is_empty() {
            if self.ended || self.said.len() >= EARLY {
                return program.poll_broken(cx).map(Err);
            }
            match ready!(program.poll_read(cx)) {
                Ok(Some(chunk)) => {
                    self.said.extend_from_slice(&chunk);
                    self.unsent = chunk;
                }
                // The stream's FIN comes with the rest, once it is open.
                Ok(None) => {
                    self.ended = true;
                    return program.poll_broken(cx).map(Err);
                }
                Err(broken) => return Poll::Ready(Err(broken)),
            }
        }
        self.left = true;
        self.since.get_or_insert_with(Moment::now);
        Poll::Ready(Ok(&mut self.unsent))
    }

    /// Only to know when the program gives up: this transport takes nothing before the answer.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        match &mut self.program {
            Some(program) => program.poll_broken(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ASKED_WITHIN, EARLY, Early, Instance};
    use crate::flow::{Flow, SocketFlow};
    use bytes::{Buf, Bytes};
    use std::future::poll_fn;
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    async fn pair() -> (TcpStream, SocketFlow) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), SocketFlow::new(far.unwrap().0))
    }

    /// What would be sent until it has no more, `most` bytes of it.
    async fn sent(early: &mut Early<'_>, most: usize) -> usize {
        let mut count = 0;
        while count < most {
            let taken = poll_fn(|cx| {
                early.poll_next(cx).map(|next| {
                    let next = next.unwrap();
                    let length = next.len().min(most - count);
                    next.advance(length);
                    length
                })
            });
            count += taken.await;
        }
        count
    }

    #[tokio::test]
    async fn it_is_bounded_kept_and_said_again() {
        let (mut program, mut flow) = pair().await;
        program.write_all(&vec![7; 4 * EARLY]).await.unwrap();
        let mut early = Early::of(&mut flow);
        let first = sent(&mut early, EARLY).await;
        assert!(early.left);
        early.again(None);
        assert!(!early.left);
        assert!(sent(&mut early, first).await == first);
        let mut rest = early.rest();
        let mut total = first + rest.len();
        rest.clear();
        while total < 4 * EARLY {
            total += poll_fn(|cx| flow.poll_read(cx))
                .await
                .unwrap()
                .unwrap()
                .len();
        }
        assert_eq!(total, 4 * EARLY);
    }

    #[tokio::test]
    async fn what_may_have_arrived_is_asked_about_and_what_has_not_left_is_new() {
        let (mut program, mut flow) = pair().await;
        let [one, two] = [1, 2].map(|byte| Instance::new([byte; 16]));
        let mut early = Early::of(&mut flow);
        let silent = early.again(Some(one)).unwrap();
        assert!(early.may_be_asked(Some(one)) && !early.is_doubtful());
        let first = early.again(Some(one)).unwrap();
        assert!(first.number != silent.number && first.tried.is_empty());

        program.write_all(b"hello").await.unwrap();
        assert_eq!(sent(&mut early, 5).await, 5);
        assert!(early.may_be_asked(Some(one)) && early.is_doubtful());
        let second = early.again(Some(two)).unwrap();
        assert_eq!((second.number, &*second.tried), (first.number, &[one][..]));
        assert_eq!(sent(&mut early, 5).await, 5);
        assert!(early.may_be_asked(Some(two)));
        let third = early.again(Some(two)).unwrap();
        assert_eq!(
            (third.number, &*third.tried),
            (first.number, &[one, two][..])
        );
        // Refused, or never taken: this attempt adds no doubt.
        assert_eq!(sent(&mut early, 5).await, 5);
        early.unseen();
        assert!(early.may_be_asked(None) && early.is_doubtful());
        // A gateway that remembers nothing cannot be asked.
        assert_eq!(early.again(None), None);
        assert_eq!(sent(&mut early, 5).await, 5);
        assert!(!early.may_be_asked(None));
    }

    #[tokio::test]
    async fn after_a_sleep_nobody_is_asked() {
        let one = Instance::new([1; 16]);
        for by_wall in [true, false] {
            let (mut program, mut flow) = pair().await;
            let mut early = Early::of(&mut flow);
            early.again(Some(one));
            program.write_all(b"hello").await.unwrap();
            sent(&mut early, 5).await;
            assert!(early.may_be_asked(Some(one)));
            let left = early.since.as_mut().unwrap();
            if by_wall {
                left.wall -= ASKED_WITHIN;
            } else if let Some(then) = left.since_boot.unwrap().checked_sub(ASKED_WITHIN) {
                left.since_boot = Some(then);
            } else {
                // This machine has not been up for as long.
                continue;
            }
            assert!(!early.may_be_asked(Some(one)), "{by_wall}");
        }
    }

    #[tokio::test]
    async fn without_a_clock_nobody_is_asked() {
        let one = Instance::new([1; 16]);
        let (mut program, mut flow) = pair().await;
        let mut early = Early::of(&mut flow);
        early.again(Some(one));
        program.write_all(b"hello").await.unwrap();
        sent(&mut early, 5).await;
        assert!(early.may_be_asked(Some(one)));
        early.since.as_mut().unwrap().since_boot = None;
        assert!(!early.may_be_asked(Some(one)));
    }

    #[tokio::test]
    async fn a_program_that_resets_is_heard_and_nothing_is_nothing() {
        let (program, mut flow) = pair().await;
        program.set_zero_linger().unwrap();
        drop(program);
        let mut early = Early::of(&mut flow);
        let gone = poll_fn(|cx| early.poll_next(cx).map(|next| next.is_err())).await;
        assert!(gone);
        let mut nothing = Early::nothing();
        assert_eq!(nothing.again(Some(Instance::new([1; 16]))), None);
        let never = poll_fn(|cx| std::task::Poll::Ready(nothing.poll_next(cx).is_pending())).await;
        assert!(never && nothing.rest() == Bytes::new());
    }
}
