//! A strict judge of HTTP/1.1 request streams (RFC 9112), run in front of the HTTP library so that what the library reads
//! can be read one way only. Whatever two parsers might read differently is refused here, not repaired.
//!
//! Pure and incremental: no sockets, no clock. The gateway's listeners and the sandbox's proxy read by it, so that both take and
//! refuse the same.

mod body;
mod fields;
mod head;
mod scan;
mod start_line;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod testing;
#[cfg(test)]
mod tests;

use body::{Body, Progress};
use scan::Scan;

pub use fields::{Field, is_twin, trailer_may_pass};
pub use head::{Framing, Head, Judged};
pub use start_line::Version;

/// Longest head unless said otherwise, in bytes, request line and final empty line included.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most field lines in a head.
pub const MAX_FIELDS: usize = 100;
/// Longest trailer section, in bytes, final empty line included.
pub const MAX_TRAILERS: usize = 8 * 1024;

/// What stands at the front of the bytes not yet consumed.
#[derive(Debug)]
pub enum Event<'b> {
    /// Not enough to tell. Call again with the same bytes and more after them.
    NeedMore,
    /// A whole, sound head. Consume [`Head::len`] bytes.
    Head(Head<'b>),
    /// So many bytes of the message's body, framing and trailers included. Consume them.
    Body(usize),
    /// The message ends here; the next is about to begin. Nothing to consume.
    End,
    /// Everything from here on is another protocol's (a CONNECT's tunnel; see also [`RequestStream::release`]).
    Opaque,
    /// Refuse, close, and read no further: where the next message begins is not known. Final.
    Malformed(HeadError),
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// The head is over [`MAX_HEAD`] bytes or [`MAX_FIELDS`] fields: 431.
    #[error("request head too large")]
    TooLarge,
    /// The first bytes are no request line: not a token, more or less than two single spaces, a control byte.
    #[error("malformed request line")]
    RequestLine,
    /// The request line is whole, its version is neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// Non-ASCII bytes in the authority, or a fragment, in the request target (RFC 9112 §3.2).
    #[error("malformed request target")]
    Target,
    /// LF without CR before it.
    #[error("bare LF")]
    BareLf,
    /// CR without LF after it.
    #[error("bare CR")]
    BareCr,
    /// A line that begins with a blank (RFC 9112 §5.2), or a blank line before the first field.
    #[error("line folding")]
    Folding,
    /// A field without a name, or a name that is no token.
    #[error("malformed field name")]
    FieldName,
    /// A blank between name and colon (RFC 9112 §5.1).
    #[error("whitespace before colon")]
    SpaceBeforeColon,
    /// NUL, DEL or another control byte in a value.
    #[error("control byte in field value")]
    FieldValue,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    #[error("missing Host")]
    MissingHost,
    /// More than one Host.
    #[error("more than one Host")]
    RepeatedHost,
    /// A Host that is no single `host[:port]`.
    #[error("malformed Host")]
    Host,
    /// A credential field that occurs twice.
    #[error("more than one credential field")]
    RepeatedCredential,
    /// Content-Length and Transfer-Encoding together (RFC 9112 §6.3).
    #[error("Content-Length with Transfer-Encoding")]
    TwoFramings,
    /// Transfer-Encoding other than exactly one `chunked`, or in HTTP/1.0.
    #[error("malformed Transfer-Encoding")]
    TransferEncoding,
    /// Content-Length other than exactly one plain decimal number below 2^64.
    #[error("malformed Content-Length")]
    ContentLength,
    /// CONNECT with a body (RFC 9110 §9.3.6).
    #[error("CONNECT with content")]
    ConnectContent,
    /// A chunk size that is no hexadecimal number of at most 16 digits.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A malformed, over-long or control-byte chunk extension.
    #[error("malformed chunk extension")]
    ChunkExtension,
    /// Chunk data not followed by CRLF.
    #[error("chunk data not followed by CRLF")]
    ChunkEnd,
    /// A trailer section over [`MAX_TRAILERS`] bytes or [`MAX_FIELDS`] fields.
    #[error("trailer section too large")]
    TrailersTooLarge,
    /// The two parsers of the head do not agree on it.
    #[error("ambiguous request head")]
    Ambiguous,
}

impl HeadError {
    /// The HTTP status that says it: 431 (RFC 6585 §5) for a head too large, else 400.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Self::TooLarge { 431 } else { 400 }
    }
}

/// Follows heads and bodies of successive requests on one connection.
///
/// Each call looks at the bytes not yet consumed, from their front, and remembers how far it has looked: reading a stream costs
/// time linear in its length however it is cut. Verdicts depend on the bytes alone. Memory: the trailers of one message
/// ([`MAX_TRAILERS`]) and the fields of one head; the caller's buffer need never hold more than [`MAX_HEAD`] and one read.
#[derive(Debug)]
pub struct RequestStream {
    state: State,
    max_head: usize,
    trailers: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head(Scan),
    Body(Body),
    Opaque,
    Malformed(HeadError),
}

impl Default for RequestStream {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestStream {
    /// A stream before its first request.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_head(MAX_HEAD)
    }

    /// The same with another bound on heads, in bytes.
    #[must_use]
    pub fn with_max_head(max_head: usize) -> Self {
        Self {
            state: State::Head(Scan::head(max_head)),
            max_head,
            trailers: Vec::new(),
        }
    }

    /// Judge the front of `buffer`: all bytes received and not yet consumed.
    pub fn step<'b>(&mut self, buffer: &'b [u8]) -> Event<'b> {
        match &mut self.state {
            State::Malformed(error) => Event::Malformed(*error),
            State::Opaque => Event::Opaque,
            State::Head(scan) => match head::read(scan, buffer) {
                Ok(None) => Event::NeedMore,
                Ok(Some(head)) => {
                    self.trailers.clear();
                    self.state = if head.is_connect() {
                        State::Opaque
                    } else {
                        State::Body(Body::new(head.framing()))
                    };
                    Event::Head(head)
                }
                Err(error) => self.refuse(error),
            },
            State::Body(body) => match body.step(buffer, &mut self.trailers) {
                Ok(Progress::NeedMore) => Event::NeedMore,
                Ok(Progress::Take(count)) => Event::Body(count),
                Ok(Progress::End) => {
                    self.state = State::Head(Scan::head(self.max_head));
                    Event::End
                }
                Err(error) => self.refuse(error),
            },
        }
    }

    /// Is a head awaited or arriving, rather than a body?
    #[must_use]
    pub fn between_messages(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// The protocol changes: judge no more. Call this before the 101 (Switching Protocols) is sent, so that nothing the client
    /// answers to it is read as a request.
    pub fn release(&mut self) {
        if !matches!(self.state, State::Malformed(_)) {
            self.state = State::Opaque;
        }
    }

    /// The trailer fields of the last message that ended, until the next head (RFC 9112 §7.1.2). What they may not say is
    /// told by [`trailer_may_pass`].
    pub fn trailers(&self) -> impl Iterator<Item = Field<'_>> {
        fields::split(&self.trailers)
    }

    fn refuse(&mut self, error: HeadError) -> Event<'static> {
        self.state = State::Malformed(error);
        Event::Malformed(error)
    }
}
