//! Paths, queries and bodies to types.

use std::{collections::BTreeSet, time::Duration};

use axum::{body::Body, extract::Query, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::LengthLimitError;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::Digest;
use sluicegate_policy::text::{self, Faults, Fields};

use super::Problem;
use crate::auth::Principal;

/// Bodies are documents, not data.
const MAX_BODY: usize = 1024 * 1024;
/// A body that takes longer is not an operator's.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body as text, 1 MiB at most, JSON or YAML; what it says is judged later.
pub(super) async fn body_text(body: Body) -> Result<String, Problem> {
    let read = axum::body::to_bytes(body, MAX_BODY);
    let read = tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .map_err(|_| {
            let detail = "the body did not come within 30 seconds";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail)
        })?;
    let bytes = read.map_err(|error| unread(&error))?;
    let text = String::from_utf8(bytes.into()).map_err(|_| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "not-utf-8",
            "the body is not UTF-8",
        )
    })?;
    // Sound JSON that is faulty only as a document (a key twice, say) is told so later, with its other faults.
    let json = text.trim().is_empty() || serde_json::from_str::<IgnoredAny>(&text).is_ok();
    let mut faults = Faults::default();
    if !json && (text::parse(&text, &mut faults), !faults.is_clean()).1 {
        return Err(Problem::malformed(&faults));
    }
    Ok(text)
}

/// Why a body could not be had.
fn unread(error: &axum::Error) -> Problem {
    let too_large =
        std::error::Error::source(error).is_some_and(|why| why.is::<LengthLimitError>());
    if too_large {
        let detail = "the body is larger than 1 MiB (limit, in bytes): send it in parts";
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
            .with("limit", MAX_BODY);
    }
    let detail = "the body broke off before its end";
    Problem::new(StatusCode::BAD_REQUEST, "body-cut-off", detail)
}

/// Read a small document; an empty body is an empty one. All faults at once.
pub(super) fn read<T>(
    source: &str,
    reader: impl FnOnce(&mut Fields<'_>, &mut Faults) -> Option<T>,
) -> Result<T, Problem> {
    let mut faults = Faults::default();
    let root = text::parse(
        if source.trim().is_empty() {
            "{}"
        } else {
            source
        },
        &mut faults,
    );
    let mut fields = root.fields(&mut faults);
    let value = reader(&mut fields, &mut faults);
    fields.finish(&mut faults);
    match value {
        Some(value) if faults.is_clean() => Ok(value),
        Some(_) | None => Err(Problem::faults(&faults)),
    }
}

/// What an `Idempotency-Key` stands for, as hex: the same key again is the same request, across restarts too.
pub(super) fn idempotent(
    headers: &HeaderMap,
    principal: &Principal,
) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if key.is_empty() || key.len() > 255 || keys.next().is_some() {
        let detail = "one Idempotency-Key, of 1 to 255 octets";
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed-field",
            detail,
        ));
    }
    // Two owners may choose the same key.
    let owner = principal.owner.as_deref().unwrap_or_default();
    let mut digest = sha2::Sha256::new();
    digest.update(owner);
    digest.update(if owner.is_empty() { "" } else { "\0" });
    digest.update(key);
    let digest = data_encoding::HEXLOWER.encode(&digest.finalize());
    Ok(Some(digest.get(..32).unwrap_or(&digest).to_owned()))
}

/// The query has known keys only, each once.
pub(super) fn check_query(raw: Option<&str>, known: &[&str]) -> Result<(), Problem> {
    let malformed =
        |detail: String| Problem::new(StatusCode::BAD_REQUEST, "malformed-query", detail);
    let uri = format!("/?{}", raw.unwrap_or_default());
    let pairs = uri
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| Query::<Vec<(String, String)>>::try_from_uri(&uri).ok())
        .ok_or_else(|| malformed("the query is not key=value pairs".to_owned()))?;
    let mut found = BTreeSet::new();
    for (key, _) in pairs.0 {
        if !known.contains(&key.as_str()) {
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(malformed(format!(
                "unknown query key {key:?}; known here: {known}"
            )));
        }
        if !found.insert(key.clone()) {
            return Err(malformed(format!("query key {key:?} is given twice")));
        }
    }
    Ok(())
}

/// A JSON answer that no cache keeps: it may hold credentials.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(format!("{body}\n").into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use axum::body::Bytes;
    use http_body::Frame;
    use tokio::time::{Instant, Sleep, sleep};

    use super::*;

    /// `{`, and then nothing.
    struct Cut(bool);

    impl http_body::Body for Cut {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let began = std::mem::replace(&mut self.0, true);
            Poll::Ready(Some(if began {
                Err(std::io::ErrorKind::UnexpectedEof.into())
            } else {
                Ok(Frame::data(Bytes::from_static(b"{")))
            }))
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_told_by_how_much_and_one_that_breaks_off_is_another() {
        let large = "a".repeat(MAX_BODY + 1);
        for (body, status, limit) in [
            (Body::from(large), 413, Some(MAX_BODY)),
            (Body::new(Cut(false)), 400, None),
        ] {
            let told = body_text(body).await.unwrap_err().to_json();
            assert_eq!(told.get("status"), Some(&status.into()));
            assert_eq!(told.get("limit"), limit.map(Value::from).as_ref());
        }
        let most = format!("\"{}\"", "a".repeat(MAX_BODY - 2));
        assert_eq!(body_text(Body::from(most)).await.unwrap().len(), MAX_BODY);
    }

    /// `{}`, its last byte after this time.
    struct Slow(Pin<Box<Sleep>>, u8);

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let piece: &[u8] = match self.1 {
                0 => b"{",
                1 => {
                    ready!(self.0.as_mut().poll(cx));
                    b"}"
                }
                _ => return Poll::Ready(None),
            };
            self.1 += 1;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece)))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_half_a_minute() {
        for (takes, comes) in [(29, true), (31, false), (86_400, false)] {
            let began = Instant::now();
            let body = Slow(Box::pin(sleep(Duration::from_secs(takes))), 0);
            let read = body_text(Body::new(body)).await;
            if comes {
                assert_eq!(read.unwrap(), "{}");
                continue;
            }
            let answer = axum::response::IntoResponse::into_response(read.unwrap_err());
            assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
            assert!(began.elapsed() < Duration::from_secs(31), "{takes}");
        }
    }
}
