//! The ways in.

use crate::stream::{Socket, Sockets, TCP, UNIX};

/// How the sandbox's bytes reach the gateway, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A host service, by `sluicegate-relay` with this `--transport`.
    Relay(&'static str),
    /// A listener of the sandbox that its host dials, offered by `sluicegate-relay` with this `--transport`.
    Exposed(&'static str),
    /// The way out, by the proxy of `sluicegate-relay` with this `--transport`.
    Proxy(&'static str),
    /// A CONNECT tunnel through the plain listener.
    Connect,
    /// A CONNECT tunnel through the TLS listener.
    ConnectTls,
}

impl Carrier {
    /// For people.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Relay(transport) => format!("host service over {transport}"),
            Self::Exposed(transport) => format!("exposed listener over {transport}"),
            Self::Proxy(transport) => format!("egress over {transport}"),
            Self::Connect => "egress, CONNECT".to_owned(),
            Self::ConnectTls => "egress, CONNECT over TLS".to_owned(),
        }
    }

    /// By datagrams.
    pub(crate) fn is_quic(self) -> bool {
        matches!(
            self,
            Self::Relay("quic") | Self::Exposed("quic") | Self::Proxy("quic")
        )
    }

    /// A relay client carries it.
    pub(crate) fn has_client(self) -> bool {
        !matches!(self, Self::Connect | Self::ConnectTls)
    }

    /// Which sockets a pair may have: the programs' own, where a relay client or its gateway dials or listens for them.
    pub(crate) fn sockets(self) -> &'static [Sockets] {
        match self {
            Self::Relay(_) | Self::Exposed(_) => &[
                TCP,
                (Socket::Tcp, Socket::Unix),
                (Socket::Unix, Socket::Tcp),
                UNIX,
            ],
            Self::Proxy(_) | Self::Connect | Self::ConnectTls => &[TCP],
        }
    }

    /// All streams are on one connection.
    pub(crate) fn shares(self) -> bool {
        matches!(
            self,
            Self::Relay("h2" | "quic") | Self::Exposed("h2" | "quic") | Self::Proxy("h2" | "quic")
        )
    }

    /// The relay client asks for signs of life on what carries this. (TCP's own are answered by the kernel of a process
    /// that is frozen.)
    pub(crate) fn is_watched(self) -> bool {
        match self {
            Self::Relay(transport) | Self::Exposed(transport) | Self::Proxy(transport) => {
                transport != "h1"
            }
            Self::Connect | Self::ConnectTls => false,
        }
    }
}
