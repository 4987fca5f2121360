//! A first word that is longer than any method. Nobody waits for its end, as streams of something else begin so: it goes on, and the
//! rest of its line is watched.
//!
//! Servers that bound the head as a whole, and no method by itself, serve such a request all the same. None does before the line
//! has said its version, and the bytes that say it do not go.

use super::line::{is_gap, is_token};

/// So much of a line is watched: no server takes a longer head unless it is told to (Go's, the most patient of them, takes a mebibyte).
pub(super) const LONGEST: usize = 2 * 1024 * 1024;
/// With any gap before it, what makes a line a request.
const VERSION: &[u8; 6] = b" HTTP/";

/// What a line turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// Nothing yet.
    Goes,
    /// No request.
    Other,
    /// A request, as far as a lenient server can tell.
    Request,
}

/// A line that begins with such a word, as it goes by.
#[derive(Debug, Default)]
pub(super) struct LongWord {
    seen: usize,
    /// The word is over.
    parted: bool,
    /// The last bytes are so many of [`VERSION`].
    matched: usize,
}

impl LongWord {
    /// The next bytes, the word's own first ones included. The answer is the same however they are split.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Line {
        let mut lines = bytes.iter().map(|byte| self.next(*byte));
        lines.find(|line| *line != Line::Goes).unwrap_or(Line::Goes)
    }

    fn next(&mut self, byte: u8) -> Line {
        self.seen += 1;
        if self.seen > LONGEST || byte == b'\n' {
            return Line::Other;
        }
        if is_gap(byte) {
            (self.parted, self.matched) = (true, 1);
        } else if self.parted {
            let wanted = VERSION.get(self.matched);
            let more = wanted.is_some_and(|wanted| byte.eq_ignore_ascii_case(wanted));
            self.matched = if more { self.matched + 1 } else { 0 };
        } else if !is_token(byte) {
            return Line::Other;
        }
        if self.matched == VERSION.len() {
            Line::Request
        } else {
            Line::Goes
        }
    }
}
