//! The TLS record layer, followed just far enough to see plaintext handshake messages (RFC 8446 §5.1).

use super::client_hello::{HelloError, MAX_HELLO};

/// Content type of a handshake record.
pub(super) const HANDSHAKE: u8 = 22;
/// Content type of a change_cipher_spec record.
pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
/// Content type of an alert record.
pub(super) const ALERT: u8 = 21;
/// Content type of an application_data record.
pub(super) const APPLICATION_DATA: u8 = 23;

/// Longest plaintext fragment of one record (RFC 8446 §5.1).
const MAX_FRAGMENT: usize = 1 << 14;
/// Longest protected fragment (RFC 5246 §6.2.3, the larger of the two laws): early data is passed over, not read.
const MAX_PROTECTED: usize = MAX_FRAGMENT + 2048;

/// Cuts a byte stream into record fragments. Holds five bytes at most.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    header: [u8; 5],
    /// Bytes of the header seen; 5 while `left > 0`.
    seen: usize,
    /// Bytes of the current fragment still to come.
    left: usize,
}

impl Records {
    /// The next run of fragment bytes with its content type, of a handshake record `most` of them at most; `None` when
    /// `input` is used up. Faults are found at the byte that makes them, so a verdict depends on the bytes alone and never on how they were cut.
    pub(super) fn next<'c>(
        &mut self,
        input: &mut &'c [u8],
        most: usize,
    ) -> Result<Option<(u8, &'c [u8])>, HelloError> {
        while self.left == 0 {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(None);
            };
            *input = rest;
            self.push_header(byte)?;
        }
        let [kind, ..] = self.header;
        let most = if kind == HANDSHAKE { most } else { usize::MAX };
        let (fragment, rest) = input.split_at(self.left.min(most).min(input.len()));
        if fragment.is_empty() {
            return Ok(None);
        }
        *input = rest;
        self.left -= fragment.len();
        if self.left == 0 {
            self.seen = 0;
        }
        Ok(Some((kind, fragment)))
    }

    /// The content type of the record being read, header included; `None` between records.
    pub(super) fn current(&self) -> Option<u8> {
        let [kind, ..] = self.header;
        (self.seen > 0).then_some(kind)
    }

    fn push_header(&mut self, byte: u8) -> Result<(), HelloError> {
        if let Some(slot) = self.header.get_mut(self.seen) {
            *slot = byte;
        }
        self.seen += 1;
        let [kind, major, minor, high, low] = self.header;
        match self.seen {
            1 if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind) => {
                Err(HelloError::UnexpectedRecord)
            }
            2 if major != 3 => Err(HelloError::RecordVersion),
            // Real clients send 0x0301 or 0x0303; 0x0300 and 0x0304 are seen and harmless (§5.1: ignored).
            3 if minor > 4 => Err(HelloError::RecordVersion),
            5 => {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                let most = if kind == APPLICATION_DATA {
                    MAX_PROTECTED
                } else {
                    MAX_FRAGMENT
                };
                match self.left {
                    0 => Err(HelloError::EmptyRecord),
                    n if n > most => Err(HelloError::RecordTooLong),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// One handshake message being put together from fragments (RFC 8446 §4): type, 24-bit length, body. Grows with the
/// bytes received, never with the length announced.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Length of the type and length fields.
    pub(super) const HEADER: usize = 4;

    /// How many bytes this message still takes, as far as is known: 0 when it is whole.
    pub(super) fn wanted(&self) -> Result<usize, HelloError> {
        match self.body_len() {
            None => Ok(Self::HEADER - self.bytes.len()),
            Some(length) if length > MAX_HELLO => Err(HelloError::TooLong),
            Some(length) => Ok((Self::HEADER + length).saturating_sub(self.bytes.len())),
        }
    }

    /// Add bytes, no more than were wanted.
    pub(super) fn push(&mut self, fragment: &[u8]) {
        self.bytes.extend_from_slice(fragment);
    }

    /// The message type, once its byte is there.
    pub(super) fn kind(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    /// Nothing received yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The body received so far.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(Self::HEADER..).unwrap_or_default()
    }

    /// The body's announced length, once the header is complete.
    pub(super) fn body_len(&self) -> Option<usize> {
        let [_, a, b, c] = *self.bytes.first_chunk::<{ Self::HEADER }>()?;
        usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()
    }
}
