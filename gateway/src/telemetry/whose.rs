//! Who it was that something is recorded of.

use std::{net::SocketAddr, sync::Arc};

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// From this address.
    Address(SocketAddr),
    /// A local user, by a unix socket.
    User(u32),
}

impl From<SocketAddr> for Caller {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "unix:uid={uid}"),
        }
    }
}

/// For whom something is opened, told to services that ask for it.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// Where the sandbox connects from; absent where it comes by a unix socket.
    pub source: Option<SocketAddr>,
    /// The record's id.
    pub id: String,
    /// Whose it is.
    pub session: Option<SessionLabel>,
}

/// The provider of the gateway's own session: what probes do is told by their checks, not recorded as traffic.
pub const OWN_PROVIDER: &str = "_gateway";

/// Whose it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionLabel {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Provider.
    pub provider: Arc<str>,
    /// Session id.
    pub id: Arc<str>,
    /// Generation.
    pub generation: u64,
    /// The session's owner. Records do not name it; counts for one owner need it.
    pub owner: Option<Arc<str>>,
}
