//! How many packets a connection gives the kernel at once.
//!
//! quinn makes room for as many packets as may leave together as soon as there are two, 70 KiB where packets are large, and has it to the
//! connection's end. So those of a connection leave one by one until it is known to carry more than a few words.

use std::{
    cell::Cell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::super::tuning::RECEIVED_TOGETHER;

/// A driver that has sent so many packets in turns with more than one of them goes on to send them together. What would have been
/// saved before is a system call for each.
const BUSY: usize = 64;

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
pub(super) struct Socket(Arc<dyn AsyncUdpSocket>);

impl Socket {
    /// Over this one.
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Self {
        Self(socket)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.0.try_send(transmit)?;
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
        let count = ready!(self.0.poll_recv(cx, bufs, meta))?;
        super::moved(meta.iter().take(count).map(|meta| meta.len).sum());
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments().min(TURN.get().most)
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments().min(RECEIVED_TOGETHER)
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::{self, IoSliceMut},
        net::{Ipv4Addr, SocketAddr},
        pin::Pin,
        sync::Arc,
        task::{Context, Poll},
    };

    use quinn::{
        AsyncUdpSocket, EndpointConfig, UdpPoller,
        udp::{RecvMeta, Transmit},
    };

    use super::{super::super::tuning, BUSY, Socket, Together};

    /// So many packets may leave it together.
    const MOST: usize = 10;

    /// Takes everything.
    #[derive(Debug)]
    struct Sink;

    impl AsyncUdpSocket for Sink {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(Self)
        }

        fn try_send(&self, _transmit: &Transmit<'_>) -> io::Result<()> {
            Ok(())
        }

        fn poll_recv(
            &self,
            _cx: &mut Context<'_>,
            _bufs: &mut [IoSliceMut<'_>],
            _meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
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
        let socket = Socket::new(Arc::new(Sink));
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

    #[test]
    fn there_is_room_for_what_may_come_together_and_no_more() {
        let socket = Socket::new(Arc::new(Sink));
        let largest = EndpointConfig::default();
        let largest = tuning::endpoint(largest).get_max_udp_payload_size();
        let room = socket.max_receive_segments() * usize::try_from(largest).unwrap();
        assert!((65_535..65_535 * 5 / 4).contains(&room), "{room}");
    }
}
