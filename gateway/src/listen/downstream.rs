//! What a client speaks through: a connection, with or without TLS, or one stream of a connection.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
};

use sluicegate_certs::Channel;
use sluicegate_relay::flow::{Ahead, Flow, FlowIo, SocketFlow, TlsFlow};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

/// A client's connection, or its stream.
#[derive(Debug)]
pub enum Downstream {
    /// Plaintext.
    Plain(TcpStream),
    /// TLS, terminated here.
    Tls(Box<TlsStream<Ahead>>),
    /// One stream: HTTP/2, capsules.
    Stream(Box<FlowIo>),
}

/// The same socket once more. While it lives, the connection's close says nothing.
#[derive(Debug)]
pub struct Hangup(TcpStream);

impl Hangup {
    /// Completes when something comes, be it an end: it was to be silent.
    pub async fn heard(self) {
        // In error it is gone as well.
        let _ = self.0.readable().await;
    }
}

impl Downstream {
    /// A stream that was accepted.
    pub fn stream(flow: impl Flow + 'static) -> Self {
        Self::Stream(Box::new(FlowIo::new(flow)))
    }

    /// Reset it: what is dropped after this ends in RST, or as its carrier says it.
    pub fn reset(&mut self) {
        // SO_LINGER with zero seconds: close sends RST. It fails only on a socket that is gone already.
        match self {
            Self::Plain(tcp) => drop(tcp.set_zero_linger()),
            Self::Tls(tls) => tls.get_ref().0.close_resets(),
            Self::Stream(stream) => stream.reset(),
        }
    }

    /// The connection as a flow, for what is carried on it from now on. `None` for a stream, which carries nothing else.
    pub fn into_flow(self) -> Option<Box<dyn Flow>> {
        match self {
            Self::Plain(tcp) => Some(Box::new(SocketFlow::new(tcp))),
            Self::Tls(tls) => Some(Box::new(TlsFlow::new(*tls))),
            Self::Stream(_) => None,
        }
    }

    /// To be told when the client of a connection goes that has nothing to say. `None` for a stream, which tells by
    /// itself, and where the system has no descriptor left.
    pub fn hangup(&self) -> Option<Hangup> {
        let socket = match self {
            Self::Plain(tcp) => tcp.as_fd().try_clone_to_owned(),
            Self::Tls(tls) => tls.get_ref().0.as_fd().try_clone_to_owned(),
            Self::Stream(_) => return None,
        };
        let socket = TcpStream::from_std(socket.ok()?.into()).ok()?;
        Some(Hangup(socket))
    }

    /// What the two ends of this connection share, where it is TLS.
    pub fn channel(&self) -> Option<Channel> {
        match self {
            Self::Tls(tls) => Channel::of(tls.get_ref().1),
            Self::Plain(_) | Self::Stream(_) => None,
        }
    }

    /// The protocol agreed by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Stream(_) => None,
        }
    }
}

impl AsyncRead for Downstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Downstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Stream(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
