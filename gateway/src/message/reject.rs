//! `Denial` to answer: the sole mapping, whoever refuses.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;
use sluicegate_policy::{Denial, Hint, HintFor, Refusal, Target};

use super::proxy_status::PROXY_STATUS;
use crate::telemetry::Recorder;

/// How much an untrusted sandbox may learn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Detail {
    /// Reason, rule and hint.
    #[default]
    Full,
    /// Reason only.
    Minimal,
}

/// Who asks for a credential, where one is missing or no good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asks {
    /// The proxy: 407.
    Proxy,
    /// The resource itself: 401.
    Origin,
    /// Nobody: its client knows of no proxy, and could not present one. 403.
    Nobody,
}

/// How a refusal is told.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How much to tell.
    pub detail: Detail,
    /// Who asks for a credential.
    pub asks: Asks,
    /// The client prefers HTML (`Accept`).
    pub html: bool,
}

/// The answer to a refusal, entered in the record. `target`: where one was understood.
pub(crate) fn reject(
    refusal: &Refusal,
    target: Option<&Target>,
    recorder: &mut Recorder,
    manner: Manner,
) -> Response<Bytes> {
    recorder.refused(refusal);
    let id = recorder.id();
    let rejection = Rejection {
        refusal,
        target,
        request_id: id.as_str(),
        manner,
    };
    let (status, answer) = (rejection.status(), rejection.response());
    recorder.status(status.as_u16());
    answer
}

/// A refusal on its way to a client.
struct Rejection<'a> {
    /// What and why.
    refusal: &'a Refusal,
    /// The target, where one was understood.
    target: Option<&'a Target>,
    /// The record's id.
    request_id: &'a str,
    manner: Manner,
}

impl Rejection<'_> {
    /// The HTTP status of this answer.
    fn status(&self) -> StatusCode {
        let status = match self.denial() {
            denial @ (Denial::CredentialMissing | Denial::CredentialInvalid) => {
                match self.manner.asks {
                    Asks::Proxy => denial.status(),
                    Asks::Origin => 401,
                    Asks::Nobody => 403,
                }
            }
            denial => denial.status(),
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn denial(&self) -> Denial {
        self.refusal.denial.told()
    }

    /// RFC 9209 §2: one member for this proxy. The `details` parameter carries our reason token.
    fn proxy_status(&self) -> HeaderValue {
        let denial = self.denial();
        let text = format!(
            "sluicegate; error={}; details=\"{}\"",
            denial.proxy_error(),
            denial.reason()
        );
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("sluicegate"))
    }

    /// `{error, reason, host, port, rule, requestId, hint, hintFor}`.
    fn json(&self) -> serde_json::Value {
        let denial = self.denial();
        let full = self.manner.detail == Detail::Full;
        let hint = self.refusal.hint.as_ref().filter(|_| full);
        json!({
            "error": denial.describe(),
            "reason": denial.reason(),
            "host": self.target.map(|t| t.host().to_string()),
            "port": self.target.map(Target::port),
            "rule": self.refusal.rule.as_ref().filter(|_| full).map(|r| r.as_str().to_owned()),
            "requestId": self.request_id,
            "hint": hint.map(ToString::to_string),
            "hintFor": hint.and_then(Hint::whose).map(HintFor::as_str),
        })
    }

    /// The answer, whole.
    fn response(&self) -> Response<Bytes> {
        let status = self.status();
        let (content_type, body) = if self.manner.html {
            ("text/html; charset=utf-8", self.page())
        } else {
            ("application/json", format!("{}\n", self.json()))
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PROXY_STATUS, self.proxy_status());
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // RFC 9110 §11.7.1: a 407 names at least one challenge.
            headers.append(
                header::PROXY_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"sluicegate\", charset=\"UTF-8\""),
            );
            headers.append(
                header::PROXY_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"sluicegate\""),
            );
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.append(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"sluicegate\""),
            );
        }
        if let Some(seconds) = retry_after(self.refusal) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }

    fn page(&self) -> String {
        let json = self.json();
        let line = |name: &str, key: &str| match json.get(key) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(s)) => {
                format!("<dt>{name}</dt><dd>{}</dd>\n", escape(s))
            }
            Some(other) => format!("<dt>{name}</dt><dd>{}</dd>\n", escape(&other.to_string())),
        };
        let rows: String = [
            ("Host", "host"),
            ("Port", "port"),
            ("Reason", "reason"),
            ("Rule", "rule"),
            ("What would change it", "hint"),
            ("Who can do that", "hintFor"),
            ("Request", "requestId"),
        ]
        .map(|(name, key)| line(name, key))
        .concat();
        let status = self.status();
        let error = escape(self.denial().describe());
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{status}</title>\n\
             <h1>{error}</h1>\n<dl>\n{rows}</dl>\n</html>\n"
        )
    }
}

/// In how many seconds (RFC 9110 §10.2.3) asking again may be answered otherwise; `None` where nobody knows. Of the quotas only a
/// rate refills by itself, and one that is not zero has room for another within a second. For the others something that is open has
/// to end first, and bytes that are spent do not come back.
fn retry_after(refusal: &Refusal) -> Option<u64> {
    match (refusal.denial, &refusal.hint) {
        (Denial::TooManyOpens, Some(Hint::InUse { most, .. })) => (*most > 0).then_some(1),
        (denial, _) => (denial.status() == 503).then_some(1),
    }
}

/// Text into HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use http::header;
    use serde_json::{Value, json};
    use sluicegate_policy::{Denial, Hint, HintFor, Refusal};

    use super::{Asks, Detail, Manner, Rejection};

    #[test]
    fn who_can_do_what_helps_is_told_with_it() {
        let told = |whose, detail| {
            let refusal = Refusal {
                hint: Some(Hint::Fixed {
                    told: "do it",
                    whose,
                }),
                ..Denial::HostNotAllowed.into()
            };
            let rejection = Rejection {
                refusal: &refusal,
                target: None,
                request_id: "id",
                manner: Manner {
                    detail,
                    asks: Asks::Proxy,
                    html: false,
                },
            };
            let json = rejection.json();
            (json["hint"].clone(), json["hintFor"].clone())
        };
        for (whose, expected) in [
            (Some(HintFor::Operator), json!("operator")),
            (Some(HintFor::Session), json!("session")),
            (Some(HintFor::Client), json!("client")),
            (None, Value::Null),
        ] {
            assert_eq!(told(whose, Detail::Full), (json!("do it"), expected));
            assert_eq!(told(whose, Detail::Minimal), (Value::Null, Value::Null));
        }
    }

    #[test]
    fn who_may_come_again_is_told_when() {
        let limited = |denial: Denial, most: u64| Refusal {
            hint: Some(Hint::InUse {
                used: most,
                most,
                what: "in use",
            }),
            ..Refusal::from(denial)
        };
        let told = |refusal: &Refusal| {
            let rejection = Rejection {
                refusal,
                target: None,
                request_id: "id",
                manner: Manner {
                    detail: Detail::Minimal,
                    asks: Asks::Proxy,
                    html: false,
                },
            };
            let answer = rejection.response();
            let told = answer.headers().get(header::RETRY_AFTER);
            told.map(|told| told.to_str().unwrap().to_owned())
        };
        for denial in Denial::ALL {
            let busy = denial.status() == 503;
            let expected = busy.then(|| "1".to_owned());
            // What only an end frees, and what is spent, has no time.
            assert_eq!(told(&Refusal::from(*denial)), expected, "{denial:?}");
            let rate = *denial == Denial::TooManyOpens;
            let expected = (busy || rate).then(|| "1".to_owned());
            assert_eq!(told(&limited(*denial, 5)), expected, "{denial:?}");
        }
        assert_eq!(told(&limited(Denial::TooManyOpens, 0)), None, "never");
    }
}
