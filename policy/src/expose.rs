//! Listeners of the sandbox that its host may dial.

use std::time::Duration;

use crate::Term;

/// Where the host finds such a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dial {
    /// A unix socket of mode 0600 under the gateway's state directory.
    #[default]
    Unix,
    /// A port on the host's loopback.
    Tcp,
    /// A name on the gateway's private listener, which asks for a client certificate.
    Tls,
}

impl Dial {
    /// The word in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// One listener a sandbox may expose, compiled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expose {
    /// Where the host dials it.
    pub dial: Dial,
    /// The loopback port of a `tcp` one; absent = the system chooses.
    pub port: Option<u16>,
    /// A uid that may dial a `unix` one beside the gateway's own.
    pub peer_uid: Option<u32>,
    /// How long a dial waits for the sandbox before it fails.
    pub patience: Duration,
    /// How long a stream may be silent once one half is closed, where that is less than `idle_timeout`; absent = as that.
    pub half_close_timeout: Option<Duration>,
    /// How long a stream may be silent; absent = the gateway's own.
    pub idle_timeout: Option<Duration>,
}

impl Expose {
    /// In what that which is dialled at the one, or by whom, is not what it is at the other: the first such term. Streams keep
    /// the timers they began with.
    #[must_use]
    pub fn differs_in(&self, other: &Self) -> Option<Term> {
        let Self {
            dial,
            port,
            peer_uid,
            patience: _,
            half_close_timeout: _,
            idle_timeout: _,
        } = self;
        Term::first_other([
            (Term::Dial, *dial == other.dial),
            (Term::Port, *port == other.port),
            (Term::PeerUid, *peer_uid == other.peer_uid),
        ])
    }
}

/// How long a dial waits for the sandbox where the grant says nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
