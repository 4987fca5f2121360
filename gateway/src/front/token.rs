//! `POST /relay/v1/token`: a fresh relay token for a live one, presented as `Authorization: Bearer`.

use std::{net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use serde_json::json;
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Refusal};
use sluicegate_relay_protocol::TOKEN_PATH;

use super::{Detail, standing::Standing};
use crate::{
    auth::{Authenticator, Presented, bearer},
    clock::rfc3339,
    message::{Asks, Manner, reject},
    outcome::{Outcome, Party},
    secret::Secret,
    telemetry::{Front, Kind, Telemetry},
};

/// Is this request one?
pub(super) fn is_refresh(method: &Method, path: &str) -> bool {
    *method == Method::POST && path == TOKEN_PATH
}

/// Answer it: `{token, expiresAt}`, or the refusal. A body is not looked at.
pub(super) fn answer(
    authenticator: &Authenticator,
    headers: &HeaderMap,
    channel: Option<&Channel>,
    (downstream, carrier): (SocketAddr, Option<&Standing>),
    detail: Detail,
    telemetry: &Telemetry,
) -> Response<Bytes> {
    let presented = bearer(
        headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes),
    );
    let asker = (Front::origin, downstream, carrier);
    refreshed(
        authenticator,
        (presented, channel),
        asker,
        detail,
        telemetry,
    )
}

/// The same for a credential that came some other way.
pub(super) fn refreshed(
    authenticator: &Authenticator,
    (shown, channel): (Result<Secret, Denial>, Option<&Channel>),
    (front, downstream, carrier): (Front, SocketAddr, Option<&Standing>),
    detail: Detail,
    telemetry: &Telemetry,
) -> Response<Bytes> {
    let mut recorder = telemetry.begin(Kind::request, front, downstream);
    recorder.http("POST", TOKEN_PATH);
    let refreshed = shown.map_err(Refusal::from).and_then(|shown| {
        let presented = Presented::on(&shown, channel);
        let refreshed = authenticator.refresh(presented, downstream.ip(), SystemTime::now())?;
        if let Some(standing) = carrier {
            standing.here(&refreshed.session)?;
        }
        Ok(refreshed)
    });
    match refreshed {
        Ok(refreshed) => {
            let generation = refreshed.session.stands(None).unwrap_or_default();
            recorder.session(refreshed.session.label(), generation);
            recorder.status(200);
            recorder.ended(Outcome::Completed, Party::Gateway);
            let body = json!({
                "token": refreshed.token.reveal(),
                "expiresAt": rfc3339(refreshed.expires),
            });
            let mut response = Response::new(Bytes::from(format!("{body}\n")));
            let headers = response.headers_mut();
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
            let secret = HeaderValue::from_static("no-store");
            headers.insert(header::CACHE_CONTROL, secret);
            response
        }
        Err(refusal) => refused(&refusal, detail, &mut recorder),
    }
}

fn refused(
    refusal: &Refusal,
    detail: Detail,
    recorder: &mut crate::telemetry::Recorder,
) -> Response<Bytes> {
    let manner = Manner {
        detail,
        asks: Asks::Origin,
        html: false,
    };
    reject(refusal, None, recorder, manner)
}
