//! How many packets a connection gives the kernel at once, and a socket takes from it.
//!
//! quinn makes room for as many packets as may leave together as soon as there are two, 70 KiB where packets are large, and has it to the
//! connection's end. So those of a connection leave one by one until it is known to carry more than a few words.
//!
//! What is received has 32 places of as much room each, which cost memory once something has been written there, and a client has a
//! socket for each connection. So two of them are used, and twice as many whenever the packets that come are seen to be many.

use std::{
    cell::Cell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::super::tuning::{JOINED, RECEIVED_TOGETHER};

/// A driver that has sent so many packets in turns with more than one of them goes on to send them together. What would have been
/// saved before is a system call for each. Opening as many streams as a client has on a connection takes some 150 at the most.
const BUSY: usize = 256;
/// Datagrams that a socket takes at once at first. What the kernel has joined is one of them. With room for one it could not tell, of one
/// that comes alone, that there is no other, and would ask again.
const FEW: usize = 2;
/// A socket that has so often been read full, of small ones, right after it had had some, takes twice as many at once from then on.
const CROWDED: usize = 128;

/// One turn of a driver.
#[derive(Clone, Copy)]
struct Turn {
    /// Packets that may leave together.
    most: usize,
    /// Times that any have left.
    sent: usize,
}

thread_local! {
    /// Of the driver that runs on this thread now. quinn asks the socket, which many connections may have, on behalf of one of them.
    static TURN: Cell<Turn> = const {
        Cell::new(Turn {
            most: usize::MAX,
            sent: 0,
        })
    };
}

/// May a driver's packets leave together?
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Together {
    /// Packets in turns with more than one.
    sent: usize,
}

impl Together {
    /// One turn of the driver.
    pub(super) fn run<T>(&mut self, drive: impl FnOnce() -> T) -> T {
        let most = if self.sent < BUSY { 1 } else { usize::MAX };
        let before = TURN.replace(Turn { most, sent: 0 });
        let driven = drive();
        let Turn { sent, .. } = TURN.replace(before);
        if sent > 1 {
            self.sent = self.sent.saturating_add(sent);
        }
        driven
    }
}

/// A socket that is given together what may leave together. Its endpoint is one of [`endpoint`](super::super::tuning::endpoint)'s: of
/// packets that are smaller, more might have been joined than there would be room for.
#[derive(Debug)]
pub(super) struct Socket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// So many datagrams are taken at once.
    most: AtomicUsize,
    /// Times that there were as many, small ones and right after others, since `most` has been what it is.
    crowded: AtomicUsize,
    /// There were some when it was last asked.
    had: AtomicBool,
}

impl Socket {
    /// Over this one.
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self {
            socket,
            most: AtomicUsize::new(FEW),
            crowded: AtomicUsize::new(0),
            had: AtomicBool::new(false),
        }
    }

    /// There were so many datagrams of so many bytes together, or none, where no more than `most` would have been taken. Only the
    /// endpoint's driver asks a socket, so what is kept here orders nothing.
    fn received(&self, count: usize, bytes: usize, most: usize) {
        let again = self.had.swap(count > 0, Ordering::Relaxed);
        // Those of a flow are as large as a call is worth.
        let small = bytes < most.saturating_mul(JOINED / 2);
        if !again || count < most || !small {
            return;
        }
        let crowded = self.crowded.load(Ordering::Relaxed) + 1;
        if crowded < CROWDED {
            self.crowded.store(crowded, Ordering::Relaxed);
        } else {
            self.crowded.store(0, Ordering::Relaxed);
            self.most.store(most.saturating_mul(2), Ordering::Relaxed);
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        super::moved(transmit.contents.len());
        let turn = TURN.get();
        let sent = turn.sent.saturating_add(1);
        TURN.set(Turn { sent, ..turn });
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let most = self.most.load(Ordering::Relaxed);
        let most = most.min(bufs.len()).min(meta.len());
        let bufs = bufs.get_mut(..most).unwrap_or_default();
        let meta = meta.get_mut(..most).unwrap_or_default();
        let Poll::Ready(received) = self.socket.poll_recv(cx, bufs, meta) else {
            self.received(0, 0, most);
            return Poll::Pending;
        };
        let count = received?;
        let bytes: usize = meta.iter().take(count).map(|meta| meta.len).sum();
        self.received(count, bytes, most);
        super::moved(bytes);
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments().min(TURN.get().most)
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments().min(RECEIVED_TOGETHER)
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{self, IoSliceMut},
        net::{Ipv4Addr, SocketAddr},
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Waker},
    };

    use quinn::{
        AsyncUdpSocket, EndpointConfig, UdpPoller,
        udp::{RecvMeta, Transmit},
    };

    use super::{super::super::tuning, BUSY, CROWDED, FEW, JOINED, Socket, Together};

    /// So many packets may leave it together.
    const MOST: usize = 10;

    /// Takes everything, and has so many datagrams, each of so many bytes.
    #[derive(Clone, Default, Debug)]
    struct Sink {
        waiting: Arc<AtomicUsize>,
        bytes: usize,
    }

    /// Over one whose datagrams have so many bytes, and where more come when they are put there.
    fn socket(bytes: usize) -> (Socket, Arc<AtomicUsize>) {
        let waiting = Arc::new(AtomicUsize::new(0));
        let sink = Sink {
            waiting: waiting.clone(),
            bytes,
        };
        (Socket::new(Arc::new(sink)), waiting)
    }

    impl AsyncUdpSocket for Sink {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Self::clone(&self))
        }

        fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let waiting = self.waiting.load(Ordering::Relaxed);
            let taken = bufs.len().min(waiting);
            if taken == 0 {
                return Poll::Pending;
            }
            self.waiting.store(waiting - taken, Ordering::Relaxed);
            meta.iter_mut().for_each(|meta| meta.len = self.bytes);
            Poll::Ready(Ok(taken))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok((Ipv4Addr::LOCALHOST, 1).into())
        }

        fn max_transmit_segments(&self) -> usize {
            MOST
        }

        fn max_receive_segments(&self) -> usize {
            64
        }
    }

    impl UdpPoller for Sink {
        fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// One turn with so many packets: how many of them might have left together.
    fn turn(together: &mut Together, socket: &Socket, packets: usize) -> usize {
        let destination = socket.local_addr().unwrap();
        together.run(|| {
            for _ in 0..packets {
                let transmit = Transmit {
                    destination,
                    ecn: None,
                    contents: b"packet",
                    segment_size: None,
                    src_ip: None,
                };
                socket.try_send(&transmit).unwrap();
            }
            socket.max_transmit_segments()
        })
    }

    #[test]
    fn packets_leave_together_once_there_are_many() {
        let (socket, _) = socket(0);
        let (mut quiet, mut busy) = (Together::default(), Together::default());
        for _ in 0..2 * BUSY {
            assert_eq!(turn(&mut quiet, &socket, 1), 1, "a word at a time");
        }
        for _ in 0..BUSY / 2 {
            assert_eq!(turn(&mut busy, &socket, 2), 1);
        }
        assert_eq!(turn(&mut busy, &socket, 2), MOST);
        assert_eq!(turn(&mut quiet, &socket, 2), 1, "each for itself");
        assert_eq!(socket.max_transmit_segments(), MOST, "who is no driver");
    }

    /// So many come at once, and all are taken: how many each time, of room for 32.
    fn taken((socket, waiting): &(Socket, Arc<AtomicUsize>), datagrams: usize) -> Vec<usize> {
        let mut rooms = [[0u8; 1]; 32];
        let mut bufs: Vec<_> = rooms.iter_mut().map(|room| IoSliceMut::new(room)).collect();
        let mut meta = [RecvMeta::default(); 32];
        let mut cx = Context::from_waker(Waker::noop());
        waiting.store(datagrams, Ordering::Relaxed);
        let mut taken = Vec::new();
        while let Poll::Ready(count) = socket.poll_recv(&mut cx, &mut bufs, &mut meta) {
            taken.push(count.unwrap());
        }
        taken
    }

    #[test]
    fn twice_as_many_datagrams_are_taken_at_once_whenever_there_are_many() {
        let (quiet, twice, flow) = (socket(50), socket(50), socket(JOINED / 2));
        for _ in 0..2 * CROWDED {
            assert_eq!(taken(&quiet, 1), [1]);
            assert_eq!(taken(&twice, FEW), [FEW], "no more than there are");
        }
        for one in [&quiet, &twice] {
            assert_eq!(taken(one, 3), [2, 1], "each for itself");
        }
        let all = taken(&flow, 10 * CROWDED);
        assert!(all.iter().all(|count| *count == FEW), "large ones");
        for bytes in [50, JOINED / 2 - 1] {
            let all = taken(&socket(bytes), 100 * CROWDED);
            let (_, before) = all.split_last().unwrap();
            assert!(before.is_sorted(), "{all:?}");
            assert_eq!(before.last(), Some(&32));
            let times = |most| before.iter().filter(|count| **count == most).count();
            // The first comes after nothing.
            assert_eq!(
                [2, 4, 8, 16].map(times),
                [CROWDED + 1, CROWDED, CROWDED, CROWDED]
            );
        }
    }

    #[test]
    fn there_is_room_for_what_may_come_together_and_no_more() {
        let (socket, _) = socket(0);
        let largest = EndpointConfig::default();
        let largest = tuning::endpoint(largest).get_max_udp_payload_size();
        let room = socket.max_receive_segments() * usize::try_from(largest).unwrap();
        assert!((65_535..65_535 * 5 / 4).contains(&room), "{room}");
    }
}
