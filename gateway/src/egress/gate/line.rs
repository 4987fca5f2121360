//! The first line of bytes that are not TLS: a request of HTTP/1, as far as any server might take it for one, or something else.
//!
//! What comes behind a line that is something else goes unjudged, so servers' leniency counts, and not what a request should be:
//! HTTP/0.9 (nginx, Node), any scheme before a host (nginx), protocols that are read as HTTP (Node: RTSP and ICE), CONNECT
//! without a version (Node), any white space and any method. What is wrong with a line is for the judge of requests to refuse.

use sluicegate_policy::Denial;

use super::Step;

/// The longest first line that is still waited for.
pub(super) const LONGEST_LINE: usize = 16 * 1024;
/// The longest first word that is waited for: several times any method that is registered. What has none that short is a
/// stream of something else, and must not wait here.
pub(super) const LONGEST_METHOD: usize = 256;
/// Bytes of empty lines before it. Servers skip one or a few; more are held by nobody.
pub(super) const LONGEST_BLANK: usize = 64;
/// What a PROXY header begins with, in text and in binary (HAProxy's PROXY protocol, §2.1 and §2.2). Five letters of the
/// text, whatever follows them: the protocol's sample code (§9) asks for no more, and so do lighttpd and servers in Go.
const PROXY_1: &[u8] = b"PROXY";
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Methods that servers have something to serve for (RFC 9110 §9.3, RFC 5789), but for CONNECT.
const METHODS: [&[u8]; 8] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH",
];

/// Is this the first line of an HTTP/1 request, or near enough that a server might take it for one? Anything that
/// cannot become one passes to the pinned address. What is longer than anybody's request line, and begins like one, is left to
/// the judge of requests, who refuses it; what begins with a longer word than any method, or has a control byte before it has said a target or a
/// version, is to be watched as it goes ([`super::watch`]). A PROXY header is cut: who takes one takes what follows for first bytes. How bytes
/// were split never changes the verdict.
pub(super) fn first_line(held: &[u8]) -> Step {
    if held.starts_with(PROXY_2) {
        return Step::Cut(Denial::MalformedRequest);
    }
    if PROXY_2.starts_with(held) {
        return Step::Hold;
    }
    let whole = held.len();
    let held = after_blank(held);
    if whole - held.len() > LONGEST_BLANK {
        return Step::Http;
    }
    if held.starts_with(PROXY_1) {
        return Step::Cut(Denial::MalformedRequest);
    }
    // Whatever comes behind it.
    let word = held.get(..=LONGEST_METHOD);
    if word.is_some_and(|word| word.iter().all(|b| is_token(*b))) {
        return Step::Forward;
    }
    let longest = held.get(..=LONGEST_LINE);
    let seen = longest.unwrap_or(held);
    let end = seen.iter().position(|b| *b == b'\n');
    let line = seen.get(..end.unwrap_or(seen.len())).unwrap_or_default();
    match never_in_method(line) {
        Some(byte) if is_skipped(byte) => return Step::Forward,
        Some(_) => return Step::Open,
        None if is_git(line) || is_binary(line) => return Step::Forward,
        None => {}
    }
    if end.is_none() {
        return if longest.is_some() {
            Step::Http
        } else {
            Step::Hold
        };
    }
    // A line end of LF alone is white space to some (Twisted), and what comes behind it the next word.
    let goes_on = !line.ends_with(b"\r");
    let nowhere = connects_nowhere(line);
    let line = line.trim_ascii_end();
    // HTTP/2 by prior knowledge (RFC 9113 §3.4) is plain HTTP too, and the names it asks for are not read here.
    if line == b"PRI * HTTP/2.0" {
        return Step::Cut(Denial::UnsupportedProtocol);
    }
    if nowhere || says_version(line) || says_target(line, goes_on) {
        Step::Http
    } else {
        Step::Open
    }
}

/// RFC 9112 §2.2: a server skips empty lines before the request line, and so do we; also those of white space, which some (waitress)
/// strip with them.
pub(super) fn after_blank(held: &[u8]) -> &[u8] {
    let start = held.iter().position(|b| *b != b'\n' && !is_gap(*b));
    let blank = held.get(..start.unwrap_or(held.len())).unwrap_or_default();
    let last = blank.iter().rposition(|b| b"\r\n".contains(b));
    held.get(last.map_or(0, |last| last + 1)..)
        .unwrap_or_default()
}

/// HTTP's, wherever in the line.
fn says_version(line: &[u8]) -> bool {
    let version = |six: &[u8]| {
        six.split_first()
            .is_some_and(|(before, name)| is_gap(*before) && name.eq_ignore_ascii_case(b"HTTP/"))
    };
    line.windows(6).any(version)
}

/// What lenient servers take to part the words of a request line (RFC 9112 §3), in Latin-1 whatever is white space in
/// Unicode: such a line is judged as HTTP too, and refused there.
pub(super) fn is_gap(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | 0x0b | 0x0c | b'\r' | 0x1c..=0x1f | 0x85 | 0xa0
    )
}

/// Without HTTP's version: its second word is one of the forms of a target (RFC 9112 §3.2), or its third and last the version of
/// some protocol. Behind the methods of [`METHODS`] (HTTP/0.9; waitress) and CONNECT any word is a target, but for the JSON that NATS
/// has there, and also a word that is still to come.
fn says_target(line: &[u8], goes_on: bool) -> bool {
    let mut words = line.split(|b| is_gap(*b)).filter(|word| !word.is_empty());
    let (method, target, third) = (words.next(), words.next(), words.next());
    let common = method.is_some_and(|method| METHODS.contains(&method));
    let Some(target) = target else {
        return common && goes_on;
    };
    let version = words.next().is_none() && third.is_some_and(is_version);
    let connect = method == Some(b"CONNECT".as_slice()) && !target.starts_with(b"{");
    let bare = common || connect;
    bare || version || target.starts_with(b"/") || target.starts_with(b"*") || has_scheme(target)
}

/// CONNECT, a gap, and no target, which Node serves. Without the gap it is STOMP's.
fn connects_nowhere(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let rest = line.strip_prefix(b"CONNECT").unwrap_or_default();
    !rest.is_empty() && rest.iter().all(|b| is_gap(*b))
}

/// `scheme://` (RFC 3986 §3.1), any.
fn has_scheme(target: &[u8]) -> bool {
    let end = target.windows(3).position(|three| three == b"://");
    let scheme = target.get(..end.unwrap_or_default()).unwrap_or_default();
    let follows = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(follows)
}

/// A protocol's name and a version with a point in it, such as `RTSP/1.0`.
fn is_version(word: &[u8]) -> bool {
    let mut parts = word.splitn(2, |b| *b == b'/');
    let (name, number) = (parts.next().unwrap_or_default(), parts.next());
    let Some(number) = number else { return false };
    let mut digits = number.splitn(2, |b| *b == b'.');
    let [major, minor] = [digits.next(), digits.next()].map(Option::unwrap_or_default);
    let begins = |part: &[u8]| part.first().is_some_and(u8::is_ascii_digit);
    !name.is_empty() && name.iter().all(u8::is_ascii_alphabetic) && begins(major) && begins(minor)
}

/// The one line of git's own protocol (gitprotocol-pack(5), "Git Transport"): its length in hexadecimal, a command, a path, which looks like a
/// target, and then a zero byte. There is no line end to wait for.
fn is_git(line: &[u8]) -> bool {
    const COMMANDS: [&[u8]; 3] = [
        b"git-upload-pack ",
        b"git-receive-pack ",
        b"git-upload-archive ",
    ];
    line.split_first_chunk::<4>().is_some_and(|(length, rest)| {
        length.iter().all(u8::is_ascii_hexdigit)
            && COMMANDS.iter().any(|command| rest.starts_with(command))
            && rest.contains(&0)
    })
}

/// A control byte behind what says no target yet and no version: a length or a number of a binary protocol (LDAP, Hadoop's RPC, OPC UA). Such
/// lines need have no end. Where a target or a version comes before it, the line is waited for, and judged.
fn is_binary(line: &[u8]) -> bool {
    let first = line.iter().position(|b| is_control(*b));
    let begun = first.and_then(|first| line.get(..=first));
    begun.is_some_and(|begun| !says_version(begun) && !says_target(begun, false))
}

/// The first byte that no method has, if there is one in the first word (methods are tokens, RFC 9110 §9.1). Gaps before it do not count:
/// lengths that other protocols begin with look like one.
fn never_in_method(line: &[u8]) -> Option<u8> {
    let mut words = line.split(|b| is_gap(*b)).filter(|word| !word.is_empty());
    let mut method = words.next().unwrap_or_default().iter().copied();
    method.find(|b| !is_token(*b))
}

/// Text has none, and no server parts words by it; but some take it for part of a word.
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\n' && !is_gap(byte)
}

/// Nothing before a line to some (Netty): control bytes, those of Latin-1's upper half among them.
pub(super) fn is_skipped(byte: u8) -> bool {
    is_control(byte) || (matches!(byte, 0x80..=0x9f) && !is_gap(byte))
}

pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
