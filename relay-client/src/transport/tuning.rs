//! QUIC's parameters at either end, and the UDP socket below.

use std::{io, net::SocketAddr, net::UdpSocket, time::Duration};

use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{closing, windows};

/// The client asks for a sign of life after this much silence …
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// … and either end gives a connection up after this much.
pub(super) const IDLE: Duration = Duration::from_secs(15);
/// Bytes on the way and not acknowledged, all streams of a connection together.
const SEND_WINDOW: u64 = 16 * 1024 * 1024;
/// Kernel buffer of the socket, each way; the kernel gives what it allows (`net.core.rmem_max`, `wmem_max`).
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Largest UDP payload that is looked for (RFC 8899) and taken: jumbo frames and loopback have room for more than Ethernet. quinn
/// gives the kernel ten packets at once, which must fit into one datagram of 65,507 bytes.
const PACKET: u16 = 6_528;
/// What the kernel has joined is one datagram, of so many bytes at most.
pub(super) const JOINED: usize = 65_535;
/// So many of the largest packets are as much. quinn would have room for 64 of them, 32 times: 13 MiB for each socket, and a client has
/// one for each connection.
pub(super) const RECEIVED_TOGETHER: usize = JOINED.div_ceil(PACKET as usize);
/// The peer acknowledges at least every so many packets; every second is more than bulk needs, and costs at both ends.
const ACKNOWLEDGE_EVERY: u32 = 8;
/// … and waits no longer than this with fewer.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(10);

/// What either end's socket takes.
pub fn endpoint(mut config: EndpointConfig) -> EndpointConfig {
    // It is refused below 1,200 only.
    let _ = config.max_udp_payload_size(PACKET);
    config
}

/// Bytes that a client which has proved nothing yet may leave unread, or send out of order, all its streams together.
const UNPROVED: u32 = 8 * windows::STREAM;
/// Unidirectional streams at once: HTTP/3 has three of them, and must be allowed them by the handshake (RFC 9114 §6.2).
const UNIDIRECTIONAL: u32 = 8;
/// The gateway asks for a sign of life where the client does not: clients of HTTP/3 seldom do, and their tunnels may be
/// silent for longer than [`IDLE`].
const SERVER_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The gateway's end: takes as many streams at once on a connection as it begins with ([`Room`]) where `streams` is the limit. Windows
/// are small until [`proved`].
pub fn server(streams: u32) -> TransportConfig {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(at_first(streams)))
        .max_concurrent_uni_streams(VarInt::from_u32(UNIDIRECTIONAL))
        .receive_window(VarInt::from_u32(UNPROVED))
        .keep_alive_interval(Some(SERVER_KEEP_ALIVE));
    config
}

/// What a connection begins with, where it may have so many streams. quinn says that there is room for more only when it is more than an
/// eighth of all.
fn at_first(streams: u32) -> u32 {
    if streams / 2 < windows::AT_FIRST {
        streams
    } else {
        windows::AT_FIRST
    }
}

/// Room for streams on one connection of the gateway's: made when it is needed, since quinn keeps entries for each stream that may be
/// opened, 80 bytes or so, from before it is until the connection ends.
#[derive(Debug)]
pub struct Room {
    connection: quinn::Connection,
    streams: u32,
    whole: bool,
}

impl Room {
    /// For at most so many, as [`server`] was told.
    pub fn new(connection: &quinn::Connection, streams: u32) -> Self {
        Self {
            connection: connection.clone(),
            streams,
            whole: at_first(streams) == streams,
        }
    }

    /// So many are open. Makes room for all before what there is runs out, so that only who opens very many at once waits, for one
    /// round trip.
    pub fn taken(&mut self, open: usize) {
        if open > windows::AT_FIRST as usize / 2 {
            self.make();
        }
    }

    /// Make room for all.
    pub fn make(&mut self) {
        if !std::mem::replace(&mut self.whole, true) {
            let streams = VarInt::from_u32(self.streams);
            self.connection.set_max_concurrent_bi_streams(streams);
        }
    }
}

/// The client of this connection is known: it may have as much on the way as on HTTP/2.
pub fn proved(connection: &quinn::Connection) {
    // The same again changes nothing.
    connection.set_receive_window(VarInt::from_u32(windows::CONNECTION));
}

/// The client's end of its first connection, which carries so few streams ([`windows::LARGE_STREAMS`]) that each may have more on the
/// way to it. A stream's window is one for all streams of a connection, and must be said before it begins.
pub fn first_client() -> Client {
    let mut first = client();
    first.window = windows::LARGE_CONNECTION;
    first
        .config
        .stream_receive_window(VarInt::from_u32(windows::LARGE_STREAM))
        .receive_window(VarInt::from_u32(first.window));
    first
}

/// The client's end: takes no streams, and keeps the connection and its address mapping alive.
pub fn client() -> Client {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .keep_alive_interval(Some(KEEP_ALIVE));
    let window = windows::CONNECTION;
    Client { config, window }
}

/// How a client's end is made.
#[derive(Debug)]
pub struct Client {
    /// What quinn is told.
    pub config: TransportConfig,
    /// Bytes of all its streams together that it may have unread, which quinn's own does not tell.
    pub window: u32,
}

/// Ask the gateway for a sign of life now. quinn's own keep-alive waits until nothing has gone either way.
///
/// The window is the connection's, and stays what it is.
pub(super) fn ask(connection: &quinn::Connection, window: u32) {
    // Of all that is to be acknowledged (RFC 9000 §13.2) this is what quinn sends whenever it is told to: MAX_DATA, for a window
    // that has grown. It grows by the byte that it has shrunk by.
    for window in [window - 1, window] {
        connection.set_receive_window(VarInt::from_u32(window));
    }
}

/// Windows are those of HTTP/2 connections: a stream is bounded, and so is what all of them may leave unread.
fn common() -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET);
    let mut acknowledge = AckFrequencyConfig::default();
    acknowledge
        .ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGE_EVERY - 1))
        .max_ack_delay(Some(ACKNOWLEDGE_WITHIN));
    config
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acknowledge))
        .congestion_controller_factory(closing::controllers())
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

#[cfg(test)]
mod tests {
    use super::{at_first, windows};

    #[test]
    fn a_connection_begins_with_no_more_streams_than_it_may_have() {
        let limits = [0, 1, 100, 224, 447, 448, 1024];
        assert_eq!(limits.map(at_first), [0, 1, 100, 224, 447, 224, 224]);
    }

    #[test]
    fn a_relay_client_has_room_from_the_start() {
        let most = windows::STREAMS + windows::OFFERS;
        assert!(most < windows::AT_FIRST as usize / 2);
    }
}
