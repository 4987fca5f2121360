//! What stands before the bytes of a stream on [`crate::ALPN_RELAY`]: the opener's request and the gateway's response.
//!
//! ```text
//! Request  { Version (8) = 1, Purpose (8), Length (i), Field (..) ... }     ≤ 16 KiB of fields
//! Response { Verdict (8), Length (i), Field (..) ... }                      ≤ 16 KiB of fields
//! Field    { Type (i), Length (i), Value (..) }                             (i): a QUIC integer, RFC 9000 §16
//! ```
//! A field of unknown type is passed over, one that stands twice or is missing makes the whole malformed. After the request
//! the opener's bytes may follow at once; after an acceptance, the service's. On an accept stream the opener's follow the
//! acceptance, and where that asks for it a [`Message::Taken`](crate::message::Message::Taken) stands before them. FIN,
//! RESET_STREAM and STOP_SENDING are QUIC's own, each direction by itself.

use crate::{Handshake, Instance, Once, varint};

/// The version of requests. A peer that reads another one refuses the stream and says so.
pub const VERSION: u8 = 1;
/// Bytes of fields at most, in a request and in a response.
pub const FIELDS_MAX: usize = 16 * 1024;
/// Bytes of a whole head at most.
pub const HEAD_MAX: usize = 2 + 8 + FIELDS_MAX;

const TOKEN: u64 = 0;
const SERVICE: u64 = 1;
const HOST: u64 = 2;
const PORT: u64 = 3;
const LISTENER: u64 = 4;
const NAME: u64 = 5;
const ONCE: u64 = 6;
const SAYS_TAKEN: u64 = 7;
const STATUS: u64 = 0;
const BODY: u64 = 1;
const SAID: u64 = 2;
const INSTANCE: u64 = 3;
const SAY_TAKEN: u64 = 4;
/// The largest number of a purpose.
const LAST: u8 = 5;

/// What a stream is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The connection's own affairs: [`crate::message`]s follow. One per connection.
    Control,
    /// A stream for a program: to a host service, out to a target, or an accept stream of a listener.
    Open(Handshake),
    /// A fresh token for this one: its JSON follows the acceptance, then FIN.
    Refresh,
    /// May a name be reached, on any port? The answer is the verdict; the credential is the one for the way out.
    Name {
        /// The name.
        name: String,
    },
}

/// The head of a stream, from the one who opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What for.
    pub purpose: Purpose,
    /// The credential. Every stream shows its own: authority is per stream.
    pub token: String,
    /// Which open it is, where it must not happen twice.
    pub once: Option<Once>,
    /// Of an accept stream: the client says when it has the dial, if the acceptance asks for that.
    pub says_taken: bool,
}

/// Without the credential.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("purpose", &self.purpose)
            .field("once", &self.once)
            .field("says_taken", &self.says_taken)
            .finish_non_exhaustive()
    }
}

/// The gateway's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// Open: what follows are the service's bytes.
    Accepted {
        /// Who says so, on the control stream: it remembers which opens it has taken.
        instance: Option<Instance>,
        /// Of an accept stream whose client offers that: it is to say that it has the dial, before anything else.
        say_taken: bool,
    },
    /// Not open; nothing follows.
    Refused {
        /// The HTTP status of the same refusal elsewhere.
        status: u16,
        /// The JSON body of the same refusal elsewhere.
        body: Vec<u8>,
        /// Its fields that matter to whoever passes it on, as `name: value` lines.
        said: Vec<u8>,
    },
}

/// Why bytes are not a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PreambleError {
    /// Another version.
    #[error("version {0} is not spoken here")]
    Version(u8),
    /// No such purpose or verdict.
    #[error("unknown purpose or verdict {0}")]
    Kind(u8),
    /// The fields are longer than [`FIELDS_MAX`].
    #[error("the head is too long")]
    TooLong,
    /// A field is cut short, stands twice, is missing, or is not what its type holds.
    #[error("a field of the head is malformed")]
    Field,
}

impl Request {
    /// For this, with this credential.
    pub fn new(purpose: Purpose, token: impl Into<String>) -> Self {
        Self {
            purpose,
            token: token.into(),
            once: None,
            says_taken: false,
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// [`PreambleError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, PreambleError> {
        let mut fields = Vec::new();
        field(&mut fields, TOKEN, self.token.as_bytes());
        let purpose = match &self.purpose {
            Purpose::Control => 0,
            Purpose::Open(Handshake::Service { name }) => {
                field(&mut fields, SERVICE, name.as_bytes());
                1
            }
            Purpose::Open(Handshake::Egress { host, port }) => {
                field(&mut fields, HOST, host.as_bytes());
                field(&mut fields, PORT, &port.to_be_bytes());
                2
            }
            Purpose::Open(Handshake::Listener { name }) => {
                field(&mut fields, LISTENER, name.as_bytes());
                3
            }
            Purpose::Refresh => 4,
            Purpose::Name { name } => {
                field(&mut fields, NAME, name.as_bytes());
                LAST
            }
        };
        if let Some(once) = &self.once {
            field(&mut fields, ONCE, &once.encode());
        }
        if self.says_taken {
            field(&mut fields, SAYS_TAKEN, &[]);
        }
        whole(&[VERSION, purpose], &fields)
    }

    /// Read from the front of what has come so far: the request and its length. `None`: more is needed. A fault shows as
    /// soon as its bytes are there, so that nothing longer than [`HEAD_MAX`] is ever awaited.
    ///
    /// # Errors
    /// See [`PreambleError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, PreambleError> {
        let Some((version, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        if *version != VERSION {
            return Err(PreambleError::Version(*version));
        }
        let Some((kind, rest)) = rest.split_first() else {
            return Ok(None);
        };
        if *kind > LAST {
            return Err(PreambleError::Kind(*kind));
        }
        let Some((fields, length)) = delimited(rest)? else {
            return Ok(None);
        };
        let wanted = [TOKEN, SERVICE, HOST, PORT, LISTENER, NAME, ONCE, SAYS_TAKEN];
        let [token, service, host, port, listener, name, once, says] =
            take(fields, wanted).ok_or(PreambleError::Field)?;
        let purpose = match kind {
            0 => Purpose::Control,
            1 => Purpose::Open(Handshake::Service {
                name: text(service)?,
            }),
            2 => Purpose::Open(Handshake::Egress {
                host: text(host)?,
                port: number(port)?,
            }),
            3 => Purpose::Open(Handshake::Listener {
                name: text(listener)?,
            }),
            4 => Purpose::Refresh,
            _ => Purpose::Name { name: text(name)? },
        };
        let request = Self {
            purpose,
            token: text(token)?,
            once: optional(once, Once::decode)?,
            says_taken: says.is_some(),
        };
        Ok(Some((request, 2 + length)))
    }
}

impl Response {
    /// Open.
    pub const ACCEPTED: Self = Self::Accepted {
        instance: None,
        say_taken: false,
    };

    /// The bytes.
    ///
    /// # Errors
    /// [`PreambleError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, PreambleError> {
        let mut fields = Vec::new();
        match self {
            Self::Accepted {
                instance,
                say_taken,
            } => {
                if let Some(instance) = instance {
                    field(&mut fields, INSTANCE, instance.name());
                }
                if *say_taken {
                    field(&mut fields, SAY_TAKEN, &[]);
                }
                whole(&[0], &fields)
            }
            Self::Refused { status, body, said } => {
                field(&mut fields, STATUS, &status.to_be_bytes());
                field(&mut fields, BODY, body);
                if !said.is_empty() {
                    field(&mut fields, SAID, said);
                }
                whole(&[1], &fields)
            }
        }
    }

    /// As [`Request::decode`].
    ///
    /// # Errors
    /// See [`PreambleError`].
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, PreambleError> {
        let Some((kind, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        if *kind > 1 {
            return Err(PreambleError::Kind(*kind));
        }
        let Some((fields, length)) = delimited(rest)? else {
            return Ok(None);
        };
        let [status, body, said, instance, say] =
            take(fields, [STATUS, BODY, SAID, INSTANCE, SAY_TAKEN]).ok_or(PreambleError::Field)?;
        let response = match kind {
            0 => Self::Accepted {
                instance: optional(instance, Instance::decode)?,
                say_taken: say.is_some(),
            },
            _ => Self::Refused {
                status: number(status)?,
                body: body.ok_or(PreambleError::Field)?.to_vec(),
                said: said.unwrap_or_default().to_vec(),
            },
        };
        Ok(Some((response, 1 + length)))
    }
}

fn field(fields: &mut Vec<u8>, kind: u64, value: &[u8]) {
    fields.extend(varint::encode(kind));
    fields.extend(varint::encode(value.len() as u64));
    fields.extend_from_slice(value);
}

fn whole(start: &[u8], fields: &[u8]) -> Result<Vec<u8>, PreambleError> {
    if fields.len() > FIELDS_MAX {
        return Err(PreambleError::TooLong);
    }
    let mut head = start.to_vec();
    head.extend(varint::encode(fields.len() as u64));
    head.extend_from_slice(fields);
    Ok(head)
}

/// The fields, and how many bytes they and their length take; `None` while they are not all there.
fn delimited(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, PreambleError> {
    let Some((length, rest)) = varint::decode(bytes) else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > FIELDS_MAX {
        return Err(PreambleError::TooLong);
    }
    let head = bytes.len() - rest.len();
    Ok(rest.get(..length).map(|fields| (fields, head + length)))
}

/// The values of these types, in this order; `None` where the fields are malformed.
fn take<const N: usize>(mut fields: &[u8], wanted: [u64; N]) -> Option<[Option<&[u8]>; N]> {
    let mut found = [None; N];
    while !fields.is_empty() {
        let (kind, rest) = varint::decode(fields)?;
        let (length, rest) = varint::decode(rest)?;
        let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let slot = wanted.iter().zip(&mut found).find(|(one, _)| **one == kind);
        if let Some((_, slot)) = slot
            && slot.replace(value).is_some()
        {
            return None;
        }
        fields = rest;
    }
    Some(found)
}

fn text(value: Option<&[u8]>) -> Result<String, PreambleError> {
    let value = value.ok_or(PreambleError::Field)?;
    let text = std::str::from_utf8(value).map_err(|_| PreambleError::Field)?;
    // Neither names nor credentials have anything else; what they mean is judged elsewhere.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(PreambleError::Field);
    }
    Ok(text.to_owned())
}

/// A field that may be missing, but not be something else.
fn optional<T>(
    value: Option<&[u8]>,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, PreambleError> {
    value
        .map(|value| decode(value).ok_or(PreambleError::Field))
        .transpose()
}

/// A port or a status: neither is ever zero.
fn number(value: Option<&[u8]>) -> Result<u16, PreambleError> {
    let value = value.and_then(|value| <[u8; 2]>::try_from(value).ok());
    match value.map(u16::from_be_bytes) {
        None | Some(0) => Err(PreambleError::Field),
        Some(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests;
