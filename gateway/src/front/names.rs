//! `GET /egress/v1/names/{name}`, or a stream of the relay's own protocol: may this session reach that name, on any port? Asked by the name server of a sandbox,
//! which answers its programs with addresses that mean nothing elsewhere. Nothing is resolved here, and whoever then
//! connects is decided for anew. A refusal is recorded, and has the rate of refused opens; a good answer is no traffic, and is not.

use std::{net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, HostName, Refusal, decide_name};
use sluicegate_relay_protocol::asked_name;

use super::{Context, standing::Standing};
use crate::{
    message::Asks,
    outcome::{Outcome, Party},
    telemetry::{Front, Kind, Recorder},
};

/// What is recorded where there is nothing at all.
const UNREADABLE: &str = "(unreadable)";
/// Characters that are recorded of one that is none.
const LONGEST: usize = 100;

/// A name as sent, or what stands in the path in place of one.
pub(super) type Asked = Result<String, String>;

/// What a request asks about; `None` where it is no such request.
pub(super) fn asked(method: &Method, uri: &Uri) -> Option<Asked> {
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let asked = asked_name(path).filter(|_| *method == Method::GET)?;
    Some(asked.map_err(str::to_owned))
}

/// 204, or the refusal.
pub(super) fn answer(
    context: &Context,
    asked: Asked,
    fields: &HeaderMap,
    channel: Option<&Channel>,
    from: (SocketAddr, Option<&Standing>),
) -> Response<Bytes> {
    let credentials = fields.get_all(header::AUTHORIZATION).iter();
    let credentials = credentials.map(HeaderValue::as_bytes);
    answer_to(context, asked, credentials, channel, from)
}

/// The same for credentials that came some other way. It came from there, where others come beside it on this connection.
pub(super) fn answer_to<'a>(
    context: &Context,
    asked: Asked,
    credentials: impl Iterator<Item = &'a [u8]>,
    channel: Option<&Channel>,
    from: (SocketAddr, Option<&Standing>),
) -> Response<Bytes> {
    let mut recorder = context.telemetry.begin(Kind::request, Front::names, from.0);
    match decide(context, asked, (credentials, channel), from, &mut recorder) {
        Ok(()) => {
            recorder.ended(Outcome::Completed, Party::Gateway);
            recorder.unwritten();
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Err(refusal) => context.reject(Asks::Origin, &refusal, None, &mut recorder, false),
    }
}

fn decide<'a>(
    context: &Context,
    asked: Asked,
    (credentials, channel): (impl Iterator<Item = &'a [u8]>, Option<&Channel>),
    (peer, carrier): (SocketAddr, Option<&Standing>),
    recorder: &mut Recorder,
) -> Result<(), Refusal> {
    // Until it is known to be a name.
    recorder.target(match &asked {
        Ok(text) | Err(text) if !text.is_empty() => printable(text),
        Ok(_) | Err(_) => UNREADABLE.to_owned(),
    });
    let name = asked.ok().and_then(|asked| HostName::parse(&asked).ok());
    if let Some(name) = &name {
        recorder.target(name);
    }
    // First who asks: what is no name is an ask of somebody too, and has the rate of their refusals.
    let identity = context.identify_proxy(credentials, channel, recorder, peer.ip())?;
    if let Some(standing) = carrier {
        standing.here(&identity.session)?;
    }
    let judged = identity.judge(|policy| {
        let decided = match &name {
            Some(name) => decide_name(&policy.grant, name),
            None => Err(Refusal::from(Denial::MalformedTarget)),
        };
        let session = &identity.session;
        decided.map_err(|refusal| session.refused(refusal, SystemTime::now()))
    });
    judged.map(drop)
}

/// What somebody asked for, as a log and a terminal can show it.
fn printable(asked: &str) -> String {
    let escaped = asked.chars().flat_map(char::escape_default);
    escaped.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, printable};

    #[test]
    fn what_is_no_name_is_recorded_printable_and_short() {
        for (asked, recorded) in [
            ("a\\/b.api.test", "a\\\\/b.api.test"),
            ("a\u{1b}[2J", "a\\u{1b}[2J"),
            ("bücher", "b\\u{fc}cher"),
        ] {
            assert_eq!(printable(asked), recorded);
        }
        assert_eq!(printable(&"\u{1}".repeat(255)).len(), LONGEST);
    }
}
