//! A proxy client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::raw::End;
use crate::tasks::{QUIET, timed, within};

/// A stream and the bytes read from it that nobody has asked for yet.
pub struct Wire<S = TcpStream> {
    /// The stream itself, for `shutdown` and socket options.
    pub stream: S,
    buffer: BytesMut,
}

/// A response head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

/// A response with its body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The head.
    pub head: Head,
    /// The body, chunked coding undone.
    pub body: Vec<u8>,
}

impl Head {
    /// The first value of `name`, empty where absent.
    pub fn value(&self, name: &str) -> &str {
        let field = self.headers.iter().find(|(field, _)| field == name);
        field.map_or("", |(_, value)| value)
    }
}

impl Reply {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

impl Wire {
    /// Dials `address`.
    pub async fn dial(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|error| panic!("dial {address}: {error}"));
        // It fails on a connection that was reset meanwhile, which is for the test to find.
        let _ = stream.set_nodelay(true);
        Self::over(stream)
    }

    /// Dials `address`, where the connection is taken and then cut: maybe before we know that it was taken.
    pub async fn refused(address: SocketAddr) {
        match within("a connection", TcpStream::connect(address)).await {
            Ok(stream) => drop(Self::over(stream).cut().await),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("dial {address}: {error}"),
        }
    }

    /// Our end's address.
    pub fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Closes with RST instead of FIN.
    pub fn abort(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps an open stream.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The same stream as another type.
    pub fn map<T>(self, to: impl FnOnce(S) -> T) -> Wire<T> {
        Wire {
            stream: to(self.stream),
            buffer: self.buffer,
        }
    }

    /// The stream, and what was read from it that nobody has asked for yet.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.buffer.freeze())
    }

    /// TLS inside this stream, verified for `name`.
    pub async fn tls(self, config: Arc<ClientConfig>, name: &str) -> Wire<TlsStream<S>> {
        let tls = self.try_tls(config, name).await;
        tls.unwrap_or_else(|error| panic!("TLS with {name}: {error}"))
    }

    /// As [`Wire::tls`], for handshakes that are meant to fail.
    ///
    /// # Errors
    /// The handshake's.
    pub async fn try_tls(
        self,
        config: Arc<ClientConfig>,
        name: &str,
    ) -> std::io::Result<Wire<TlsStream<S>>> {
        assert!(
            self.buffer.is_empty(),
            "bytes before TLS: {:?}",
            self.buffer
        );
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = TlsConnector::from(config).connect(name, self.stream);
        Ok(Wire::over(within("a TLS handshake", connect).await?))
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("room to send", self.stream.write_all(bytes.as_ref())).await;
        sent.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Ends our direction; the other one stays open.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn more(&mut self) -> std::io::Result<usize> {
        let read = self.stream.read_buf(&mut self.buffer);
        within("more bytes", read).await
    }

    async fn must_read(&mut self, what: &str) {
        let read = self.more().await.unwrap_or_else(|error| {
            panic!("{error} while waiting for {what}; so far {:?}", self.buffer)
        });
        assert!(
            read > 0,
            "end while waiting for {what}; so far {:?}",
            self.buffer
        );
    }

    /// Everything up to and including `mark`.
    pub async fn through(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            let found = self
                .buffer
                .windows(mark.len())
                .position(|part| part == mark);
            if let Some(at) = found {
                return self.buffer.split_to(at + mark.len()).to_vec();
            }
            self.must_read(&String::from_utf8_lossy(mark)).await;
        }
    }

    /// Exactly `count` bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.must_read(&format!("{count} bytes")).await;
        }
        self.buffer.split_to(count).to_vec()
    }

    /// The next byte, left where it is.
    pub async fn next(&mut self) -> u8 {
        while self.buffer.is_empty() {
            self.must_read("a byte").await;
        }
        self.buffer[0]
    }

    /// The next byte; None at the end, however it comes.
    pub async fn maybe_next(&mut self) -> Option<u8> {
        if self.buffer.is_empty() && !matches!(self.more().await, Ok(read) if read > 0) {
            return None;
        }
        Some(self.buffer.get_u8())
    }

    /// A response head.
    pub async fn head(&mut self) -> Head {
        let raw = self.through(b"\r\n\r\n").await;
        let text = String::from_utf8(raw).unwrap();
        let mut lines = text.split("\r\n").filter(|line| !line.is_empty());
        let first = lines.next().unwrap();
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Head {
            status: status.unwrap_or_else(|| panic!("not a status line: {first}")),
            headers: headers.collect(),
        }
    }

    /// A whole response, its body framed as its head says.
    pub async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let body = if head.value("transfer-encoding").contains("chunked") {
            self.chunks().await
        } else if let Ok(length) = head.value("content-length").parse() {
            self.take(length).await
        } else if head.status == 204 || head.status == 304 || head.status < 200 {
            Vec::new()
        } else {
            self.rest().await.0
        };
        Reply { head, body }
    }

    /// A chunked body without its trailers.
    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await {
            body.extend(chunk);
        }
        loop {
            if self.through(b"\r\n").await == b"\r\n" {
                return body;
            }
        }
    }

    /// One chunk; None is the last one, its trailer section still unread.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.through(b"\r\n").await;
        let size = String::from_utf8(line).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return None;
        }
        let chunk = self.take(size).await;
        assert_eq!(self.take(2).await, b"\r\n");
        Some(chunk)
    }

    /// Reads to the end, telling FIN from RST.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            match self.more().await {
                Ok(0) => return (self.buffer.split().to_vec(), End::Fin),
                Ok(_) => {}
                Err(error) => {
                    let kind = error.kind();
                    assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{error}");
                    return (self.buffer.split().to_vec(), End::Reset);
                }
            }
        }
    }

    /// Waits for the end, however it comes, and answers how long that took ([`timed`]).
    pub async fn cut(&mut self) -> std::time::Duration {
        let ended = async {
            loop {
                let read = self.stream.read_buf(&mut self.buffer);
                match within("the stream is cut", read).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => self.buffer.advance(read),
                }
            }
        };
        timed(ended).await.1
    }

    /// Asserts that nothing arrives and nothing ends while we watch.
    pub async fn stays_quiet(&mut self) {
        assert!(self.buffer.is_empty(), "unread: {:?}", self.buffer);
        let read = tokio::time::timeout(QUIET, self.stream.read_buf(&mut self.buffer)).await;
        assert!(read.is_err(), "{read:?}, {:?}", self.buffer);
    }
}
