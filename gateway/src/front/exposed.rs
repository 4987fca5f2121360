//! Credentials of ours where they do not belong: in a target, a query or a field that goes up. They grant nothing there, and no origin
//! is to learn them.

use std::borrow::Cow;

use data_encoding::{BASE64, BASE64_NOPAD};
use http::{HeaderMap, HeaderValue, header};

use crate::auth::Authenticator;

/// What stands in their place.
const TAKEN: &str = "redacted";
/// Characters of a handle.
const HANDLE: usize = 47;
/// A handle, or a compact JWS (RFC 7515 §7.1: base64url of `{"`), begins like this.
const BEGINNINGS: [&str; 2] = ["sgh_", "eyJ"];

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

/// `text` without the words that are `known`; `None` where there are none.
fn clean(text: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let mut cleaned = String::new();
    let (mut rest, mut found) = (text, false);
    while let Some(at) = BEGINNINGS.iter().filter_map(|begin| rest.find(begin)).min() {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let word = from.get(..end.unwrap_or(from.len())).unwrap_or_default();
        cleaned.push_str(before);
        // Whatever follows a handle; the end of a sentence behind a token.
        let handle = word.get(..HANDLE).unwrap_or(word);
        let sentence = word.trim_end_matches('.');
        if let Some(known) = [word, handle, sentence]
            .into_iter()
            .find(|word| known(word))
        {
            cleaned.push_str(TAKEN);
            found = true;
            rest = from.get(known.len()..).unwrap_or_default();
        } else {
            // Another may begin inside it.
            let (begin, more) = from.split_at(1);
            cleaned.push_str(begin);
            rest = more;
        }
    }
    cleaned.push_str(rest);
    found.then_some(cleaned)
}

/// What `Authorization: Basic` holds (RFC 7617).
fn basic(value: &HeaderValue) -> Option<Cow<'static, str>> {
    let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = rest.trim().as_bytes();
    let decoded = BASE64.decode(bytes).or_else(|_| BASE64_NOPAD.decode(bytes));
    Some(Cow::Owned(
        String::from_utf8_lossy(&decoded.ok()?).into_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::clean;

    const HANDLE: &str = "sgh_0123456789012345678901234567890123456789012";

    fn cleaned(text: &str) -> Option<String> {
        clean(text, |word| {
            [HANDLE, "sgh_known", "eyJh.eyJi.c-_"].contains(&word)
        })
    }

    #[test]
    fn what_follows_it_makes_no_other_word_of_it() {
        for end in [".json", "-1", "_1", ".", "A"] {
            let left = cleaned(&format!("/x/{HANDLE}{end}"));
            assert_eq!(left, Some(format!("/x/redacted{end}")));
        }
        assert_eq!(cleaned("eyJh.eyJi.c-_."), Some("redacted.".to_owned()));
    }

    #[test]
    fn what_is_known_is_taken_out_wherever_it_stands() {
        for (text, left) in [
            ("sgh_known", "redacted"),
            (
                "/a/sgh_known/b?x=sgh_known&y=1",
                "/a/redacted/b?x=redacted&y=1",
            ),
            ("Bearer eyJh.eyJi.c-_", "Bearer redacted"),
            ("sgh_other; t=sgh_known", "sgh_other; t=redacted"),
            ("eyJsgh_known", "eyJredacted"),
        ] {
            assert_eq!(cleaned(text).as_deref(), Some(left), "{text}");
        }
    }

    #[test]
    fn and_nothing_else() {
        for text in [
            "",
            "/",
            "sgh_",
            "sgh_known2",
            "sgh_other",
            "eyJh.eyJi",
            "xy eyJ sgh_ z",
        ] {
            assert_eq!(cleaned(text), None, "{text}");
        }
    }
}
