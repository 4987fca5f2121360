//! What can be told of a target that cannot be read: where it leads all the same, and what is wrong with the rest.

use sluicegate_policy::{Denial, Hint, HintFor, Refusal, Target};

/// The host and port of an absolute-form target (RFC 9112 §3.2.2) of which anything else is malformed. `head` begins with the
/// request line.
pub(crate) fn leads_to(denial: Denial, head: &[u8]) -> Option<Target> {
    if denial != Denial::MalformedTarget {
        return None;
    }
    let target = head.split(|byte| *byte == b' ').nth(1)?;
    let (scheme, rest) = target.split_at_checked(b"http://".len())?;
    if !scheme.eq_ignore_ascii_case(b"http://") {
        return None;
    }
    let end = rest.iter().position(|byte| b"/?#".contains(byte));
    let authority = rest.get(..end.unwrap_or(rest.len()))?;
    Target::from_uri_authority(str::from_utf8(authority).ok()?, 80).ok()
}

/// Is it the path or query of a target that is malformed? In origin-form (RFC 9112 §3.2.1) there is nothing else; in absolute-form
/// it is, where the rest leads somewhere.
pub(crate) fn in_path(denial: Denial, head: &[u8]) -> bool {
    let target = head.split(|byte| *byte == b' ').nth(1);
    let origin_form = target.is_some_and(|target| target.starts_with(b"/"));
    (denial == Denial::MalformedTarget && origin_form) || leads_to(denial, head).is_some()
}

/// The refusal of a head, where a path or query is at fault or something else.
pub(crate) fn refusal(denial: Denial, in_path: bool) -> Refusal {
    let hint = in_path.then_some(Hint::Fixed {
        told: "send what no path or query holds as it is percent-encoded: <, >, \", ` and # (RFC 3986 §2.1)",
        whose: Some(HintFor::Client),
    });
    Refusal {
        hint,
        ..denial.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Denial, in_path, leads_to};

    #[test]
    fn where_a_target_leads_that_cannot_be_read() {
        for (head, expected) in [
            ("GET http://a.test/a<b> HTTP/1.1\r\n", Some("a.test:80")),
            (
                "\r\nGET HTTP://A.test:8080?\"x\" HTTP/1.1",
                Some("a.test:8080"),
            ),
            ("GET http://a.test#x HTTP/1.1", Some("a.test:80")),
            ("GET http://u@a.test/< HTTP/1.1", None),
            ("GET http://a<b.test/ HTTP/1.1", None),
            ("GET https://a.test/< HTTP/1.1", None),
            ("GET /a<b HTTP/1.1", None),
            ("GET http:/ HTTP/1.1", None),
            ("CONNECT a.test:443# HTTP/1.1", None),
            ("GET", None),
            ("", None),
        ] {
            let found = leads_to(Denial::MalformedTarget, head.as_bytes());
            let found = found.map(|target| target.to_string());
            assert_eq!(found.as_deref(), expected, "{head}");
        }
        let other = leads_to(Denial::MalformedRequest, b"GET http://a.test/ HTTP/1.1");
        assert!(other.is_none());
    }

    #[test]
    fn a_path_is_at_fault_where_all_else_can_be_read() {
        for (head, expected) in [
            ("GET /a<b HTTP/1.1\r\n", true),
            ("\r\nGET /?\"x\" HTTP/1.1", true),
            ("GET http://a.test/a<b> HTTP/1.1", true),
            ("GET http://a<b.test/ HTTP/1.1", false),
            ("GET a<b HTTP/1.1", false),
            ("CONNECT a.test:443# HTTP/1.1", false),
            ("GET", false),
        ] {
            let found = in_path(Denial::MalformedTarget, head.as_bytes());
            assert_eq!(found, expected, "{head}");
            assert!(
                !in_path(Denial::MalformedRequest, head.as_bytes()),
                "{head}"
            );
        }
    }
}
