//! Field lines: names, values, and which names matter more than others.

/// One field line, split at its first colon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'b> {
    /// The name as sent: a token (RFC 9110 §5.1).
    pub name: &'b [u8],
    /// The value without the blanks around it.
    pub value: &'b [u8],
    /// Everything between colon and CRLF.
    pub(super) raw: &'b [u8],
}

impl<'b> Field<'b> {
    /// Does it bear this name, whatever the case?
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value, if at most one space stands before it and nothing after: what every parser reads alike.
    pub(super) fn plain(&self) -> Option<&'b [u8]> {
        let value = self.raw.strip_prefix(b" ").unwrap_or(self.raw);
        (value == self.value).then_some(value)
    }
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    class(byte) & TOKEN != 0
}

/// May it stand in a field value or a request line: blanks, visible bytes, and what is not ASCII.
pub(super) fn is_text_byte(byte: u8) -> bool {
    class(byte) & TEXT != 0
}

const TOKEN: u8 = 1;
const TEXT: u8 = 2;

/// Looked up: every byte of every head is asked for.
#[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
fn class(byte: u8) -> u8 {
    const CLASSES: [u8; 256] = {
        let mut classes = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let b = byte as u8;
            if b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
            {
                classes[byte] |= TOKEN;
            }
            if b == b'\t' || b == b' ' || b.is_ascii_graphic() || b >= 0x80 {
                classes[byte] |= TEXT;
            }
            byte += 1;
        }
        classes
    };
    CLASSES[usize::from(byte)]
}

/// The field lines of a scanned section, up to its empty line.
pub(super) fn split(section: &[u8]) -> impl Iterator<Item = Field<'_>> {
    // The scan has shown that LF stands only after CR and CR only before LF.
    section.split(|&b| b == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, rest) = line.split_at_checked(colon)?;
        let raw = rest.strip_prefix(b":")?;
        Some(Field {
            name,
            value: trim(raw),
            raw,
        })
    })
}

/// Without optional whitespace at either end (RFC 9110 §5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Fields that frame, route or authenticate, or stand for the request line. Spelt with `_`, a CGI-style reader takes them for the
/// real ones.
const SENSITIVE: [&str; 29] = [
    "authorization",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-envoy-original-path",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-http-path-override",
    "x-method-override",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-session",
];
/// Beginnings of such names.
const SENSITIVE_FAMILIES: [&str; 4] =
    ["x-forwarded-", "x-gestalt-", "x-sluicegate-", "x-upstream-"];

/// Is this name the `_` twin of a field that frames, routes or authenticates (`Content_Length`)? Such fields are not forwarded.
#[must_use]
pub fn is_twin(name: &[u8]) -> bool {
    name.contains(&b'_')
        && (SENSITIVE
            .iter()
            .any(|known| known.len() == name.len() && begins_like(name, known))
            || SENSITIVE_FAMILIES
                .iter()
                .any(|family| begins_like(name, family)))
}

/// `name` begins with `known`, case and `_`/`-` aside.
fn begins_like(name: &[u8], known: &str) -> bool {
    name.len() >= known.len()
        && name
            .iter()
            .zip(known.bytes())
            .all(|(&n, k)| n.to_ascii_lowercase() == k || (n == b'_' && k == b'-'))
}

/// May a trailer field of this name be forwarded? Not if it frames, routes, authenticates or changes how the content is read
/// (RFC 9110 §6.5.1), nor a twin of such a name.
#[must_use]
pub fn trailer_may_pass(name: &[u8]) -> bool {
    const OTHERS: [&str; 10] = [
        "_method",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "max-forwards",
        "range",
        "set-cookie",
        "www-authenticate",
    ];
    !(SENSITIVE
        .iter()
        .chain(&OTHERS)
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || SENSITIVE_FAMILIES
            .iter()
            .any(|family| begins_like(name, family))
        || is_twin(name))
}
