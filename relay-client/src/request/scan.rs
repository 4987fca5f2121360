//! The byte-wise scan of a head or trailer section: what no line may contain, found at the byte that is wrong.

use super::fields::{is_text_byte, is_token_byte};
use super::start_line::StartLine;
use super::{HeadError, MAX_FIELDS, MAX_TRAILERS};

/// Where the scan stands between two bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// Before the request line; an empty line may have been passed over.
    Start {
        skipped: bool,
    },
    /// After the CR of an empty line before the request line.
    StartCr,
    RequestLine,
    /// After the CR that ends the request line.
    RequestLineCr,
    LineStart,
    Name,
    Value,
    /// After the CR that ends a field line.
    LineCr,
    /// After the CR of the final empty line.
    EndCr,
}

/// How far a head or trailer section has been read.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    at: At,
    /// Bytes looked at.
    seen: usize,
    /// Where the request line begins.
    start: usize,
    fields: usize,
    limit: usize,
    too_large: HeadError,
}

impl Scan {
    /// A scan of a request head.
    pub(super) fn head(limit: usize) -> Self {
        Self {
            at: At::Start { skipped: false },
            seen: 0,
            start: 0,
            fields: 0,
            limit,
            too_large: HeadError::TooLarge,
        }
    }

    /// A scan of a trailer section.
    pub(super) fn trailers() -> Self {
        Self {
            at: At::LineStart,
            too_large: HeadError::TrailersTooLarge,
            ..Self::head(MAX_TRAILERS)
        }
    }

    /// Look at what is new in `buffer`. `Some((start, len))` once the section is whole: it begins at `start` and ends before
    /// `len`, its empty line included.
    pub(super) fn run(&mut self, buffer: &[u8]) -> Result<Option<(usize, usize)>, HeadError> {
        loop {
            self.run_on(buffer);
            let Some(&byte) = buffer.get(self.seen) else {
                return Ok(None);
            };
            if self.seen == self.limit {
                return Err(self.too_large);
            }
            self.seen += 1;
            if self.at == At::EndCr {
                return if byte == b'\n' {
                    Ok(Some((self.start, self.seen)))
                } else {
                    Err(HeadError::BareCr)
                };
            }
            let at = self.next(byte)?;
            match (self.at, at) {
                (At::StartCr, _) => self.start = self.seen,
                (At::RequestLine, At::RequestLineCr) => {
                    // Judged as soon as it is whole: HTTP/0.9 and a TLS hello must not wait for an empty line.
                    let line = buffer.get(self.start..self.seen - 1).unwrap_or_default();
                    StartLine::parse(line)?;
                }
                _ => {}
            }
            self.at = at;
        }
    }

    /// Pass over bytes that change nothing: most of a head lies in the middle of something.
    fn run_on(&mut self, buffer: &[u8]) {
        let stays: fn(u8) -> bool = match self.at {
            At::Name => is_token_byte,
            At::Value => is_text_byte,
            // A tab is none of a request line's bytes.
            At::RequestLine => |b| b != b'\t' && is_text_byte(b),
            _ => return,
        };
        let rest = buffer.get(self.seen..).unwrap_or_default();
        let run = rest.iter().take(self.limit - self.seen);
        self.seen += run.take_while(|&&b| stays(b)).count();
    }

    fn next(&mut self, byte: u8) -> Result<At, HeadError> {
        use HeadError::{
            BareCr, BareLf, FieldName, FieldValue, Folding, RequestLine, SpaceBeforeColon,
        };
        match (self.at, byte) {
            // RFC 9112 §2.2: one empty line before the request line is an old habit, tolerated.
            (At::Start { skipped: false }, b'\r') => Ok(At::StartCr),
            (At::StartCr, b'\n') => Ok(At::Start { skipped: true }),
            (At::Start { .. }, b) if is_token_byte(b) => Ok(At::RequestLine),
            (At::RequestLine, b'\r') => Ok(At::RequestLineCr),
            (At::RequestLine, b) if b != b'\t' && is_text_byte(b) => Ok(At::RequestLine),
            (At::RequestLineCr | At::LineCr, b'\n') => Ok(At::LineStart),
            (At::StartCr | At::RequestLineCr | At::LineCr | At::EndCr, _) => Err(BareCr),
            (_, b'\n') => Err(BareLf),
            (At::Start { .. } | At::RequestLine, _) => Err(RequestLine),
            (At::LineStart, b'\r') => Ok(At::EndCr),
            (At::LineStart, b' ' | b'\t') => Err(Folding),
            (At::LineStart, b) if is_token_byte(b) => self.field(),
            (At::Name, b) if is_token_byte(b) => Ok(At::Name),
            (At::Name, b':') => Ok(At::Value),
            (At::Name, b' ' | b'\t') => Err(SpaceBeforeColon),
            (At::LineStart | At::Name, _) => Err(FieldName),
            (At::Value, b'\r') => Ok(At::LineCr),
            (At::Value, b) if is_text_byte(b) => Ok(At::Value),
            (At::Value, _) => Err(FieldValue),
        }
    }

    fn field(&mut self) -> Result<At, HeadError> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            Err(self.too_large)
        } else {
            Ok(At::Name)
        }
    }
}
