//! QUIC's parameters at either end, and the UDP socket below.

use std::{io, net::SocketAddr, net::UdpSocket, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::windows;

/// The client asks for a sign of life after this much silence …
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// … and either end gives a connection up after this much.
const IDLE: Duration = Duration::from_secs(15);
/// Bytes on the way and not acknowledged, all streams of a connection together.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// Kernel buffer of the socket, each way; the kernel gives what it allows (`net.core.rmem_max`, `wmem_max`).
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// The gateway's end: takes this many streams at once on a connection.
pub fn server(streams: u32) -> TransportConfig {
    let mut config = common();
    config.max_concurrent_bidi_streams(VarInt::from_u32(streams));
    config
}

/// The client's end: takes no streams, and keeps the connection and its address mapping alive.
pub fn client() -> TransportConfig {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(KEEP_ALIVE));
    config
}

/// Windows are those of HTTP/2 connections: a stream is bounded, and so is what all of them may leave unread.
fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(windows::STREAM))
        // quinn's default is no bound at all.
        .receive_window(VarInt::from_u32(windows::CONNECTION))
        .send_window(SEND_WINDOW)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    config
}

/// A bound UDP socket with buffers that hold a burst. An IPv6 address takes IPv6 only.
///
/// # Errors
/// The address is taken, not ours, or not permitted.
pub fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Smaller ones cost speed, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
