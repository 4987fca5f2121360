//! Capsules (RFC 9297 §3.2) as `connect-tcp` uses them: DATA, FINAL_DATA, and whatever else, which is dropped.
//!
//! Boundaries mean nothing: a payload is handed on before its capsule is complete, and only heads are ever written here,
//! so that payload is copied neither in nor out.

use bytes::{Buf, Bytes};

use crate::varint::{self, MAX as VARINT_MAX};

/// Payload. Numbers of draft-ietf-httpbis-connect-tcp-12 (provisional; -08 to -11 had `0x2028d7f0` and `f1`, and the
/// working group has asked for one-byte values). The final ones change this pair and nothing else.
pub const DATA: u64 = 0x2028_d7f2;
/// Payload, and after it a FIN (draft-ietf-httpbis-connect-tcp §3).
pub const FINAL_DATA: u64 = 0x2028_d7f3;

/// Longest head: two eight-byte integers.
const HEAD_MAX: usize = 16;

/// What a decoder hands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Payload, never empty.
    Data(Bytes),
    /// The sender's FIN.
    Fin,
}

/// What a peer did wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CapsuleError {
    /// DATA or FINAL_DATA after FINAL_DATA (draft-ietf-httpbis-connect-tcp §3).
    #[error("data after FINAL_DATA")]
    DataAfterFinal,
    /// The stream ended without FINAL_DATA, or inside a capsule: not a clean end (draft-ietf-httpbis-connect-tcp §3.4).
    #[error("the stream ended without FINAL_DATA")]
    Truncated,
}

/// A capsule's head, ready to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl Head {
    /// Bytes a DATA or FINAL_DATA head takes at most with a payload of up to 2^30 bytes.
    pub const USUAL_MAX: usize = 8;

    /// The head of a capsule of this type with `length` bytes of payload. Values above 2^62-1 do not exist in the
    /// format and are clamped; no payload in memory comes near.
    pub fn new(kind: u64, length: usize) -> Self {
        let mut head = Self::default();
        head.put(kind);
        head.put(u64::try_from(length).unwrap_or(VARINT_MAX));
        head
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn put(&mut self, value: u64) {
        for byte in varint::encode(value) {
            if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
                *slot = byte;
                self.len += 1;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Collecting a head.
    Head,
    /// Inside DATA or FINAL_DATA.
    Payload { left: u64, last: bool },
    /// Inside a capsule of a type we do not know.
    Unknown { left: u64 },
}

/// Reads capsules from bytes cut anywhere. Holds at most one head.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    head: Head,
    ended: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Head,
            head: Head::default(),
            ended: false,
        }
    }
}

impl Decoder {
    /// Take from the front of `input` what makes one piece. `None`: the input is used up, more is needed.
    ///
    /// # Errors
    /// [`CapsuleError::DataAfterFinal`]; the decoder is then of no further use.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, CapsuleError> {
        loop {
            match self.state {
                State::Payload { left: 0, last } => {
                    self.state = State::Head;
                    if last {
                        return Ok(Some(Piece::Fin));
                    }
                }
                State::Unknown { left: 0 } => self.state = State::Head,
                _ if input.is_empty() => return Ok(None),
                State::Payload { left, last } => {
                    let taken = clamp(left, input.len());
                    self.state = State::Payload {
                        left: left.saturating_sub(taken as u64),
                        last,
                    };
                    return Ok(Some(Piece::Data(input.split_to(taken))));
                }
                State::Unknown { left } => {
                    let taken = clamp(left, input.len());
                    input.advance(taken);
                    self.state = State::Unknown {
                        left: left.saturating_sub(taken as u64),
                    };
                }
                State::Head => self.head_byte(input.get_u8())?,
            }
        }
    }

    /// Did the FIN come?
    pub fn ended(&self) -> bool {
        self.ended && !matches!(self.state, State::Payload { .. })
    }

    /// The stream ended here: was that in order?
    ///
    /// # Errors
    /// [`CapsuleError::Truncated`] without a FIN, or inside any capsule.
    pub fn finish(&self) -> Result<(), CapsuleError> {
        if self.ended && self.state == State::Head && self.head.len == 0 {
            Ok(())
        } else {
            Err(CapsuleError::Truncated)
        }
    }

    fn head_byte(&mut self, byte: u8) -> Result<(), CapsuleError> {
        if let Some(slot) = self.head.bytes.get_mut(usize::from(self.head.len)) {
            *slot = byte;
            self.head.len += 1;
        }
        let Some((kind, rest)) = varint::decode(self.head.as_slice()) else {
            return Ok(());
        };
        let Some((left, _)) = varint::decode(rest) else {
            return Ok(());
        };
        self.head.len = 0;
        self.state = match kind {
            // draft-ietf-httpbis-connect-tcp §3: MUST NOT be sent.
            DATA | FINAL_DATA if self.ended => return Err(CapsuleError::DataAfterFinal),
            DATA => State::Payload { left, last: false },
            FINAL_DATA => {
                self.ended = true;
                State::Payload { left, last: true }
            }
            // RFC 9297 §3.2: unknown types are dropped without a word.
            _ => State::Unknown { left },
        };
        Ok(())
    }
}

fn clamp(left: u64, available: usize) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(available)
}

#[cfg(test)]
mod tests;
