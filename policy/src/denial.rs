//! The closed vocabulary of refusals.
use crate::{Hint, RuleId};

/// Who is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blame {
    /// The client.
    Downstream,
    /// What the client asked for.
    Upstream,
    /// Us.
    Gateway,
}

macro_rules! denials {
    ($($variant:ident $reason:literal $status:literal $blame:ident $proxy_status:literal $doc:literal;)*) => {
        /// Why something was refused or cut: one fact each, the same token on every front.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Denial { $(#[doc = $doc] $variant,)* }
        impl Denial {
            /// Every refusal there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The token in answers, records and metrics.
            pub const fn reason(self) -> &'static str { match self { $(Self::$variant => $reason,)* } }
            /// The HTTP status where an HTTP answer can still be given.
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }
            /// Whose fault it is.
            pub const fn blame(self) -> Blame { match self { $(Self::$variant => Blame::$blame,)* } }
            /// The `error` parameter of Proxy-Status (RFC 9209 §2.3, IANA "HTTP Proxy Error Types").
            pub const fn proxy_error(self) -> &'static str { match self { $(Self::$variant => $proxy_status,)* } }
            /// One sentence for a person.
            pub const fn describe(self) -> &'static str { match self { $(Self::$variant => $doc,)* } }
        }
    };
}

denials! {
    // What was sent is not a request.
    MalformedRequest "malformed_request" 400 Downstream "http_request_error" "The request is malformed.";
    MalformedTarget "malformed_target" 400 Downstream "http_request_error" "The target is not a host and port, or its path is malformed.";
    HeaderTooLarge "header_too_large" 431 Downstream "http_request_error" "The request's head is too large.";
    HeadTimeout "head_timeout" 408 Downstream "http_request_error" "The request's head did not arrive in time.";
    UnsupportedProtocol "unsupported_protocol" 501 Downstream "http_request_denied" "That protocol is not served here.";
    HostMismatch "host_mismatch" 400 Downstream "http_request_error" "The Host field names another host than the target.";
    // Who are you?
    CredentialMissing "credential_missing" 407 Downstream "http_request_denied" "No credential was presented.";
    CredentialInvalid "credential_invalid" 407 Downstream "http_request_denied" "The credential is unknown, expired or revoked.";
    KeyNotProved "key_not_proved" 407 Downstream "http_request_denied" "The credential came without a proof of the key it is bound to.";
    SourceNotAllowed "source_not_allowed" 403 Downstream "http_request_denied" "The credential may not be used from this address.";
    SourceUnknown "source_unknown" 403 Downstream "http_request_denied" "No session has this source address.";
    SourceAmbiguous "source_ambiguous" 403 Downstream "http_request_denied" "More than one session has this source address.";
    SessionPaused "session_paused" 403 Downstream "http_request_denied" "The session is paused.";
    SessionRevoked "session_revoked" 403 Downstream "http_request_denied" "The session was revoked.";
    SessionExpired "session_expired" 403 Downstream "http_request_denied" "The session has expired.";
    // Policy.
    HostDenied "host_denied" 403 Downstream "http_request_denied" "The host is denied by rule.";
    HostNotAllowed "host_not_allowed" 403 Downstream "http_request_denied" "The host is not in the session's allowedHosts.";
    PortNotAllowed "port_not_allowed" 403 Downstream "http_request_denied" "The host is allowed, on other ports.";
    AddressNotAllowed "address_not_allowed" 403 Downstream "destination_ip_prohibited" "The address is not allowed.";
    SpecialAddress "special_address" 403 Downstream "destination_ip_prohibited" "The name resolves to a private or special-purpose address.";
    MetadataAddress "metadata_address" 403 Downstream "destination_ip_prohibited" "The address is a metadata service.";
    OwnListener "own_listener" 403 Downstream "destination_ip_prohibited" "The target is the gateway itself.";
    MethodNotAllowed "method_not_allowed" 403 Downstream "http_request_denied" "The HTTP method is not allowed for this host.";
    PathNotAllowed "path_not_allowed" 403 Downstream "http_request_denied" "The path is not allowed for this host.";
    PolicyChanged "policy_changed" 403 Downstream "http_request_denied" "The policy no longer allows this.";
    // First bytes.
    TlsRequired "tls_required" 403 Downstream "http_request_denied" "The tunnel must carry TLS.";
    TlsMalformed "tls_malformed" 403 Downstream "http_request_denied" "The ClientHello is malformed.";
    SniMissing "sni_missing" 403 Downstream "http_request_denied" "The ClientHello names no server.";
    SniMismatch "sni_mismatch" 403 Downstream "http_request_denied" "The ClientHello names another host than the target.";
    EchDenied "ech_denied" 403 Downstream "http_request_denied" "Encrypted ClientHello is not allowed to this host.";
    FirstBytesTimeout "first_bytes_timeout" 403 Downstream "http_request_denied" "The first bytes did not arrive in time.";
    // Names and addresses that fail.
    DnsNotFound "dns_not_found" 502 Upstream "dns_error" "The name does not exist, or has no address.";
    DnsFailed "dns_failed" 502 Upstream "dns_error" "The name could not be resolved.";
    DnsTimeout "dns_timeout" 504 Upstream "dns_timeout" "The name was not resolved in time.";
    ConnectRefused "connect_refused" 502 Upstream "connection_refused" "The upstream refused the connection.";
    ConnectUnreachable "connect_unreachable" 502 Upstream "destination_ip_unroutable" "The upstream cannot be reached.";
    ConnectTimeout "connect_timeout" 504 Upstream "connection_timeout" "The upstream did not answer in time.";
    UpstreamProxyRefused "upstream_proxy_refused" 502 Upstream "destination_unavailable" "The operator's proxy refused the target.";
    UpstreamProxyFailed "upstream_proxy_failed" 502 Upstream "destination_unavailable" "The operator's proxy cannot be used.";
    UpstreamReset "upstream_reset" 502 Upstream "connection_terminated" "The upstream closed before it answered.";
    UpstreamProtocol "upstream_protocol" 502 Upstream "http_protocol_error" "The upstream's answer is not valid.";
    UpstreamTimeout "upstream_timeout" 504 Upstream "http_response_timeout" "The upstream did not answer in time.";
    IdleTimeout "idle_timeout" 504 Upstream "connection_read_timeout" "Nothing moved for too long.";
    // Limits.
    TooManyTunnels "too_many_tunnels" 429 Downstream "http_request_denied" "The session, or its owner, has too many tunnels open.";
    TooManyToDestination "too_many_to_destination" 429 Downstream "http_request_denied" "The session has too many tunnels open to this destination.";
    TooManyOpens "too_many_opens" 429 Downstream "http_request_denied" "The session, or its owner, opens tunnels too fast.";
    TooManyPending "too_many_pending" 429 Downstream "http_request_denied" "The session has too many opens under way.";
    TooManyConnections "too_many_connections" 429 Downstream "http_request_denied" "The session has too many connections that carry streams.";
    ByteQuota "byte_quota" 429 Downstream "http_request_denied" "The session, or its owner, has used its bytes.";
    ConnectionLimit "connection_limit" 503 Gateway "connection_limit_reached" "The gateway is at its connection limit.";
    // Relay.
    ServiceNotAllowed "service_not_allowed" 403 Downstream "http_request_denied" "The session has no such host service.";
    ServiceMethodNotAllowed "service_method_not_allowed" 403 Downstream "http_request_denied" "The method is outside the credential's prefix.";
    ServiceHostNotAllowed "service_host_not_allowed" 403 Downstream "http_request_denied" "The host service does not serve that Host.";
    ServiceOriginNotAllowed "service_origin_not_allowed" 403 Downstream "http_request_denied" "The host service does not serve pages of that Origin.";
    ServiceUnavailable "service_unavailable" 503 Upstream "destination_unavailable" "The host service does not answer.";
    ListenerNotAllowed "listener_not_allowed" 403 Downstream "http_request_denied" "The session may expose no such listener.";
    ListenerNotConnected "listener_not_connected" 503 Upstream "destination_unavailable" "The sandbox does not offer that listener now.";
    ListenerRefused "listener_refused" 502 Upstream "connection_refused" "Nothing in the sandbox took the connection.";
    TooManyAccepts "too_many_accepts" 429 Downstream "http_request_denied" "Enough streams of that listener wait already.";
    AlreadyOpened "already_opened" 409 Downstream "http_request_denied" "An earlier attempt at this stream may have got through.";
    // Us.
    LoopDetected "loop_detected" 502 Downstream "proxy_loop_detected" "The request has been here before.";
    NotFound "not_found" 404 Downstream "http_request_denied" "There is nothing here.";
    Draining "draining" 503 Gateway "proxy_internal_response" "The gateway is going down; try again.";
    StoreUnavailable "store_unavailable" 503 Gateway "proxy_internal_error" "The gateway cannot read its session store.";
    Internal "internal" 500 Gateway "proxy_internal_error" "The gateway failed.";
}

impl Denial {
    /// What whoever asked is told. That a credential lacks its key is for records and metrics: who has stolen one learns no more
    /// than who has made one up.
    #[must_use]
    pub const fn told(self) -> Self {
        match self {
            Self::KeyNotProved => Self::CredentialInvalid,
            other => other,
        }
    }
}

/// A refusal with what decided it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub denial: Denial,
    /// The entry that decided, where one did.
    pub rule: Option<RuleId>,
    /// What would change it, e.g. `add "api.example.com" to egress.allowedHosts`.
    pub hint: Option<Hint>,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self {
            denial,
            rule: None,
            hint: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_refusal_has_its_own_token() {
        let reasons: HashSet<_> = Denial::ALL.iter().map(|denial| denial.reason()).collect();
        assert_eq!(reasons.len(), Denial::ALL.len());
        for denial in Denial::ALL {
            assert!((400..600).contains(&denial.status()), "{denial:?}");
            let token = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(
                token(denial.reason()) && token(denial.proxy_error()),
                "{denial:?}"
            );
        }
    }
}
