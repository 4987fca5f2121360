//! Error codes (RFC 9114 §8.1, RFC 9204 §6).

/// Why a stream or a connection is ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Code {
    /// No error: there is nothing more to say.
    NoError = 0x100,
    /// The peer broke the protocol in a way that has no other name.
    GeneralProtocol = 0x101,
    /// Something of ours went wrong.
    Internal = 0x102,
    /// A stream that may not be.
    StreamCreation = 0x103,
    /// A stream that must live as long as the connection has ended.
    ClosedCriticalStream = 0x104,
    /// A frame that may not stand there.
    FrameUnexpected = 0x105,
    /// A frame that is not laid out as it must be.
    Frame = 0x106,
    /// The peer does what costs us more than it is worth.
    ExcessiveLoad = 0x107,
    /// A setting that may not be.
    Settings = 0x109,
    /// No SETTINGS at the start of the control stream.
    MissingSettings = 0x10a,
    /// The request was not looked at.
    RequestRejected = 0x10b,
    /// The request or its answer is given up.
    RequestCancelled = 0x10c,
    /// The request's bytes are not a request.
    Message = 0x10e,
    /// The connection of a CONNECT was reset or closed abnormally (RFC 9114 §4.4).
    Connect = 0x10f,
    /// A field section that cannot be decoded.
    DecompressionFailed = 0x200,
    /// What the peer wrote on its encoder stream.
    EncoderStream = 0x201,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> u32 {
        self as u32
    }
}
