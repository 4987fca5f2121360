//! Connections of quinn's over a network that is memory only, on a clock that stands while anybody has something to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, EndpointConfig, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{super::life::Life, Hearing, LOOK_EVERY, SILENCE, tuning, watch};
use crate::{flow::testing::quic_configs, transport::batch::DriversLast};

/// One way.
const TRIP: Duration = Duration::from_millis(20);
/// Nothing is waited for any longer.
const PATIENCE: Duration = Duration::from_secs(60);

type Datagram = (Instant, Vec<u8>);

/// One end of the network.
#[derive(Debug)]
struct Socket {
    own: SocketAddr,
    other: SocketAddr,
    /// What this end sends is lost.
    loses: Arc<AtomicBool>,
    out: UnboundedSender<Datagram>,
    inbox: Mutex<Inbox>,
}

#[derive(Debug)]
struct Inbox {
    queue: UnboundedReceiver<Datagram>,
    /// What is on its way, and arrives next.
    next: Option<(Pin<Box<Sleep>>, Vec<u8>)>,
}

impl Inbox {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        loop {
            if let Some((arrival, _)) = &mut self.next {
                ready!(arrival.as_mut().poll(cx));
            }
            if let Some((_, bytes)) = self.next.take() {
                return Poll::Ready(bytes);
            }
            match ready!(self.queue.poll_recv(cx)) {
                Some((at, bytes)) => self.next = Some((Box::pin(sleep_until(at)), bytes)),
                None => return Poll::Pending,
            }
        }
    }
}

/// It takes whatever is sent.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.loses.load(Ordering::Relaxed) {
            // Whoever is gone receives nothing.
            let _ = self
                .out
                .send((Instant::now() + TRIP, transmit.contents.to_vec()));
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(self.inbox.lock().unwrap().poll(cx));
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else {
            panic!("quinn receives into nothing");
        };
        let (buffer, _) = buffer.split_at_mut(bytes.len());
        buffer.copy_from_slice(&bytes);
        *meta = RecvMeta {
            addr: self.other,
            len: bytes.len(),
            stride: bytes.len(),
            ecn: None,
            dst_ip: None,
        };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.own)
    }
}

/// Both ends of a connection that is watched at the client's.
struct Lab {
    client: quinn::Connection,
    server: quinn::Connection,
    life: Life,
    /// What the client sends is lost, and what the server does.
    loses: [Arc<AtomicBool>; 2],
    tasks: JoinSet<()>,
}

impl Lab {
    async fn new() -> Self {
        let [near, far] = [1, 2].map(|last| SocketAddr::from(([10, 0, 0, last], 4433)));
        let loses = [Arc::default(), Arc::default()];
        let [up, down]: &[Arc<AtomicBool>; 2] = &loses;
        let ((to_far, at_far), (to_near, at_near)) = (unbounded_channel(), unbounded_channel());
        let socket = |own, other, loses: &Arc<AtomicBool>, out, queue| {
            let inbox = Mutex::new(Inbox { queue, next: None });
            let loses = loses.clone();
            Socket {
                own,
                other,
                loses,
                out,
                inbox,
            }
        };
        let (server, client) = quic_configs();
        let endpoint = |socket: Socket, server| {
            let config = tuning::endpoint(EndpointConfig::default());
            let (socket, runtime) = (Arc::new(socket), Arc::new(DriversLast));
            quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap()
        };
        let near_end = endpoint(socket(near, far, up, to_far, at_near), None);
        let far_end = endpoint(socket(far, near, down, to_near, at_far), Some(server));
        let connecting = near_end.connect_with(client, far, "127.0.0.1").unwrap();
        let accepting = async { far_end.accept().await.unwrap().await.unwrap() };
        let (client, server) = tokio::join!(connecting, accepting);
        let (client, life, mut tasks) = (client.unwrap(), Life::default(), JoinSet::new());
        tasks.spawn(watch(
            client.clone(),
            near_end,
            tuning::client().window,
            life.clone(),
        ));
        tasks.spawn(async move {
            let _held = far_end;
            std::future::pending().await
        });
        Self {
            client,
            server,
            life,
            loses,
            tasks,
        }
    }

    /// A stream of the client's, which has said something.
    async fn stream(&self) -> [(quinn::SendStream, quinn::RecvStream); 2] {
        let (mut send, receive) = self.client.open_bi().await.unwrap();
        send.write_all(b"?").await.unwrap();
        let mut accepted = self.server.accept_bi().await.unwrap();
        accepted.1.read_exact(&mut [0]).await.unwrap();
        [(send, receive), accepted]
    }

    async fn make(&mut self, what: Doing) {
        let [(near_send, near_receive), (far_send, far_receive)] = self.stream().await;
        match what {
            Doing::Nothing => {
                // Streams are open.
                self.tasks.spawn(async move {
                    let _held = (near_send, near_receive, far_send, far_receive);
                    std::future::pending().await
                });
            }
            Doing::Exchange => {
                let (mut far_send, mut near_receive) = (far_send, near_receive);
                far_send.write_all(b"!").await.unwrap();
                near_receive.read_exact(&mut [0]).await.unwrap();
                self.tasks.spawn(async move {
                    let _held = (near_send, near_receive, far_send, far_receive);
                    std::future::pending().await
                });
            }
            Doing::Up(every) => {
                self.send(near_send, far_receive, every);
                self.hold((far_send, near_receive));
            }
            Doing::Down(every) => {
                self.send(far_send, near_receive, every);
                self.hold((near_send, far_receive));
            }
        }
    }

    fn hold(&mut self, halves: (quinn::SendStream, quinn::RecvStream)) {
        self.tasks.spawn(async move {
            let _held = halves;
            std::future::pending().await
        });
    }

    /// So much as goes, or a byte each time.
    fn send(
        &mut self,
        mut from: quinn::SendStream,
        mut to: quinn::RecvStream,
        every: Option<Duration>,
    ) {
        self.tasks.spawn(async move {
            let block = [7; 16 * 1024];
            loop {
                let written = match every {
                    None => from.write_all(&block).await,
                    Some(every) => {
                        sleep(every).await;
                        from.write_all(&[7]).await
                    }
                };
                if written.is_err() {
                    return;
                }
            }
        });
        self.tasks.spawn(async move {
            let mut block = vec![0; 64 * 1024];
            while let Ok(Some(_)) = to.read(&mut block).await {}
        });
    }

    fn lose(&self, [up, down]: [bool; 2]) {
        let [loses_up, loses_down] = &self.loses;
        loses_up.store(up, Ordering::Relaxed);
        loses_down.store(down, Ordering::Relaxed);
    }
}

/// What is going on, a byte each time where there is one and else as much as goes.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    Exchange,
    Up(Option<Duration>),
    Down(Option<Duration>),
}

const DOINGS: [Doing; 6] = [
    Doing::Nothing,
    Doing::Exchange,
    Doing::Up(None),
    Doing::Down(None),
    Doing::Up(Some(Duration::from_millis(1300))),
    Doing::Down(Some(Duration::from_millis(700))),
];

#[tokio::test(start_paused = true)]
async fn a_path_that_is_lost_either_way_is_left_in_time_whatever_goes_on() {
    for doing in DOINGS {
        for lost in [[true, false], [false, true], [true, true]] {
            let case = format!("{doing:?}, lost: {lost:?}");
            let mut lab = Lab::new().await;
            lab.make(doing).await;
            if !matches!(doing, Doing::Exchange) {
                // Bulk has got going, or the last exchange is a while ago.
                sleep(Duration::from_millis(1200)).await;
            }
            lab.lose(lost);
            let begun = Instant::now();
            timeout(PATIENCE, lab.life.ended()).await.expect(&case);
            let left = begun.elapsed();
            assert!(left <= SILENCE + 2 * LOOK_EVERY, "{case}: {left:?}");
            // What was acknowledged last may be from before; not from before the last sign of life that was asked for.
            assert!(left >= SILENCE / 3, "{case}: {left:?}");
            timeout(PATIENCE, lab.client.closed()).await.expect(&case);
            let ended = begun.elapsed();
            assert!(ended <= tuning::IDLE + 2 * LOOK_EVERY, "{case}: {ended:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_carries_is_never_left() {
    for doing in DOINGS {
        let mut lab = Lab::new().await;
        lab.make(doing).await;
        // As much as goes is much.
        let secs = match doing {
            Doing::Up(None) | Doing::Down(None) => 2,
            _ => 120,
        };
        sleep(Duration::from_secs(secs)).await;
        assert!(!lab.life.is_retired(), "{doing:?}: {}", lab.life.why());
    }
}

/// Streams that are open stay where the path comes back before it is given up, and the client notices at once.
#[tokio::test(start_paused = true)]
async fn a_path_that_comes_back_keeps_its_streams() {
    for lost in [[true, false], [false, true], [true, true]] {
        for (gap, left) in [(3, false), (12, true)] {
            let mut lab = Lab::new().await;
            let [(mut send, _receive), (_send, mut receive)] = lab.stream().await;
            lab.make(Doing::Nothing).await;
            lab.lose(lost);
            sleep(Duration::from_secs(gap)).await;
            lab.lose([false, false]);
            send.write_all(b"!").await.unwrap();
            let heard = timeout(PATIENCE, receive.read_exact(&mut [0])).await;
            heard.expect("the path is back").unwrap();
            sleep(PATIENCE).await;
            assert_eq!(lab.life.is_retired(), left, "{lost:?}, {gap} s");
            assert_eq!(lab.client.close_reason(), None, "{lost:?}, {gap} s");
        }
    }
}

#[test]
fn silence_counts_from_the_last_answer() {
    let mut hearing = Hearing::default();
    let looks = [1, 1, 1, 2, 2].map(|answered| hearing.look(answered));
    assert_eq!(looks, [0, 1, 2, 0, 1].map(|looks| LOOK_EVERY * looks));
}
