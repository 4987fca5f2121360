//! What is checked, and what one look can find.

use std::fmt;

use crate::session::HostService;

/// One prerequisite of relay or proxy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Check {
    /// The public URL's host resolves, and its port accepts.
    Reach,
    /// The certificate there is valid for that name, under the system's roots or the private CA.
    Certificate,
    /// HTTP/2 with extended CONNECT (RFC 8441 §3).
    Http2,
    /// A QUIC connection carries a relay stream there and back.
    Quic,
    /// A token minted now opens a relay stream, and bytes come back on it.
    Token,
    /// A host service of the configuration is well.
    Service(HostService),
    /// The proxy refuses a name that is not allowed.
    Refuses,
    /// The proxy cuts TLS that asks for another name than the tunnel's.
    Judges,
    /// The proxy carries a request to the gateway's own canary.
    Carries,
    /// The proxy opens a tunnel to `probe.canary`.
    Canary,
    /// `probe.name` resolves.
    Resolver,
}

impl Check {
    /// The label in metrics: services are one.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Reach => "reach",
            Self::Certificate => "certificate",
            Self::Http2 => "http2",
            Self::Quic => "quic",
            Self::Token => "token",
            Self::Service(_) => "service",
            Self::Refuses => "proxy.refuses",
            Self::Judges => "proxy.judges",
            Self::Carries => "proxy.carries",
            Self::Canary => "proxy.canary",
            Self::Resolver => "resolver",
        }
    }

    /// A check of the way in by its name: the others are nobody's to report.
    pub(super) fn of_way(name: &str) -> Option<Self> {
        const ALL: [Check; 9] = [
            Check::Reach,
            Check::Certificate,
            Check::Http2,
            Check::Quic,
            Check::Token,
            Check::Refuses,
            Check::Judges,
            Check::Carries,
            Check::Canary,
        ];
        ALL.into_iter().find(|check| check.label() == name)
    }

    /// Does the relay depend on it? QUIC failing leaves HTTP/2: that is a shortfall, not a loss.
    pub const fn of_relay(&self) -> bool {
        matches!(
            self,
            Self::Reach | Self::Certificate | Self::Http2 | Self::Token | Self::Service(_)
        )
    }

    /// Does the proxy depend on it?
    pub const fn of_proxy(&self) -> bool {
        matches!(
            self,
            Self::Reach
                | Self::Certificate
                | Self::Refuses
                | Self::Judges
                | Self::Carries
                | Self::Canary
                | Self::Resolver
        )
    }

    /// Is it made by the gateway itself, whoever makes those of the way in?
    pub(super) const fn is_inside(&self) -> bool {
        matches!(self, Self::Service(_) | Self::Resolver)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "service:{service}"),
            other => f.write_str(other.label()),
        }
    }
}

/// What one look found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// It works.
    Pass,
    /// It does not.
    Fail {
        /// Why, without a full stop.
        reason: String,
        /// The setting that mends it.
        setting: String,
    },
    /// It could not be looked at: nothing follows from that.
    Unknown(String),
}

impl Finding {
    pub(super) fn fail(reason: impl Into<String>, setting: impl Into<String>) -> Self {
        Self::Fail {
            reason: reason.into(),
            setting: setting.into(),
        }
    }
}
