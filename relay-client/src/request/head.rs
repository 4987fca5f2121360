//! A whole head: its fields judged together, and the framing they give.

use std::mem::MaybeUninit;

use super::fields::{self, Field, is_twin};
use super::scan::Scan;
use super::start_line::{StartLine, Version};
use super::{HeadError, MAX_FIELDS};

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// No body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// A sound request head, in the bytes it came in.
#[derive(Clone, Debug)]
pub struct Head<'b> {
    line: StartLine<'b>,
    section: &'b [u8],
    start: usize,
    len: usize,
    framing: Framing,
}

/// Where a sound head stands: what is left of a judgement when the bytes it looked at are let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judged {
    start: usize,
    len: usize,
    framing: Framing,
}

impl Judged {
    /// The head again, without judging it again; `buffer` is what it was found at the front of. `None`: it is another.
    #[must_use]
    pub fn head<'b>(&self, buffer: &'b [u8]) -> Option<Head<'b>> {
        let (line, section) = split(buffer.get(self.start..self.len)?).ok()?;
        Some(Head {
            line,
            section,
            start: self.start,
            len: self.len,
            framing: self.framing,
        })
    }
}

impl<'b> Head<'b> {
    /// That it was judged, and where it stands.
    #[must_use]
    pub fn judged(&self) -> Judged {
        Judged {
            start: self.start,
            len: self.len,
            framing: self.framing,
        }
    }

    /// Bytes to consume: the head and an empty line that may have stood before it.
    #[allow(clippy::len_without_is_empty, reason = "a head is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The method, a token, case as sent.
    #[must_use]
    pub fn method(&self) -> &'b str {
        self.line.method
    }

    /// The request target as sent: visible bytes, ASCII wherever it names a host.
    #[must_use]
    pub fn target(&self) -> &'b [u8] {
        self.line.target
    }

    /// Is the target an absolute URI (RFC 3986 §4.3) of an authority alone? Then it names the server, not its root (RFC 9110 §9.3.7).
    #[must_use]
    pub fn is_pathless(&self) -> bool {
        let target = self.line.target;
        // In origin form a path stands there, and another URI may stand in the query.
        if target.starts_with(b"/") {
            return false;
        }
        let scheme = target.windows(3).position(|three| three == b"://");
        let behind = scheme.and_then(|at| target.get(at + 3..));
        behind.is_some_and(|rest| !rest.iter().any(|byte| b"/?#".contains(byte)))
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field<'b>> + use<'b> {
        fields::split(self.section)
    }

    /// The value of the first field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b [u8]> {
        self.fields().find(|f| f.is(name)).map(|f| f.value)
    }

    /// The fields to be dropped as [`is_twin`] says.
    pub fn twins(&self) -> impl Iterator<Item = Field<'b>> + use<'b> {
        self.fields().filter(|f| is_twin(f.name))
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Is it a CONNECT, after which a tunnel follows and no body?
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.line.method == "CONNECT"
    }
}

/// Read the head at the front of `buffer`, once it is whole.
pub(super) fn read<'b>(scan: &mut Scan, buffer: &'b [u8]) -> Result<Option<Head<'b>>, HeadError> {
    let Some((start, len)) = scan.run(buffer)? else {
        return Ok(None);
    };
    let bytes = buffer.get(start..len).unwrap_or_default();
    let (line, section) = split(bytes)?;
    let found = Found::in_section(section)?;
    found.judge_host(line.version)?;
    let framing = found.framing(&line)?;
    let head = Head {
        line,
        section,
        start,
        len,
        framing,
    };
    agree(&head, bytes)?;
    Ok(Some(head))
}

/// Request line and fields of a whole head.
fn split(bytes: &[u8]) -> Result<(StartLine<'_>, &[u8]), HeadError> {
    let end = bytes
        .iter()
        .position(|&b| b == b'\r')
        .ok_or(HeadError::RequestLine)?;
    let line = StartLine::parse(bytes.get(..end).unwrap_or_default())?;
    Ok((line, bytes.get(end + 2..).unwrap_or_default()))
}

/// The fields that decide framing and routing, each at most once.
#[derive(Default)]
struct Found<'b> {
    host: Option<Field<'b>>,
    length: Option<Field<'b>>,
    encoding: Option<Field<'b>>,
    authorization: Option<Field<'b>>,
    proxy_authorization: Option<Field<'b>>,
}

impl<'b> Found<'b> {
    fn in_section(section: &'b [u8]) -> Result<Self, HeadError> {
        let mut found = Self::default();
        for field in fields::split(section) {
            let (slot, repeated) = if field.is("host") {
                (&mut found.host, HeadError::RepeatedHost)
            } else if field.is("content-length") {
                (&mut found.length, HeadError::ContentLength)
            } else if field.is("transfer-encoding") {
                (&mut found.encoding, HeadError::TransferEncoding)
            } else if field.is("authorization") {
                (&mut found.authorization, HeadError::RepeatedCredential)
            } else if field.is("proxy-authorization") {
                (
                    &mut found.proxy_authorization,
                    HeadError::RepeatedCredential,
                )
            } else {
                continue;
            };
            if slot.replace(field).is_some() {
                return Err(repeated);
            }
        }
        Ok(found)
    }

    /// RFC 9112 §3.2. HTTP/1.0 clients may leave it out, and do (`socat`, `ncat`).
    fn judge_host(&self, version: Version) -> Result<(), HeadError> {
        match &self.host {
            None if version == Version::Http11 => Err(HeadError::MissingHost),
            None => Ok(()),
            Some(host) => {
                let sound = |b: &u8| b.is_ascii_graphic() && !br#",/\@#?;"<>"#.contains(b);
                if !host.value.is_empty() && host.value.iter().all(sound) {
                    Ok(())
                } else {
                    Err(HeadError::Host)
                }
            }
        }
    }

    fn framing(&self, line: &StartLine<'_>) -> Result<Framing, HeadError> {
        let connect = line.method == "CONNECT";
        match (&self.encoding, &self.length) {
            (Some(_), Some(_)) => Err(HeadError::TwoFramings),
            (Some(_), None) if connect => Err(HeadError::ConnectContent),
            (Some(encoding), None) => {
                let chunked = encoding
                    .plain()
                    .is_some_and(|v| v.eq_ignore_ascii_case(b"chunked"));
                // RFC 9112 §6.1: with Transfer-Encoding in HTTP/1.0 the framing is to be taken for faulty.
                if chunked && line.version == Version::Http11 {
                    Ok(Framing::Chunked)
                } else {
                    Err(HeadError::TransferEncoding)
                }
            }
            (None, Some(length)) => {
                let length = length
                    .plain()
                    .and_then(parse_length)
                    .ok_or(HeadError::ContentLength)?;
                if connect && length != 0 {
                    Err(HeadError::ConnectContent)
                } else {
                    Ok(Framing::Length(length))
                }
            }
            (None, None) => Ok(Framing::None),
        }
    }
}

/// `1*DIGIT` (RFC 9110 §8.6), and nothing a lenient integer parser would take besides.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The second opinion: an independent parser must read the same request.
fn agree(head: &Head<'_>, bytes: &[u8]) -> Result<(), HeadError> {
    // Left as they are until they are filled: clearing room for a hundred fields costs more than reading a few.
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields);
    let whole = matches!(parsed, Ok(httparse::Status::Complete(n)) if n == bytes.len());
    let version = match head.version() {
        Version::Http10 => 0,
        Version::Http11 => 1,
    };
    let same = whole
        && request.method == Some(head.method())
        && request.path.map(str::as_bytes) == Some(head.target())
        && request.version == Some(version)
        && request
            .headers
            .iter()
            .map(|h| (h.name.as_bytes(), h.value))
            .eq(head.fields().map(|f| (f.name, f.value)));
    if same {
        Ok(())
    } else {
        Err(HeadError::Ambiguous)
    }
}
