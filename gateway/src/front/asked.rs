//! What one forwarded request asks for: its target, its decision, and itself written anew.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use http::{HeaderValue, Method, Request, Uri, Version, header, uri::Scheme};
use sluicegate_policy::{Denial, Host, Refusal, Target, TargetPermit};

use super::{
    client_body::ClientBody,
    context::Context,
    forward::Scope,
    headers,
    pool::{Adopted, PoolKey},
    standing::Standing,
};
use crate::{
    auth::Identity,
    session::{Judged, PolicyGeneration},
    telemetry::Recorder,
};

/// What a request needs from its decision until its end.
pub(super) struct Way {
    pub(super) identity: Identity,
    pub(super) policy: Arc<PolicyGeneration>,
    pub(super) permit: TargetPermit,
    pub(super) authority: crate::session::Changes,
    pub(super) key: PoolKey,
    /// The connection it came out of a CONNECT with.
    pub(super) adopted: Option<Adopted>,
}

/// The target of a request, and that everything in it which names one names the same.
pub(super) fn request_target(
    scope: &Scope,
    request: &Request<ClientBody>,
) -> Result<Target, Refusal> {
    let host = request.headers().get(header::HOST).map(HeaderValue::to_str);
    let host = host.transpose().map_err(|_| Denial::MalformedRequest)?;
    let uri = request.uri();
    // RFC 9112 §3.2.4: asterisk form is for OPTIONS alone.
    if uri.path() == "*" && *request.method() != Method::OPTIONS {
        return Err(Denial::MalformedTarget.into());
    }
    let target = match scope {
        Scope::Proxy if uri.scheme().is_none() && uri.path() == "*" => {
            return Err(Denial::MalformedTarget.into());
        }
        Scope::Proxy if uri.scheme().is_none() => {
            // Origin form asks for something of ours; authority and asterisk form are another method's.
            let origin = uri.authority().is_none() && uri.path().starts_with('/');
            return Err(if origin {
                Denial::NotFound
            } else {
                Denial::MalformedTarget
            }
            .into());
        }
        Scope::Proxy => {
            // https in absolute-form would be downgraded on the way: a client that wants TLS uses CONNECT.
            if uri.scheme() != Some(&Scheme::HTTP) {
                return Err(Denial::MalformedTarget.into());
            }
            let authority = uri.authority().ok_or(Denial::MalformedTarget)?;
            Target::from_uri_authority(authority.as_str(), 80)
                .map_err(|_| Denial::MalformedTarget)?
        }
        Scope::Inside { target, .. } if uri.scheme().is_none() && uri.authority().is_none() => {
            target.clone()
        }
        Scope::Captured { port, literal, .. } => {
            let named = captured_target(request, host, *port, *literal)?;
            return Ok(named);
        }
        Scope::Inside { target, .. } => {
            // No more than outside: what is behind the tunnel would be asked in the plain.
            if uri.scheme() != Some(&Scheme::HTTP) {
                return Err(Denial::MalformedTarget.into());
            }
            let named = uri
                .authority()
                .and_then(|a| Target::from_uri_authority(a.as_str(), 80).ok());
            if named.as_ref() != Some(target) {
                return Err(Denial::HostMismatch.into());
            }
            target.clone()
        }
    };
    match host {
        // HTTP/1.0 has no Host to ask for (RFC 9112 §3.2 requires it of HTTP/1.1): the request's own target is what it means, or its tunnel's.
        None if request.version() == Version::HTTP_10 => {}
        None => return Err(Denial::HostMismatch.into()),
        Some(host) => {
            // A Host without a port is the scheme's default; several clients leave it off where it is another.
            let named = Target::from_uri_authority(host, target.port())
                .map_err(|_| Denial::MalformedRequest)?;
            if named != target {
                return Err(Denial::HostMismatch.into());
            }
        }
    }
    Ok(target)
}

/// Where a request leads whose client believes to speak to the origin: to its Host, and to no other port than the connection
/// was meant for. A client of HTTP/1.0 may leave Host out, and then means the address.
fn captured_target(
    request: &Request<ClientBody>,
    host: Option<&str>,
    port: u16,
    literal: Option<IpAddr>,
) -> Result<Target, Denial> {
    let target = match (host, literal) {
        (Some(host), _) => {
            Target::from_uri_authority(host, port).map_err(|_| Denial::MalformedTarget)?
        }
        (None, Some(ip)) if request.version() == Version::HTTP_10 => {
            Target::new(Host::Ip(ip), port).ok_or(Denial::MalformedTarget)?
        }
        (None, _) => return Err(Denial::HostMismatch),
    };
    // RFC 9112 §3.2.2: absolute-form is taken from anybody; here it names what Host names, or nothing of ours.
    let uri = request.uri();
    let absolute = uri.authority().map(|authority| {
        let plain = uri.scheme() == Some(&Scheme::HTTP);
        plain && Target::from_uri_authority(authority.as_str(), 80).as_ref() == Ok(&target)
    });
    if target.port() != port || absolute == Some(false) {
        return Err(Denial::HostMismatch);
    }
    Ok(target)
}

/// Whose it is, and may it. Where `carrier` carries others beside it, that takes its place first, as for a tunnel: what is refused is asked
/// by somebody too.
pub(super) fn decide(
    context: &Context,
    scope: &Scope,
    (peer, carrier): (SocketAddr, Option<&Standing>),
    request: &Request<ClientBody>,
    target: &Target,
    recorder: &mut Recorder,
) -> Result<Way, Refusal> {
    let identity = match scope {
        Scope::Proxy => {
            let fields = request
                .headers()
                .get_all(header::PROXY_AUTHORIZATION)
                .iter()
                .map(HeaderValue::as_bytes);
            context.identify_proxy(fields, None, recorder, peer.ip())?
        }
        Scope::Inside { identity, .. } => identity.clone(),
        Scope::Captured { login, .. } => {
            if context.drain.refusing() {
                return Err(Denial::Draining.into());
            }
            let identity = login.clone()?;
            identity.stands()?;
            identity.session.touch(SystemTime::now());
            identity
        }
    };
    if let Some(standing) = carrier {
        standing.here(&identity.session)?;
        let budget = identity.session.budget();
        standing.carry_asked(budget, identity.right(), &context.h2.limits)?;
    }
    let Judged {
        permit,
        policy,
        changes,
    } = identity.judge(|policy| {
        recorder.session(identity.session.label(), policy.number);
        let decided = context.egress.decide(policy, target, recorder);
        decided.map_err(|refusal| identity.session.refused(refusal, SystemTime::now()))
    })?;
    let key = key(&identity, &policy, target);
    Ok(Way {
        identity,
        policy,
        permit,
        authority: changes,
        key,
        adopted: match scope {
            Scope::Inside { adopted, .. } => Some(adopted.clone()),
            Scope::Proxy | Scope::Captured { .. } => None,
        },
    })
}

pub(super) fn key(identity: &Identity, policy: &PolicyGeneration, target: &Target) -> PoolKey {
    PoolKey {
        session: identity.session.key().clone(),
        generation: identity.session.generation(),
        policy: (policy.number, policy.narrowed),
        target: target.clone(),
    }
}

/// The request as it goes up: origin form, Host from the target, nothing that is between neighbours.
pub(super) fn rewrite(
    mut request: Request<ClientBody>,
    target: &Target,
    path: &str,
    upgrade: Option<&HeaderValue>,
    pseudonym: &str,
) -> Request<ClientBody> {
    *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    *request.version_mut() = Version::HTTP_11;
    let fields = request.headers_mut();
    let trailers = fields
        .get_all(header::TE)
        .iter()
        .any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    headers::strip_request(fields);
    let host = if target.port() == 80 {
        target.host().to_string()
    } else {
        target.to_string()
    };
    if let Ok(host) = HeaderValue::from_str(&host) {
        fields.insert(header::HOST, host);
    }
    headers::append_via(fields, pseudonym);
    if let Some(protocol) = upgrade {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, protocol.clone());
    } else if trailers {
        fields.insert(header::CONNECTION, HeaderValue::from_static("te"));
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    request
}
