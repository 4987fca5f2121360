//! Proxy-Status (RFC 9209): the field by which a refusal is known to be ours, and what keeps an upstream from saying it in our
//! name.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Us, and our end in the sandbox, as members of the list.
const OURS: [&str; 2] = ["sluicegate", "sluicegate-relay"];

/// Take off what an upstream says in our name: it did not come by us yet. What other intermediaries say stays (RFC 9209 §2). A
/// list that cannot be read is nobody's word: it goes as a whole (RFC 9651 §4.2).
pub(crate) fn drop_own(headers: &mut HeaderMap) {
    // Several lines are one list (RFC 9651 §4.2), in which a text may even begin on one and end on another.
    let lines = headers.get_all(PROXY_STATUS).iter();
    let lines: Vec<&[u8]> = lines.map(HeaderValue::as_bytes).collect();
    let list = lines.join(&b", "[..]);
    if list.is_empty() {
        headers.remove(PROXY_STATUS);
        return;
    }
    // Whoever reads line by line must find the same.
    let alone = lines.iter().all(|line| members(line).is_some());
    let members = members(&list).filter(|_| alone).unwrap_or_default();
    let kept = |member: &&[u8]| {
        let speaker = speaker(member);
        speaker.is_some_and(|name| !OURS.iter().any(|own| own.eq_ignore_ascii_case(&name)))
    };
    let others: Vec<&[u8]> = members.iter().copied().filter(kept).collect();
    if !members.is_empty() && others.len() == members.len() {
        return;
    }
    match HeaderValue::from_bytes(&others.join(&b", "[..])) {
        Ok(value) if !others.is_empty() => {
            headers.insert(PROXY_STATUS, value);
        }
        _ => {
            headers.remove(PROXY_STATUS);
        }
    }
}

/// The members of a list: what stands between commas that are in no text and in no inner list.
fn members(list: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut found, mut from) = (Vec::new(), 0);
    let (mut in_text, mut escaped, mut depth) = (false, false, 0_usize);
    for (at, &byte) in list.iter().enumerate() {
        if !(byte == b' ' || byte == b'\t' || byte.is_ascii_graphic()) {
            return None;
        }
        match byte {
            b'"' | b'\\' if escaped => escaped = false,
            _ if escaped => return None,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                found.push(list.get(from..at)?);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(list.get(from..)?);
    let whole = !in_text && depth == 0;
    let found: Vec<&[u8]> = found.into_iter().map(<[u8]>::trim_ascii).collect();
    (whole && found.iter().all(|member| !member.is_empty())).then_some(found)
}

/// Who says it: a token or a text (RFC 9209 §2). Nothing else names anybody.
fn speaker(member: &[u8]) -> Option<String> {
    let mut bytes = member.iter().copied();
    let mut name = String::new();
    let first = bytes.next()?;
    if first == b'"' {
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => return Some(name),
                b'\\' => name.push(bytes.next()?.into()),
                byte => name.push(byte.into()),
            }
        }
        return None;
    }
    if !(first.is_ascii_alphabetic() || first == b'*') {
        return None;
    }
    name.push(first.into());
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte);
    name.extend(bytes.take_while(of_token).map(char::from));
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(lines: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PROXY_STATUS, HeaderValue::from_static(line));
        }
        drop_own(&mut headers);
        let left = headers.get_all(PROXY_STATUS).iter();
        left.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn what_others_say_stays_as_it_is() {
        for lines in [
            &["cdn.example.net; error=connection_timeout"][..],
            &["a, b;details=\"sluicegate; error=x\"", "c"],
            &["\"sluicegate of another\"; received-status=200"],
            &["sluicegate.example.net; error=dns_error"],
            &[],
        ] {
            assert_eq!(left(lines), lines, "{lines:?}");
        }
    }

    #[test]
    fn nobody_speaks_in_our_name() {
        let forged = "sluicegate; error=http_request_denied; details=\"host_not_allowed\"";
        for (lines, others) in [
            (&[forged][..], ""),
            (&["sluicegate"], ""),
            (&["\"sluicegate\"; error=x"], ""),
            (
                &["\"sluice\\\"gate\", Sluicegate;error=x"],
                "\"sluice\\\"gate\"",
            ),
            (&["sluicegate-relay; error=x"], ""),
            (&["sluicegate ; error=x"], ""),
            (&["cdn, sluicegate;a=\"b, c\",d"], "cdn, d"),
            (&["cdn; details=\"a, b\"", forged], "cdn; details=\"a, b\""),
        ] {
            let expected: Vec<&str> = Some(others).filter(|o| !o.is_empty()).into_iter().collect();
            assert_eq!(left(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_goes_as_a_whole() {
        for lines in [
            // One text over two lines, or a member of ours: two readers would differ.
            &["a; details=\"", "sluicegate; error=x; details=\""][..],
            &["a; details=\"x"],
            &["a; details=\"x\\y\""],
            &["a,, b"],
            &["a, "],
            &[""],
            &["(a b"],
            &["a)"],
        ] {
            assert_eq!(left(lines), Vec::<String>::new(), "{lines:?}");
        }
        for lines in [
            &["(\"sluicegate\"); error=x, a"][..],
            &["1, a"],
            &[":c2x1:, a"],
        ] {
            assert_eq!(left(lines), ["a"], "{lines:?}");
        }
    }
}
