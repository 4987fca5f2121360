//! Errors as RFC 9457 problem details.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use sluicegate_policy::text::Faults;

use crate::{session::RegistryError, store::StoreError};

/// One error answer.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    /// `urn:sluicegate:problem:<token>`.
    token: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with its token and what to say about it.
    pub fn new(status: StatusCode, token: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            token,
            detail: detail.into(),
            more: Map::new(),
        }
    }

    /// An extension member (RFC 9457 §3.2).
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.into(), value.into());
        self
    }

    /// Every fault of a document, with its position.
    pub fn faults(faults: &Faults) -> Self {
        Self::with_faults(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", faults)
    }

    /// A text that is no document at all.
    pub fn malformed(faults: &Faults) -> Self {
        Self::with_faults(StatusCode::BAD_REQUEST, "malformed-body", faults)
    }

    fn with_faults(status: StatusCode, token: &'static str, faults: &Faults) -> Self {
        let fault = |fault: &sluicegate_policy::text::Fault| {
            json!({
                "line": fault.position.line,
                "column": fault.position.column,
                "path": fault.path,
                "message": fault.message,
                "hint": fault.hint,
            })
        };
        let errors: Vec<Value> = faults.errors.iter().map(fault).collect();
        let detail = match faults.errors.as_slice() {
            [only] => only.to_string(),
            all => format!("{} faults, see errors", all.len()),
        };
        Self::new(status, token, detail).with("errors", errors)
    }

    /// The body.
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:sluicegate:problem:{}", self.token),
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(fields) = body.as_object_mut() {
            fields.extend(self.more.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(format!("{}\n", self.to_json()).into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"sluicegate-admin\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        // Beyond a quota something has to end first, and nobody knows when it does.
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Faults(faults) => Self::faults(&faults),
            RegistryError::UnknownProvider(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-provider", text)
            }
            RegistryError::UnknownSession(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-session", text)
            }
            RegistryError::NotOwner(_) => Self::new(StatusCode::FORBIDDEN, "not-the-owner", text),
            RegistryError::UnknownBinding(_) => {
                Self::new(StatusCode::NOT_FOUND, "unknown-capability", text)
            }
            RegistryError::Impossible(impossible) => {
                Self::new(StatusCode::CONFLICT, "impossible-in-state", text)
                    .with("state", impossible.state.as_str())
                    .with("action", impossible.action.as_str())
            }
            RegistryError::Ended { state, .. } | RegistryError::Taken { state, .. } => {
                Self::new(StatusCode::CONFLICT, "conflict", text).with("state", state.as_str())
            }
            RegistryError::Changed { etag } => {
                Self::new(StatusCode::PRECONDITION_FAILED, "changed", text).with("etag", etag)
            }
            RegistryError::QueueFull {
                waiting,
                in_use,
                limit,
                ..
            } => Self::new(StatusCode::TOO_MANY_REQUESTS, "queue-full", text)
                .with("waiting", waiting)
                .with("inUse", in_use)
                .with("limit", limit),
            RegistryError::HandlesInUse { limit } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "handles-in-use", text)
                    .with("inUse", limit)
                    .with("limit", limit)
            }
            RegistryError::RevocationsFull { limit, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "revocations-full", text)
                    .with("inUse", limit)
                    .with("limit", limit)
            }
            RegistryError::Quota { in_use, limit, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "quota", text)
                    .with("inUse", in_use)
                    .with("limit", limit)
            }
            RegistryError::Store(StoreError::Damaged { .. }) => {
                let detail = "the session store is damaged; the gateway's log says more";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-damaged", detail)
            }
            RegistryError::Store(_) => {
                tracing::error!(error = ?error, "the session store failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", text)
            }
            RegistryError::TooSoon(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-soon", text)
            }
            RegistryError::Unreadable => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", text)
            }
            RegistryError::Interrupted => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "interrupted", text)
            }
            RegistryError::Row { .. } | RegistryError::Mint(_) | RegistryError::Randomness(_) => {
                tracing::error!(error = ?error, "an admin request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
            }
        }
    }
}
