//! Why a transport carries the streams: a word for metrics, a sentence for people.

use std::fmt;

use super::{ConnectError, Transport};

/// The word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// It is the only one allowed.
    Forced,
    /// It was tried first and answered.
    Preferred,
    /// QUIC had not answered by then: UDP may be blocked.
    UdpSilent,
    /// QUIC failed.
    UdpFailed,
    /// QUIC carried the streams, and nothing came back any more.
    UdpLost,
    /// TLS had not answered by then.
    TlsSilent,
    /// TLS failed.
    TlsFailed,
    /// Something on the way passes no HTTP/2.
    Http2Blocked,
    /// A gateway without TLS has no QUIC.
    NoTls,
    /// It did not work before, and is better.
    Recovered,
    /// It leads to another replica.
    Replica,
}

impl Reason {
    /// All of them, in the order they are counted in.
    pub const ALL: [Self; 11] = [
        Self::Forced,
        Self::Preferred,
        Self::UdpSilent,
        Self::UdpFailed,
        Self::UdpLost,
        Self::TlsSilent,
        Self::TlsFailed,
        Self::Http2Blocked,
        Self::NoTls,
        Self::Recovered,
        Self::Replica,
    ];

    /// As metrics have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Preferred => "preferred",
            Self::UdpSilent => "udp_silent",
            Self::UdpFailed => "udp_failed",
            Self::UdpLost => "udp_lost",
            Self::TlsSilent => "tls_silent",
            Self::TlsFailed => "tls_failed",
            Self::Http2Blocked => "http2_blocked",
            Self::NoTls => "no_tls",
            Self::Recovered => "recovered",
            Self::Replica => "replica",
        }
    }
}

/// Word and sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// The word.
    pub reason: Reason,
    /// The sentence.
    pub text: String,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Why {
    /// This one.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }

    pub(super) fn forced() -> Self {
        Self::new(Reason::Forced, "the only one allowed")
    }

    pub(super) fn preferred() -> Self {
        Self::new(Reason::Preferred, "it was tried first and answered")
    }

    pub(super) fn recovered(transport: Transport) -> Self {
        Self::new(Reason::Recovered, format!("{transport} works again"))
    }

    /// What was tried before it had not answered by then.
    pub(super) fn late(before: Transport) -> Self {
        let reason = match before {
            Transport::Quic => Reason::UdpSilent,
            Transport::H2 | Transport::H1 => Reason::TlsSilent,
        };
        Self::new(reason, format!("{before} had not answered yet"))
    }

    /// What was tried before `now` has failed.
    pub(super) fn instead(now: Transport, failed: &ConnectError) -> Self {
        let reason = match (now, failed) {
            (Transport::H1, _) => Reason::Http2Blocked,
            (Transport::Quic, _) => Reason::TlsFailed,
            (Transport::H2, ConnectError::Timeout(..)) => Reason::UdpSilent,
            (Transport::H2, _) => Reason::UdpFailed,
        };
        Self::new(reason, failed.to_string())
    }

    /// The path of UDP that was used is gone.
    pub(crate) fn lost() -> Self {
        Self::new(
            Reason::UdpLost,
            "QUIC worked, and nothing came back on it any more",
        )
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::{Reason, Why};
    use crate::transport::{ConnectError, Transport};

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn what_failed_says_which() {
        let silent = ConnectError::Timeout("gateway".into(), Duration::from_secs(10));
        let refused = ConnectError::Quic("gateway".into(), "refused".into());
        for (now, failed, reason) in [
            (Transport::H2, &silent, Reason::UdpSilent),
            (Transport::H2, &refused, Reason::UdpFailed),
            (Transport::Quic, &silent, Reason::TlsFailed),
            (Transport::H1, &silent, Reason::Http2Blocked),
        ] {
            assert_eq!(Why::instead(now, failed).reason, reason, "{now}");
        }
        assert_eq!(Why::late(Transport::Quic).reason, Reason::UdpSilent);
        assert_eq!(Why::late(Transport::H2).reason, Reason::TlsSilent);
    }
}
