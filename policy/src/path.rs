//! Path prefixes that match whole segments of a path as it was sent.

/// A prefix for methods and paths: begins with `/`, has no empty segment but a last one, no `.` or `..`, nothing encoded.
pub(crate) fn is_prefix(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.split('/').all(is_plain_segment)
}

/// Does `prefix` cover `path`? `/v1` covers `/v1` and `/v1/…`, not `/v10`; `/v1/` does not cover `/v1`.
///
/// A path that another parser might read as a different one (dot segments, empty segments, `\`, `;`, encoded
/// separators, any encoding of `%`, encodings of what is no UTF-8) is covered by nothing.
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    begins(prefix, path) && is_unambiguous(path)
}

/// Does one of them? The path is looked at once, however many there are.
pub(crate) fn covered(prefixes: &[String], path: &str) -> bool {
    prefixes.iter().any(|prefix| begins(prefix, path)) && is_unambiguous(path)
}

/// Are these the path's first segments, as it is written?
fn begins(prefix: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        return false;
    };
    rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
}

/// The prefix that covers every path.
pub(crate) const ROOT: &str = "/";

/// The narrowest prefix that covers `path` (as sent, with its query); `None` where none does. Of a long path only the
/// beginning is taken. The last resort is [`ROOT`].
pub(crate) fn narrowest(path: &str) -> Option<&str> {
    const LONG: usize = 120;
    let path = path.split('?').next().unwrap_or_default();
    let usable = |prefix: &&str| prefix.len() <= LONG && is_prefix(prefix) && covers(prefix, path);
    let cuts = path.rmatch_indices('/').map(|(at, _)| at);
    let shorter = cuts.filter_map(|at| path.get(..at.max(1)));
    let root = covers(ROOT, path).then_some(ROOT);
    std::iter::once(path).chain(shorter).find(usable).or(root)
}

/// Would every parser find the same segments?
pub(crate) fn is_unambiguous(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let no_empty = path == "/"
        || rest
            .split('/')
            .all(|s| !s.is_empty() && s != "." && s != "..");
    no_empty
        && path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b';' | b'?' | b'#'))
        && is_decodable(path)
}

/// `%` stands before two hexadecimal digits, and hides no separator, dot, control character or further `%`; what is hidden is
/// text. Lenient decoders find `.` and `/` in overlong forms (`%c0%ae`), which RFC 3629 §3 forbids.
fn is_decodable(path: &str) -> bool {
    let mut decoded = Vec::new();
    // Before the first there is nothing hidden.
    for part in path.split('%').skip(1) {
        let Some((byte, rest)) = part.split_at_checked(2).and_then(|(hex, rest)| {
            let digits = hex.bytes().all(|b| b.is_ascii_hexdigit());
            let byte = digits.then(|| u8::from_str_radix(hex, 16).ok()).flatten();
            Some((byte?, rest))
        }) else {
            return false;
        };
        let hidden = byte < 0x20
            || byte == 0x7f
            || matches!(byte, b'/' | b'.' | b'\\' | b';' | b'%' | b'?' | b'#');
        if hidden {
            return false;
        }
        decoded.push(byte);
        decoded.extend_from_slice(rest.as_bytes());
    }
    std::str::from_utf8(&decoded).is_ok()
}

fn is_plain_segment(segment: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'%' | b'?' | b'#' | b'\\' | b';');
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(plain)
}
