//! A SOCKS5 client that sends exactly what it is told to.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::wire::Wire;

/// One connection to a SOCKS5 listener.
pub struct Socks<S = TcpStream> {
    /// The connection; after a reply of 0 it is the tunnel.
    pub wire: Wire<S>,
    handle: String,
}

/// User name and password are offered (RFC 1928 §3).
pub const GREETING: [u8; 3] = [5, 1, 2];

/// RFC 1929 §2.
pub fn login(name: &str, password: &str) -> Vec<u8> {
    let counted = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![1], counted(name), counted(password)].concat()
}

/// CONNECT to a name, whatever bytes it is; `None` where they are too many to be sent.
pub fn by_name(host: &[u8], port: u16) -> Option<Vec<u8>> {
    let length = u8::try_from(host.len()).ok()?;
    Some([&[5, 1, 0, 3, length], host, &port.to_be_bytes()].concat())
}

/// CONNECT to an address.
pub fn by_address(address: IpAddr, port: u16) -> Vec<u8> {
    let (kind, octets) = match address {
        IpAddr::V4(v4) => (1, v4.octets().to_vec()),
        IpAddr::V6(v6) => (4, v6.octets().to_vec()),
    };
    [&[5, 1, 0, kind][..], &octets, &port.to_be_bytes()].concat()
}

/// CONNECT to what an authority says, as far as this protocol can say it: a literal as an address, anything else as a name.
/// The port has two bytes here, so one in another spelling cannot be said; nor is an IPv6 address without brackets a name.
pub fn request(authority: &[u8]) -> Option<Vec<u8>> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let port = std::str::from_utf8(port).ok()?;
    let number: u16 = port.parse().ok()?;
    if number.to_string() != port {
        return None;
    }
    let text = std::str::from_utf8(host).unwrap_or_default();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let literal = bare.map_or_else(
        || text.parse().ok().filter(IpAddr::is_ipv4),
        |inner| inner.parse().ok().filter(IpAddr::is_ipv6),
    );
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return None;
    }
    match literal {
        Some(address) => Some(by_address(address, number)),
        None => by_name(host, number),
    }
}

impl Socks {
    /// Dials `address` for this handle.
    pub async fn dial(address: SocketAddr, handle: &str) -> Self {
        Self::over(Wire::dial(address).await, handle)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socks<S> {
    /// On a connection that is open.
    pub fn over(wire: Wire<S>, handle: &str) -> Self {
        Self {
            wire,
            handle: handle.to_owned(),
        }
    }

    /// Greets and logs in; the status.
    pub async fn login(&mut self) -> u8 {
        self.wire.send(GREETING).await;
        assert_eq!(self.wire.take(2).await, [5, 2]);
        self.wire.send(login("sluicegate", &self.handle)).await;
        let answer = self.wire.take(2).await;
        assert_eq!(answer[0], 1);
        answer[1]
    }

    /// Greets, logs in and asks for `host:port`; the reply's code.
    pub async fn ask(&mut self, target: &str) -> u8 {
        assert_eq!(self.login().await, 0);
        self.request(&request(target.as_bytes()).unwrap()).await
    }

    /// Sends a request as it is; the reply's code.
    pub async fn request(&mut self, bytes: &[u8]) -> u8 {
        self.wire.send(bytes).await;
        self.reply().await
    }

    /// A reply's code (RFC 1928 §6).
    pub async fn reply(&mut self) -> u8 {
        let answer = self.wire.take(10).await;
        assert_eq!(answer[..1], [5], "{answer:?}");
        assert_eq!(answer[2..], [0, 1, 0, 0, 0, 0, 0, 0], "{answer:?}");
        answer[1]
    }
}
