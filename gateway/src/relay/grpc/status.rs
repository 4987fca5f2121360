//! Refusals as gRPC answers: the closed list.

use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response, header};
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay::flow::Chunk;

use crate::telemetry::Recorder;

/// gRPC status codes used here (grpc/grpc, `statuscodes.md`).
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// A refusal on its way to a gRPC client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    refusal: Refusal,
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Self {
        Self {
            refusal: denial.into(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self { refusal }
    }
}

/// Code and message of every refusal a call can meet. The first four are what SDKs look for.
fn answer(denial: Denial) -> (u8, &'static str) {
    match denial.told() {
        // Unknown, forged, expired, absent, used from elsewhere: one answer, so that nothing can be learned from it.
        Denial::CredentialMissing | Denial::CredentialInvalid | Denial::SourceNotAllowed => {
            (UNAUTHENTICATED, "invalid-host-service-relay-token")
        }
        Denial::SessionRevoked | Denial::SessionExpired => {
            (UNAUTHENTICATED, "invalid-host-service-relay-session")
        }
        Denial::ServiceNotAllowed | Denial::ServiceMethodNotAllowed | Denial::PolicyChanged => {
            (PERMISSION_DENIED, "host-service-relay-method-not-allowed")
        }
        Denial::ServiceUnavailable | Denial::OwnListener | Denial::UpstreamReset => {
            (UNAVAILABLE, "host-service-relay-unavailable")
        }
        Denial::TooManyTunnels
        | Denial::TooManyToDestination
        | Denial::TooManyOpens
        | Denial::TooManyPending
        | Denial::TooManyConnections
        | Denial::ByteQuota => (RESOURCE_EXHAUSTED, denial.reason()),
        Denial::SessionPaused
        | Denial::Draining
        | Denial::StoreUnavailable
        | Denial::ConnectionLimit => (UNAVAILABLE, denial.reason()),
        _ => (INTERNAL, denial.reason()),
    }
}

impl Status {
    /// Answer a call that was not carried, and record it.
    pub(super) fn refuse(&self, respond: &mut SendResponse<Chunk>, recorder: &mut Recorder) {
        recorder.refused(&self.refusal);
        recorder.status(200);
        recorder.grpc_status(self.code());
        self.send(respond);
    }

    /// The code.
    pub(super) fn code(&self) -> u32 {
        answer(self.refusal.denial).0.into()
    }

    /// Trailers-only: HTTP 200, the status in the head (gRPC over HTTP/2, "Responses").
    pub(super) fn send(&self, respond: &mut SendResponse<Chunk>) {
        let mut response = Response::new(());
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.extend(self.trailers());
        // A client that is gone has no use for it.
        let _ = respond.send_response(response, true);
    }

    /// The status for the end of a response that had begun.
    pub(super) fn trailers(&self) -> HeaderMap {
        let (code, message) = answer(self.refusal.denial);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        trailers
    }
}

#[cfg(test)]
mod tests {
    use super::answer;
    use sluicegate_policy::Denial;

    #[test]
    fn what_sdks_look_for() {
        let table = [
            (
                Denial::CredentialMissing,
                16,
                "invalid-host-service-relay-token",
            ),
            (
                Denial::CredentialInvalid,
                16,
                "invalid-host-service-relay-token",
            ),
            (
                Denial::SessionRevoked,
                16,
                "invalid-host-service-relay-session",
            ),
            (
                Denial::SessionExpired,
                16,
                "invalid-host-service-relay-session",
            ),
            (
                Denial::ServiceNotAllowed,
                7,
                "host-service-relay-method-not-allowed",
            ),
            (
                Denial::ServiceMethodNotAllowed,
                7,
                "host-service-relay-method-not-allowed",
            ),
            (
                Denial::ServiceUnavailable,
                14,
                "host-service-relay-unavailable",
            ),
            (Denial::TooManyOpens, 8, "too_many_opens"),
            (Denial::SessionPaused, 14, "session_paused"),
            (Denial::Draining, 14, "draining"),
        ];
        for (denial, code, message) in table {
            assert_eq!(answer(denial), (code, message), "{denial:?}");
        }
    }

    #[test]
    fn every_message_is_a_field_value() {
        for denial in Denial::ALL {
            let (_, message) = answer(*denial);
            assert!(
                message.bytes().all(|b| b.is_ascii_graphic() && b != b'%'),
                "{message}"
            );
        }
    }
}
