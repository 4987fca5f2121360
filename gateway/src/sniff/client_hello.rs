//! An incremental reader of the first ClientHello of a connection (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).

use super::hello_watch::HelloWatch;
use super::record::{ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, Message, Records};

mod parse;
#[cfg(test)]
mod tests;

pub(super) use parse::parse;

/// Longest ClientHello body read, in bytes. Post-quantum hellos are near 2 KiB; anything above this is cut.
pub const MAX_HELLO: usize = 64 * 1024;

/// Most bytes on the wire one hello of [`MAX_HELLO`] can take: one-byte records of six bytes each. This bounds what whoever
/// feeds a [`Reader`] has to hold back per connection.
pub const MAX_HELLO_WIRE: usize = 6 * (Message::HEADER + MAX_HELLO);

/// Handshake type of a ClientHello.
pub(super) const CLIENT_HELLO: u8 = 1;

/// Level of an alert (RFC 8446 §6) that need not end the connection.
const WARNING: u8 = 1;

/// The high byte of the longest record's length (2^14 bytes and 256, RFC 8446 §5.2).
const LONGEST: u8 = 0x41;

/// What a ClientHello says in plain sight.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientHello {
    /// The server name asked for (RFC 6066 §3); `None` without the extension.
    pub sni: Option<Sni>,
    /// An encrypted_client_hello extension (0xfe0d) is there: real or GREASE, which nobody on the path can tell apart.
    pub ech: bool,
    /// An extension of one of its drafts is there.
    pub ech_draft: bool,
    /// Protocols offered (RFC 7301), in order, the first 32 of them.
    pub alpn: Vec<Box<[u8]>>,
    /// The version field of the hello itself; 0x0303 since TLS 1.2.
    pub legacy_version: u16,
    /// Versions offered in the extension (RFC 8446 §4.2.1), GREASE included; empty without the extension.
    pub supported_versions: Vec<u16>,
    /// The client means to send early data (RFC 8446 §4.2.10).
    pub early_data: bool,
}

/// A server name as it stands in the hello.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sni {
    /// Visible ASCII as sent: case and a trailing dot kept. Not yet judged as a host name, nor told from an IP literal.
    Name(String),
    /// Bytes that no name can have: empty, NUL or other controls, blanks, non-ASCII, empty labels, over 255 bytes.
    Malformed,
}

/// Why bytes that begin like TLS are not a hello to let pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    /// An SSLv2-framed hello (RFC 5246 appendix E.2), which can carry no server name.
    #[error("SSLv2 client hello")]
    SslV2,
    /// A record version other than 0x0300 to 0x0304 in something that otherwise begins like a hello.
    #[error("unknown record version")]
    RecordVersion,
    /// A record without content.
    #[error("empty record")]
    EmptyRecord,
    /// A record longer than 2^14 bytes (RFC 8446 §5.1).
    #[error("record too long")]
    RecordTooLong,
    /// An alert, a change_cipher_spec or other record before the hello or between its fragments.
    #[error("record of another type before the hello or inside it")]
    UnexpectedRecord,
    /// A handshake message other than a ClientHello where only a ClientHello may stand.
    #[error("handshake message is not a client hello")]
    NotClientHello,
    /// The announced length is over [`MAX_HELLO`].
    #[error("client hello too long")]
    TooLong,
    /// A version field below SSL 3.0 inside the hello.
    #[error("unknown hello version")]
    HelloVersion,
    /// A field that ends beyond its container, is of an impossible length, or leaves bytes over.
    #[error("malformed field: {0}")]
    Field(&'static str),
    /// An extension that may occur once occurs twice.
    #[error("repeated extension: {0}")]
    Repeated(&'static str),
    /// Two names of type host_name (RFC 6066 §3 forbids them).
    #[error("two host names in server_name")]
    TwoNames,
}

/// What the bytes fed so far are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// A hello so far; not all of it.
    NeedMore,
    /// A whole ClientHello.
    Hello(ClientHello),
    /// Not TLS, whatever follows.
    NotTls,
    /// TLS, or meant to be taken for it, and not to be let pass.
    Malformed(HelloError),
}

/// Reads the first ClientHello, fed in any segmentation.
///
/// Invariants: a verdict depends on the bytes alone, never on how they were cut, and falls at the first byte that proves it;
/// memory is bounded by [`MAX_HELLO`] and grows with bytes received, never with lengths announced. The bytes themselves are
/// held by the caller: at most [`MAX_HELLO_WIRE`] and the rest of the last chunk.
#[derive(Clone, Debug)]
pub struct Reader {
    stage: Stage,
    consumed: usize,
}

#[derive(Clone, Debug)]
enum Stage {
    Opening { prefix: [u8; 6], seen: usize },
    Message { records: Records, message: Message },
    Decided { records: Records, verdict: Verdict },
}

enum Opening {
    Undecided,
    Tls,
    NotTls,
    Malformed(HelloError),
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// A reader at the first byte of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Opening {
                prefix: [0; 6],
                seen: 0,
            },
            consumed: 0,
        }
    }

    /// Take the next bytes, each once. After a verdict other than `NeedMore` nothing is read and the verdict stays.
    pub fn feed(&mut self, chunk: &[u8]) -> Verdict {
        let mut input = chunk;
        loop {
            match &mut self.stage {
                Stage::Decided { verdict, .. } => return verdict.clone(),
                Stage::Opening { .. } => {
                    let Some((&byte, rest)) = input.split_first() else {
                        return Verdict::NeedMore;
                    };
                    input = rest;
                    self.consumed += 1;
                    self.open(byte);
                }
                Stage::Message { records, message } => {
                    let before = input.len();
                    let step = assemble(records, message, &mut input);
                    self.consumed += before - input.len();
                    let verdict = match step {
                        Ok(false) => return Verdict::NeedMore,
                        Ok(true) => {
                            parse(message.body()).map_or_else(Verdict::Malformed, Verdict::Hello)
                        }
                        Err(error) => Verdict::Malformed(error),
                    };
                    let records = std::mem::take(records);
                    self.stage = Stage::Decided { records, verdict };
                }
            }
        }
    }

    /// How many of the bytes fed were read: after `Hello`, where the hello ended in the stream.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// After `Hello`: follow the connection on, for a second hello. The bytes fed beyond [`Reader::consumed`] are the first
    /// to be given to [`HelloWatch::from_client`]. After any other verdict the watch is over at once.
    #[must_use]
    pub fn into_watch(self) -> HelloWatch {
        match self.stage {
            Stage::Decided {
                records,
                verdict: Verdict::Hello(_),
            } => HelloWatch::after(records),
            Stage::Decided { .. } | Stage::Opening { .. } | Stage::Message { .. } => {
                HelloWatch::over()
            }
        }
    }

    fn open(&mut self, byte: u8) {
        let Stage::Opening { prefix, seen } = &mut self.stage else {
            return;
        };
        if let Some(slot) = prefix.get_mut(*seen) {
            *slot = byte;
        }
        *seen += 1;
        let mut start = prefix.get(..*seen).unwrap_or_default();
        let mut records = Records::default();
        let verdict = match classify(start) {
            Opening::Undecided => return,
            Opening::NotTls => Verdict::NotTls,
            Opening::Malformed(error) => Verdict::Malformed(error),
            // Only header bytes yet: nothing comes out, and the versions were judged.
            Opening::Tls => match records.next(&mut start, 0) {
                Ok(_) => {
                    self.stage = Stage::Message {
                        records,
                        message: Message::default(),
                    };
                    return;
                }
                Err(error) => Verdict::Malformed(error),
            },
        };
        self.stage = Stage::Decided { records, verdict };
    }
}

/// What the first bytes can still become.
///
/// Whatever a common server would read as the beginning of TLS is never called "not TLS" here, where an `auto` rule would let it pass
/// unjudged; but no more than that, as lengths at the head of other protocols' messages begin alike. What may stand before the first
/// bytes of a hello, and how:
///
/// - A handshake record with the type of a ClientHello. OpenSSL looks at the major version of it alone; Go takes any below 0x1000, GnuTLS any up to 3.x.
/// - A warning alert (level 1), passed over by BoringSSL, Go, rustls and GnuTLS. It is of two bytes, but for GnuTLS; OpenSSL before 1.1.1 puts
///   alerts together from records of any length, empty ones included. Go takes other versions here, too. An alert of another level
///   ends the connection.
/// - A change_cipher_spec record that is empty, which OpenSSL passes over; or that is one, for a server that keeps no state between two
///   hellos (`SSL_stateless`) and takes it for one before the second (RFC 8446 §5).
///
/// Nobody takes application data or a heartbeat there.
fn classify(prefix: &[u8]) -> Opening {
    match prefix {
        [HANDSHAKE, 3, ..] => Opening::Tls,
        [HANDSHAKE, 0..=0x0f, _, 0..=LONGEST, _, CLIENT_HELLO] => {
            Opening::Malformed(HelloError::RecordVersion)
        }
        [ALERT, 3, _, 0..=LONGEST, _, WARNING]
        | [ALERT, 0..=0x0f, _, 0, 2, WARNING]
        | [CHANGE_CIPHER_SPEC, 3, _, 0, 1, 1]
        // Empty, and another record behind it.
        | [CHANGE_CIPHER_SPEC | ALERT, 3, _, 0, 0, CHANGE_CIPHER_SPEC..=HANDSHAKE] => {
            Opening::Malformed(HelloError::UnexpectedRecord)
        }
        // RFC 5246 appendix E.2: two-byte length with the high bit set, type 1, version 2.0 or 3.x, whatever x is.
        [0x80..=0xff, _, 1, 0, 2] | [0x80..=0xff, _, 1, 3, _] => {
            Opening::Malformed(HelloError::SslV2)
        }
        []
        | [CHANGE_CIPHER_SPEC..=HANDSHAKE]
        | [ALERT | HANDSHAKE, 0..=0x0f]
        | [ALERT | HANDSHAKE, 0..=0x0f, _]
        | [HANDSHAKE, 0..=0x0f, _, 0..=LONGEST]
        | [HANDSHAKE, 0..=0x0f, _, 0..=LONGEST, _]
        | [ALERT, 3, _, 0..=LONGEST]
        | [ALERT, 3, _, 0..=LONGEST, _]
        | [ALERT, 0..=0x0f, _, 0]
        | [ALERT, 0..=0x0f, _, 0, 2]
        | [CHANGE_CIPHER_SPEC, 3]
        | [CHANGE_CIPHER_SPEC, 3, _]
        | [CHANGE_CIPHER_SPEC, 3, _, 0]
        | [CHANGE_CIPHER_SPEC, 3, _, 0, 0 | 1]
        | [0x80..=0xff]
        | [0x80..=0xff, _]
        | [0x80..=0xff, _, 1]
        | [0x80..=0xff, _, 1, 0 | 3] => Opening::Undecided,
        _ => Opening::NotTls,
    }
}

/// Read on until the hello is whole (`true`) or the input is used up.
fn assemble(
    records: &mut Records,
    message: &mut Message,
    input: &mut &[u8],
) -> Result<bool, HelloError> {
    loop {
        let wanted = message.wanted()?;
        if wanted == 0 {
            return Ok(true);
        }
        let Some((kind, fragment)) = records.next(input, wanted)? else {
            return Ok(false);
        };
        if kind != HANDSHAKE {
            return Err(HelloError::UnexpectedRecord);
        }
        message.push(fragment);
        if message.kind() != Some(CLIENT_HELLO) {
            return Err(HelloError::NotClientHello);
        }
    }
}
