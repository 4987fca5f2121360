//! The body of one message, followed as far as its end (RFC 9112 §6, §7.1).

use super::HeadError;
use super::fields::is_token_byte;
use super::head::Framing;
use super::scan::Scan;

/// Longest chunk-size line, in bytes, extensions and CRLF included. Nobody sends extensions; 1 KiB is generous.
const MAX_CHUNK_LINE: usize = 1024;
/// Most digits of a chunk size: 64 bits.
const MAX_CHUNK_DIGITS: usize = 16;

/// What stands at the front of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    NeedMore,
    Take(usize),
    End,
}

/// Where in the body the front of the buffer is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// So many bytes, then the end.
    Plain(u64),
    /// A chunk-size line.
    ChunkLine(ChunkLine),
    /// So many bytes of chunk data, then CRLF.
    ChunkData(u64),
    /// The CRLF after chunk data.
    ChunkEnd,
    Trailers(Scan),
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Plain(0),
            Framing::Length(length) => Self::Plain(length),
            Framing::Chunked => Self::ChunkLine(ChunkLine::default()),
        }
    }

    /// Judge the front of `buffer`; the trailer section is copied to `trailers` when it is whole.
    pub(super) fn step(
        &mut self,
        buffer: &[u8],
        trailers: &mut Vec<u8>,
    ) -> Result<Progress, HeadError> {
        match self {
            Self::Plain(0) => Ok(Progress::End),
            Self::Plain(left) => Ok(take(left, buffer)),
            Self::ChunkData(0) => {
                *self = Self::ChunkEnd;
                self.step(buffer, trailers)
            }
            Self::ChunkData(left) => Ok(take(left, buffer)),
            Self::ChunkEnd => match buffer {
                [] | [b'\r'] => Ok(Progress::NeedMore),
                [b'\r', b'\n', ..] => {
                    *self = Self::ChunkLine(ChunkLine::default());
                    Ok(Progress::Take(2))
                }
                _ => Err(HeadError::ChunkEnd),
            },
            Self::ChunkLine(line) => {
                if !line.run(buffer)? {
                    return Ok(Progress::NeedMore);
                }
                let seen = line.seen;
                *self = if line.size == 0 {
                    Self::Trailers(Scan::trailers())
                } else {
                    Self::ChunkData(line.size)
                };
                Ok(Progress::Take(seen))
            }
            Self::Trailers(scan) => {
                let Some((start, len)) = scan.run(buffer)? else {
                    return Ok(Progress::NeedMore);
                };
                trailers.extend_from_slice(buffer.get(start..len).unwrap_or_default());
                *self = Self::Plain(0);
                Ok(Progress::Take(len))
            }
        }
    }
}

fn take(left: &mut u64, buffer: &[u8]) -> Progress {
    // The lesser of the two fits in either type.
    let count = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(buffer.len());
    if count == 0 {
        return Progress::NeedMore;
    }
    *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    Progress::Take(count)
}

/// A chunk-size line being read: hexadecimal digits, extensions, CRLF (RFC 9112 §7.1, §7.1.1). No blanks anywhere outside
/// quotes: the grammar tolerates them, and parsers differ on them.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkLine {
    seen: usize,
    digits: usize,
    size: u64,
    at: ChunkAt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum ChunkAt {
    #[default]
    Size,
    /// After `;`: a name must begin.
    NameStart,
    Name,
    /// After `=`: a value must begin.
    ValueStart,
    Value,
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After the closing quote.
    Closed,
    Cr,
}

impl ChunkLine {
    /// `true` once the line is whole.
    fn run(&mut self, buffer: &[u8]) -> Result<bool, HeadError> {
        for &byte in buffer.get(self.seen..).unwrap_or_default() {
            if self.seen == MAX_CHUNK_LINE {
                return Err(HeadError::ChunkExtension);
            }
            self.seen += 1;
            if self.at == ChunkAt::Cr {
                return if byte == b'\n' {
                    Ok(true)
                } else {
                    Err(HeadError::BareCr)
                };
            }
            self.at = match self.at {
                ChunkAt::Size => self.size(byte)?,
                _ => extension(self.at, byte)?,
            };
        }
        Ok(false)
    }

    fn size(&mut self, byte: u8) -> Result<ChunkAt, HeadError> {
        match char::from(byte).to_digit(16) {
            Some(digit) if self.digits < MAX_CHUNK_DIGITS => {
                self.digits += 1;
                self.size = (self.size << 4) | u64::from(digit);
                Ok(ChunkAt::Size)
            }
            None if self.digits > 0 && byte == b'\r' => Ok(ChunkAt::Cr),
            None if self.digits > 0 && byte == b';' => Ok(ChunkAt::NameStart),
            None if byte == b'\n' => Err(HeadError::BareLf),
            Some(_) | None => Err(HeadError::ChunkSize),
        }
    }
}

fn extension(at: ChunkAt, byte: u8) -> Result<ChunkAt, HeadError> {
    use ChunkAt::{Closed, Cr, Escaped, Name, NameStart, Quoted, Value, ValueStart};
    match (at, byte) {
        (_, b'\n') => Err(HeadError::BareLf),
        (NameStart | Name, b) if is_token_byte(b) => Ok(Name),
        (Name, b'=') => Ok(ValueStart),
        (ValueStart, b'"') => Ok(Quoted),
        (ValueStart | Value, b) if is_token_byte(b) => Ok(Value),
        (Name | Value | Closed, b'\r') => Ok(Cr),
        (Name | Value | Closed, b';') => Ok(NameStart),
        (Quoted, b'"') => Ok(Closed),
        (Quoted, b'\\') => Ok(Escaped),
        (Quoted | Escaped, b' '..=b'~') => Ok(Quoted),
        _ => Err(HeadError::ChunkExtension),
    }
}
