//! Why a stream or a connection of ours is ended early, on QUIC.

/// Application error codes of RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE. HTTP/3's numbers (RFC 9114 §8.1) where it
/// has the same reason, so that a packet capture reads the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorCode {
    /// A connection: nothing is left on it. The gateway's reason is how many streams it took, a QUIC integer: those opened
    /// behind them were never seen.
    Done,
    /// A connection: cut, whatever is open on it.
    Forced,
    /// A connection: the peer broke the protocol.
    Protocol,
    /// A connection: the gateway is at its limit.
    Overloaded,
    /// A stream: refused; the reason is in the response. Without a response, it was not processed.
    Refused,
    /// A stream: given up by the one who opened it, before or after its answer.
    Cancelled,
    /// A stream: its head is not one.
    Malformed,
    /// A stream: the TCP connection it stands for was reset, or the gateway cut it.
    Connect,
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Done => 0x100,
            Self::Forced => 0x102,
            Self::Protocol => 0x101,
            Self::Overloaded => 0x107,
            Self::Refused => 0x10b,
            Self::Cancelled => 0x10c,
            Self::Malformed => 0x10e,
            Self::Connect => 0x10f,
        }
    }
}
