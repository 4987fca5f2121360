//! Where a connection was meant to go that the network brought here instead.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// How the network brings connections to a listener they were not meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capture {
    /// netfilter's REDIRECT or DNAT: the destination was rewritten, and connection tracking knows it (SO_ORIGINAL_DST).
    Redirect,
    /// TPROXY: the destination is the socket's own address (IP_TRANSPARENT). What was meant for the listener's own port is
    /// not told from what was captured, and is nobody's.
    Tproxy {
        /// The listener's port.
        port: u16,
    },
}

/// Where `tcp` was meant to go; `None` where nothing has captured it, so that it was meant for us.
pub fn original_destination(tcp: &TcpStream, capture: Capture) -> Option<SocketAddr> {
    let local = tcp.local_addr().ok()?;
    let original = match capture {
        Capture::Redirect => {
            let socket = SockRef::from(tcp);
            let original = match local {
                SocketAddr::V4(_) => socket.original_dst_v4(),
                SocketAddr::V6(_) => socket.original_dst_v6(),
            };
            original.ok()?.as_socket()?
        }
        Capture::Tproxy { port } => return (local.port() != port).then_some(local),
    };
    (original != local).then_some(original)
}
