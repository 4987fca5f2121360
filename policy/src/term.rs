//! What makes one service or listener another than the next of its name.

/// One of the terms on which a grant has a service or a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Term {
    /// Where a service is.
    Url,
    /// Who must own the other end of a unix socket, or may dial one.
    PeerUid,
    /// What a service is told of who speaks.
    ProxyProtocol,
    /// What it accepts over HTTP.
    Http,
    /// The gRPC methods it may be asked for.
    Grpc,
    /// What it must turn out to be when it is dialled.
    Ceiling,
    /// Where the host finds a listener.
    Dial,
    /// At which port.
    Port,
}

impl Term {
    /// The word in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::PeerUid => "peerUid",
            Self::ProxyProtocol => "proxyProtocol",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Ceiling => "ceiling",
            Self::Dial => "dial",
            Self::Port => "port",
        }
    }

    /// The first of these that is not the same.
    pub(crate) fn first_other<const N: usize>(terms: [(Self, bool); N]) -> Option<Self> {
        let other = terms.into_iter().find(|(_, same)| !same);
        other.map(|(term, _)| term)
    }
}
