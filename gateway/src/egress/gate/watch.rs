//! A first line that nobody waits for the end of, as streams of something else begin so: its first word is longer than any method, or a
//! control byte in it tells of a binary protocol. It goes on as it comes, and is watched.
//!
//! Servers serve such a line all the same: some bound the head as a whole and no method by itself, others make something of control bytes
//! ([`Manner`]). None does before it has the line whole. What goes, and when:
//!
//! - Everything up to the chunk that decides, as it comes, however many messages that is and whatever the upstream says meanwhile.
//! - No chunk that makes the line a request, nor anything behind it: the last byte of ` HTTP/` after any gap and in any case; of another
//!   protocol's version as the third word; or the line end (CRLF) behind a second word that is a target by its form, where the line says no
//!   version (waitress). The tunnel is cut instead, and reset: nobody takes the end of the stream for the end of the line.
//! - Everything, unwatched, from the chunk on that makes the line none: its end, a first word that has other characters than methods and
//!   control bytes, or [`LONGEST`] bytes.
//!
//! A line end of LF alone is white space to some (Twisted), which serve lines of three words: behind one up to three words are
//! watched. So they are where a control byte stands in the first word. There another protocol's version
//! makes no request: no server was found that takes such a word for a method and more than two words behind it, and much that is binary begins so
//! (MySQL, PostgreSQL, Kafka), with programs' names in it and requests in its data. Three as blanks and LFs part them, at which every server
//! does: what else is white space to one is part of a word to the next.

use super::line::{is_control, is_gap, is_skipped, is_token};

/// So much of a line is watched: no server takes a longer head unless it is told to (Go's, the most patient of them, takes a mebibyte).
pub(super) const LONGEST: usize = 2 * 1024 * 1024;
/// With any gap before it, what makes a line a request.
const VERSION: &[u8; 6] = b" HTTP/";
/// Words of a request line (RFC 9112 §3).
const WORDS: u8 = 3;

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

/// Such a line, as it goes by.
#[derive(Debug)]
pub(super) struct LineWatch {
    seen: usize,
    /// In each manner in which it may still be a request.
    readings: [Option<Reading>; 3],
}

/// What servers make of control bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    /// Part of a word (Python, waitress).
    Part,
    /// Nothing before the line, nor line ends among them (Netty; older ones skip those of Latin-1's upper half, too). There a method has none.
    Skipped,
    /// White space, all that are below a blank (BalsaFrame, Envoy's parser, though Envoy has it refuse them). A line has HTTP's version there or none.
    Gap,
}

/// A line as it is read in one manner.
#[derive(Debug)]
struct Reading {
    manner: Manner,
    last: u8,
    /// Words begun.
    words: u8,
    /// Of these, those with a blank or an LF before them: no server finds fewer.
    apart: u8,
    /// There is one before the next word.
    blank: bool,
    /// A control byte has been taken so: in the first word, before it, or anywhere.
    odd: bool,
    /// A line end of LF alone went by.
    went_on: bool,
    /// The second is a target.
    target: bool,
    /// The last bytes are so many of [`VERSION`].
    matched: u8,
    form: Form,
}

/// What a word is so far, as [`super::line`] tells targets and versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Nothing,
    /// Letters: a scheme's or a protocol's name.
    Name,
    Scheme,
    Colon,
    ColonSlash,
    Target,
    Slash,
    Major,
    Point,
    Version,
    Other,
}

impl Form {
    fn then(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Target | Self::Version | Self::Other, _) => self,
            (Self::Nothing, b'/' | b'*') | (Self::ColonSlash, b'/') => Self::Target,
            (Self::Nothing | Self::Name, b'a'..=b'z' | b'A'..=b'Z') => Self::Name,
            (Self::Name, b'0'..=b'9' | b'+' | b'-' | b'.')
            | (Self::Scheme, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.') => {
                Self::Scheme
            }
            (Self::Name | Self::Scheme, b':') => Self::Colon,
            (Self::Colon, b'/') => Self::ColonSlash,
            (Self::Name, b'/') => Self::Slash,
            (Self::Slash, b'0'..=b'9') => Self::Major,
            (Self::Major, b'.') => Self::Point,
            (Self::Major, _) => Self::Major,
            (Self::Point, b'0'..=b'9') => Self::Version,
            _ => Self::Other,
        }
    }
}

impl Default for LineWatch {
    fn default() -> Self {
        Self {
            seen: 0,
            readings: [Manner::Part, Manner::Skipped, Manner::Gap]
                .map(|one| Some(Reading::new(one))),
        }
    }
}

impl LineWatch {
    /// The next bytes, the line's own first ones included. The answer is the same however they are split.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Line {
        let mut lines = bytes.iter().map(|byte| self.next(*byte));
        lines.find(|line| *line != Line::Goes).unwrap_or(Line::Goes)
    }

    fn next(&mut self, byte: u8) -> Line {
        self.seen += 1;
        if self.seen > LONGEST {
            return Line::Other;
        }
        let mut found = Line::Other;
        for reading in &mut self.readings {
            match reading.as_mut().map(|one| one.next(byte)) {
                Some(Line::Request) => return Line::Request,
                Some(Line::Goes) => found = Line::Goes,
                Some(Line::Other) | None => *reading = None,
            }
        }
        found
    }
}

impl Reading {
    const fn new(manner: Manner) -> Self {
        Self {
            manner,
            last: b'\n',
            words: 0,
            apart: 0,
            blank: true,
            odd: false,
            went_on: false,
            target: false,
            matched: 0,
            form: Form::Nothing,
        }
    }

    /// A control byte that is none in this manner is as good as a blank.
    fn taken(&mut self, byte: u8) -> u8 {
        let before = self.words == 0;
        let blank = match self.manner {
            Manner::Part => false,
            Manner::Skipped => before && is_skipped(byte),
            Manner::Gap => is_control(byte) && byte < b' ',
        };
        self.odd |= blank;
        let empty = self.manner != Manner::Part && before && byte == b'\n';
        if blank || empty { b' ' } else { byte }
    }

    fn next(&mut self, byte: u8) -> Line {
        let byte = self.taken(byte);
        let last = std::mem::replace(&mut self.last, byte);
        match (last, byte) {
            (b'\r', b'\n') if self.target => return Line::Request,
            // Netty takes any word with a version behind it.
            (_, b'\n') if self.target && self.skipped() => return Line::Request,
            (b'\r', b'\n') => return Line::Other,
            (_, b'\n') if self.apart > WORDS || self.manner != Manner::Part => return Line::Other,
            (_, b'\n') => self.went_on = true,
            _ => {}
        }
        if parts(byte) {
            self.matched = 1;
            self.blank |= matches!(byte, b' ' | b'\n');
            return Line::Goes;
        }
        if parts(last) {
            self.words = self.words.saturating_add(1);
            let apart = u8::from(std::mem::take(&mut self.blank));
            self.apart = self.apart.saturating_add(apart);
            self.form = Form::Nothing;
        }
        let three = self.odd || self.went_on || self.manner != Manner::Part;
        match self.words {
            ..=1 => self.in_first(byte),
            _ if self.apart > WORDS && three => Line::Other,
            _ => self.in_later(byte),
        }
    }

    /// Three words, behind control bytes that were passed over. (An LF behind a target is too frequent in other bytes to tell anything.)
    fn skipped(&self) -> bool {
        self.manner == Manner::Skipped && self.odd && self.words == WORDS
    }

    fn in_first(&mut self, byte: u8) -> Line {
        let part = self.manner == Manner::Part;
        self.odd |= part && is_control(byte);
        if is_token(byte) || (part && self.odd) {
            Line::Goes
        } else {
            Line::Other
        }
    }

    fn in_later(&mut self, byte: u8) -> Line {
        let wanted = VERSION.get(usize::from(self.matched));
        let wanted = wanted.filter(|_| self.matched > 0);
        let more = wanted.is_some_and(|wanted| byte.eq_ignore_ascii_case(wanted));
        self.matched = if more { self.matched + 1 } else { 0 };
        self.form = self.form.then(byte);
        self.target |= self.words == 2 && self.form == Form::Target;
        let third = match self.manner {
            // Behind an odd first word programs' names and versions are more likely.
            Manner::Part => self.words == WORDS && !self.odd,
            Manner::Skipped => self.words >= WORDS,
            Manner::Gap => false,
        };
        let version = third && self.form == Form::Version;
        if version || usize::from(self.matched) == VERSION.len() {
            Line::Request
        } else {
            Line::Goes
        }
    }
}

/// Does it part words? One that ends the line does not get here.
fn parts(byte: u8) -> bool {
    is_gap(byte) || byte == b'\n'
}
