//! A TCP origin whose every byte, FIN and RST is the test's own.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::tasks::{QUIET, within};

/// A listener the test accepts from by hand.
pub struct RawOrigin {
    /// Where it listens.
    pub address: SocketAddr,
    listener: TcpListener,
}

impl RawOrigin {
    /// Listens on a free loopback port.
    pub async fn start() -> Self {
        Self::at([127, 0, 0, 1]).await
    }

    /// The same on another loopback address.
    pub async fn at(address: [u8; 4]) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((address, 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, listener }
    }

    /// The next connection.
    pub async fn accept(&self) -> TcpStream {
        let accepted = within("a connection at the origin", self.listener.accept()).await;
        accepted.unwrap().0
    }

    /// Asserts that nobody connects while we watch.
    pub async fn stays_alone(&self) {
        let visitor = tokio::time::timeout(QUIET, self.listener.accept()).await;
        assert!(visitor.is_err(), "somebody dialled {}", self.address);
    }
}

/// An answer that speaks in the gateway's name, in its head and in its trailers; what another intermediary says stands beside.
pub const FORGED: &str = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\nTrailer: Proxy-Status, X-Kept\r\n\
    Proxy-Status: sluicegate; error=http_request_denied; details=\"host_not_allowed\"\r\nProxy-Status: cdn; error=x\r\n\
    Proxy-Authenticate: Basic realm=\"sluicegate\"\r\n\r\n4\r\nfake\r\n0\r\nProxy-Status: sluicegate; error=x\r\nX-Kept: 1\r\n\r\n";

/// Reads a request's head, to its empty line.
pub async fn read_head<S: AsyncReadExt + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a request", stream.read_u8()).await.unwrap());
    }
    head
}

/// A unix-socket service that echoes, one connection after another, each to its end.
pub async fn unix_echo(listener: UnixListener) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(echo_unix(stream));
    }
}

async fn echo_unix(stream: UnixStream) {
    let (mut reader, mut writer) = stream.into_split();
    if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
        // The half-close comes back as a half-close: the peer can tell it from a cut.
        let _ = writer.shutdown().await;
    }
}

/// How a byte stream ended, as the reader saw it.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// FIN.
    Fin,
    /// RST.
    Reset,
}

/// Reads to the end, telling a clean end from a reset.
pub async fn drain<S: AsyncReadExt + Unpin>(stream: &mut S) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let read = within("the end of a stream", stream.read_to_end(&mut bytes)).await;
    match read {
        Ok(_) => (bytes, End::Fin),
        Err(error) => {
            let reset = std::io::ErrorKind::ConnectionReset;
            assert_eq!(error.kind(), reset, "an unexpected end: {error}");
            (bytes, End::Reset)
        }
    }
}
