//! A UDP socket whose reader does not ask the kernel in vain. quinn's own reads until nothing is there, which for a single packet is a
//! second system call between its arrival and whoever waits for it.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket};

/// One of the runtime of now.
#[derive(Debug)]
pub(super) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Datagrams {
    /// # Errors
    /// The socket is none, or refuses what quinn asks of it.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, state })
    }

    /// What was there, or `WouldBlock`. On Linux one call takes datagrams until there are none or it has as many as there is room for
    /// (recvmmsg(2)): fewer than that have emptied the queue, and the readiness goes with them. What comes meanwhile is a new event
    /// (epoll(7), edge-triggered). Elsewhere a call may take one at a time.
    fn try_recv(&self, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let room = bufs.len().min(BATCH_SIZE);
        let mut all = None;
        let many = self.socket.try_io(Interest::READABLE, || {
            let count = self.state.recv((&self.socket).into(), bufs, meta)?;
            if cfg!(target_os = "linux") && count < room {
                all = Some(count);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(count)
        });
        all.map_or(many, Ok)
    }
}

impl AsyncUdpSocket for Datagrams {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            datagrams: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.send((&self.socket).into(), transmit)
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            // As quinn's: other errors are of packets that have been sent, and an endpoint has no end for such.
            if let Ok(count) = self.try_recv(bufs, meta) {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// A connection that waits for room. A socket remembers only one of those that poll it, so each has a wait of its own.
struct Writable {
    datagrams: Arc<Datagrams>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let datagrams = &this.datagrams;
        if this.waiting.is_none() {
            // No call at all, only what is known.
            let known = datagrams.socket.try_io(Interest::WRITABLE, || Ok(()));
            if known.is_ok() {
                return Poll::Ready(known);
            }
        }
        let waiting = this.waiting.get_or_insert_with(|| {
            let datagrams = datagrams.clone();
            Box::pin(async move { datagrams.socket.writable().await })
        });
        let room = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(room)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        future::poll_fn,
        io::IoSliceMut,
        net::{Ipv4Addr, UdpSocket},
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use quinn::{
        AsyncUdpSocket,
        udp::{RecvMeta, Transmit},
    };

    use super::Datagrams;

    /// Datagrams that are taken at once.
    const ROOM: usize = 2;

    fn pair() -> (UdpSocket, Arc<Datagrams>) {
        let [near, far] = [(), ()].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        far.set_nonblocking(true).unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        (near, Arc::new(Datagrams::new(far).unwrap()))
    }

    /// The lengths of those that are there.
    fn poll(datagrams: &Datagrams, cx: &mut Context<'_>) -> Poll<Vec<usize>> {
        let mut rooms = [[0; 2048]; ROOM];
        let mut bufs = rooms.each_mut().map(|room| IoSliceMut::new(room));
        let mut meta = [RecvMeta::default(); ROOM];
        datagrams
            .poll_recv(cx, &mut bufs, &mut meta)
            .map(|count| meta.iter().take(count.unwrap()).map(|m| m.len).collect())
    }

    async fn received(datagrams: &Datagrams) -> Vec<usize> {
        let waited = poll_fn(|cx| poll(datagrams, cx));
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn who_has_emptied_the_queue_does_not_ask_again() {
        let (near, far) = pair();
        for round in 1..4 {
            near.send(&vec![0; round]).unwrap();
            assert_eq!(received(&far).await, [round]);
            // It is there, but nobody has heard of it yet: to find it would have been to ask.
            near.send(b"next").unwrap();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(poll(&far, &mut cx).is_pending());
            assert_eq!(received(&far).await, [4]);
        }
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_comes_all_the_same() {
        let (near, far) = pair();
        for length in 1..=2 * ROOM + 1 {
            near.send(&vec![0; length]).unwrap();
        }
        let mut lengths = Vec::new();
        while lengths.len() <= 2 * ROOM {
            lengths.extend(received(&far).await);
        }
        assert_eq!(lengths, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn what_is_sent_arrives() {
        let (near, far) = pair();
        let mut poller = far.clone().create_io_poller();
        poll_fn(|cx| poller.as_mut().poll_writable(cx))
            .await
            .unwrap();
        let transmit = Transmit {
            destination: near.local_addr().unwrap(),
            ecn: None,
            contents: b"word",
            segment_size: None,
            src_ip: None,
        };
        far.try_send(&transmit).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut room = [0; 16];
        assert_eq!(near.recv(&mut room).unwrap(), 4);
    }
}
