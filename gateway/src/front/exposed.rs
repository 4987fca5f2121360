//! Credentials of ours where they do not belong: in a target, a query or a field that goes up. They grant nothing there, and no origin
//! is to learn them.

use data_encoding::{BASE64, BASE64_NOPAD};
use http::{HeaderMap, HeaderValue, header};

use crate::auth::{Authenticator, HandleHash};

/// What stands in their place.
const TAKEN: &str = "redacted";
/// A handle begins like this.
const HANDLE: &str = "sgh_";
/// A compact JWS (RFC 7515 §7.1) does: base64url of `{"`.
const TOKEN: &str = "eyJ";

/// Take them out of the path with its query and of the fields that may go up. Did any stand there?
pub(super) fn take_out(
    authenticator: &Authenticator,
    path: &mut String,
    fields: &mut HeaderMap,
) -> bool {
    let clean = |text: &str| clean(text, |word| authenticator.knows(word));
    let mut found = false;
    if let Some(cleaned) = clean(path) {
        *path = cleaned;
        found = true;
    }
    for (name, value) in fields.iter_mut() {
        // Where it belongs: it is read there, and goes no further.
        if name == header::PROXY_AUTHORIZATION {
            continue;
        }
        if let Some(cleaned) = clean(&String::from_utf8_lossy(value.as_bytes())) {
            *value =
                HeaderValue::from_str(&cleaned).unwrap_or_else(|_| HeaderValue::from_static(TAKEN));
            found = true;
        }
    }
    // A program that was given a URL with user and password sends them so.
    let basic = fields.get(header::AUTHORIZATION).and_then(basic);
    if basic.is_some_and(|text| clean(&text).is_some()) {
        fields.remove(header::AUTHORIZATION);
        found = true;
    }
    found
}

/// `text` without the credentials that are `known`; `None` where there are none. It may come from anybody: one pass, and each word
/// is asked about once.
fn clean(text: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let mut cleaned = String::new();
    let (mut at, mut kept) = (0, 0);
    while at < text.len() {
        let Some(length) = credential_at(text, at, &known) else {
            at += 1;
            continue;
        };
        cleaned.push_str(text.get(kept..at).unwrap_or_default());
        cleaned.push_str(TAKEN);
        at += length;
        kept = at;
    }
    cleaned.push_str(text.get(kept..).unwrap_or_default());
    (kept > 0).then_some(cleaned)
}

/// The length of the credential that begins here.
fn credential_at(text: &str, at: usize, known: impl Fn(&str) -> bool) -> Option<usize> {
    let from = text.get(at..)?;
    if from.starts_with(HANDLE) {
        // Whatever follows it.
        let handle = from.get(..HandleHash::LENGTH)?;
        return known(handle).then_some(handle.len());
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let inside = at
        .checked_sub(1)
        .and_then(|before| text.as_bytes().get(before));
    if !from.starts_with(TOKEN) || inside.is_some_and(is_word) {
        return None;
    }
    let word = from.get(..from.bytes().take_while(is_word).count())?;
    // The end of a sentence behind it is none of it.
    let mut words = [word, word.trim_end_matches('.')].into_iter();
    words.find(|word| known(word)).map(str::len)
}

/// What `Authorization: Basic` holds (RFC 7617).
fn basic(value: &HeaderValue) -> Option<String> {
    let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = rest.trim().as_bytes();
    let decoded = BASE64.decode(bytes).or_else(|_| BASE64_NOPAD.decode(bytes));
    Some(String::from_utf8_lossy(&decoded.ok()?).into_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::clean;

    const HANDLE: &str = "sgh_0123456789012345678901234567890123456789012";

    fn cleaned(text: &str) -> Option<String> {
        clean(text, |word| [HANDLE, "eyJh.eyJi.c-_"].contains(&word))
    }

    #[test]
    fn what_is_known_is_taken_out_wherever_it_stands() {
        for (text, left) in [
            ("H", "redacted"),
            ("/a/H/b?x=H&y=1", "/a/redacted/b?x=redacted&y=1"),
            ("Bearer eyJh.eyJi.c-_", "Bearer redacted"),
            ("sgh_other; t=H", "sgh_other; t=redacted"),
            ("eyJH", "eyJredacted"),
            ("HH", "redactedredacted"),
            ("h\u{e9}=H\u{e9}", "h\u{e9}=redacted\u{e9}"),
            ("/x/H.json", "/x/redacted.json"),
            ("/x/H_1", "/x/redacted_1"),
            ("eyJh.eyJi.c-_.", "redacted."),
        ] {
            let text = text.replace('H', HANDLE);
            assert_eq!(cleaned(&text).as_deref(), Some(left), "{text}");
        }
    }

    #[test]
    fn and_nothing_else() {
        for text in [
            "",
            "/",
            "sgh_",
            "sgh_other",
            "eyJh.eyJi",
            "xy eyJ sgh_ z",
            "xeyJh.eyJi.c-_",
        ] {
            assert_eq!(cleaned(text), None, "{text}");
        }
    }

    #[test]
    fn each_word_is_asked_about_once() {
        let asked = Cell::new(0_usize);
        let bytes = Cell::new(0_usize);
        let count = |word: &str| {
            asked.set(asked.get() + 1);
            bytes.set(bytes.get() + word.len());
            false
        };
        let (tokens, handles) = ("eyJ".repeat(20_000), "sgh_".repeat(15_000));
        assert_eq!(clean(&tokens, count), None);
        assert_eq!((asked.get(), bytes.get()), (2, 2 * tokens.len()));
        assert_eq!(clean(&handles, count), None);
        assert!(asked.get() < 2 + 15_000, "{}", asked.get());
    }
}
