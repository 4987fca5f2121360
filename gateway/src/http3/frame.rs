//! Frames out of a stream's bytes (RFC 9114 §7), as they come.

use bytes::{Buf, Bytes, BytesMut};
use sluicegate_relay_protocol::varint;

use super::Code;

pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const CANCEL_PUSH: u64 = 0x3;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const PUSH_PROMISE: u64 = 0x5;
pub(super) const GOAWAY: u64 = 0x7;
pub(super) const MAX_PUSH_ID: u64 = 0xd;
/// Frames of HTTP/2 that have no meaning here (RFC 9114 §7.2.8).
const HTTP2_ONLY: [u64; 4] = [0x2, 0x6, 0x8, 0x9];
/// Type and length.
const HEAD_MAX: usize = 16;
/// Nothing on a control stream that is known is longer.
const CONTROL_MAX: usize = 4096;

/// The head of a DATA frame with a payload of so many bytes.
pub fn data_head(length: usize) -> Bytes {
    head(DATA, length)
}

/// A whole frame.
pub(super) fn frame(kind: u64, payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&*head(kind, payload.len()));
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

fn head(kind: u64, length: usize) -> Bytes {
    varint::encode(kind)
        .chain(varint::encode(length as u64))
        .collect()
}

/// What stands in a stream. Frames of types nobody knows are passed over (RFC 9114 §9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Some of a DATA frame's payload.
    Data(Bytes),
    /// A whole HEADERS frame's payload.
    Headers(Bytes),
    /// A HEADERS frame that is longer than allowed; what follows of the stream is not read.
    TooLarge,
    /// A whole frame of another known type.
    Other(u64, Bytes),
}

/// Where in a stream we are.
#[derive(Debug)]
pub struct Frames {
    state: State,
    /// Bytes a HEADERS frame may have.
    limit: usize,
}

#[derive(Debug)]
enum State {
    /// A frame's head, or what has come of it.
    Head(BytesMut),
    Data(u64),
    Whole {
        kind: u64,
        length: usize,
        read: BytesMut,
    },
    /// Passed over.
    Over(u64),
    /// Nothing that follows is read.
    TooLarge,
}

impl Frames {
    /// At the start of a stream whose HEADERS frames may be this long.
    pub fn new(limit: usize) -> Self {
        Self {
            state: State::Head(BytesMut::new()),
            limit,
        }
    }

    /// Between two frames, where a stream may end?
    pub fn between(&self) -> bool {
        matches!(&self.state, State::Head(read) if read.is_empty())
    }

    /// What comes next in `input`, which is consumed; `None`: more is needed.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Code> {
        while !input.is_empty() {
            match &mut self.state {
                State::Head(read) => {
                    let before = read.len();
                    let more = input.len().min(HEAD_MAX - before);
                    read.extend_from_slice(input.get(..more).unwrap_or_default());
                    let Some((kind, rest)) = varint::decode(read) else {
                        input.advance(more);
                        continue;
                    };
                    let Some((length, rest)) = varint::decode(rest) else {
                        input.advance(more);
                        continue;
                    };
                    let size = read.len() - rest.len();
                    input.advance(size - before);
                    match self.begin(kind, length)? {
                        State::Whole {
                            kind, length: 0, ..
                        } => {
                            self.state = State::Head(BytesMut::new());
                            return Ok(Some(whole(kind, Bytes::new())));
                        }
                        // Nothing, but it may stand where no DATA may.
                        State::Data(0) => {
                            self.state = State::Head(BytesMut::new());
                            return Ok(Some(Piece::Data(Bytes::new())));
                        }
                        State::Over(0) => self.state = State::Head(BytesMut::new()),
                        State::TooLarge => {
                            self.state = State::TooLarge;
                            return Ok(Some(Piece::TooLarge));
                        }
                        state => self.state = state,
                    }
                }
                State::Data(left) => {
                    let data = take(input, left);
                    if *left == 0 {
                        self.state = State::Head(BytesMut::new());
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::Whole { kind, length, read } => {
                    let more = input.len().min(*length - read.len());
                    read.extend_from_slice(&input.split_to(more));
                    if read.len() == *length {
                        let piece = whole(*kind, std::mem::take(read).freeze());
                        self.state = State::Head(BytesMut::new());
                        return Ok(Some(piece));
                    }
                }
                State::TooLarge => return Ok(Some(Piece::TooLarge)),
                State::Over(left) => {
                    take(input, left);
                    if *left == 0 {
                        self.state = State::Head(BytesMut::new());
                    }
                }
            }
        }
        Ok(None)
    }

    fn begin(&self, kind: u64, length: u64) -> Result<State, Code> {
        let limit = match kind {
            DATA => return Ok(State::Data(length)),
            HEADERS => self.limit,
            CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID => CONTROL_MAX,
            kind if HTTP2_ONLY.contains(&kind) => return Err(Code::FrameUnexpected),
            _ => return Ok(State::Over(length)),
        };
        match usize::try_from(length) {
            Ok(length) if length <= limit => Ok(State::Whole {
                kind,
                length,
                // Grows with what comes: a length alone reserves nothing.
                read: BytesMut::new(),
            }),
            _ if kind == HEADERS => Ok(State::TooLarge),
            _ => Err(Code::ExcessiveLoad),
        }
    }
}

fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let more = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= more as u64;
    input.split_to(more)
}

fn whole(kind: u64, payload: Bytes) -> Piece {
    match kind {
        HEADERS => Piece::Headers(payload),
        kind => Piece::Other(kind, payload),
    }
}

#[cfg(test)]
mod tests;
