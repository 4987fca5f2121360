//! What comes before a connection's first byte of its own: a balancer's word for whom it speaks, TLS, and where the connection
//! was meant to go.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use sluicegate_relay::flow::Ahead;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{self, timeout},
};

use super::{Capture, Downstream, Full, Place, original_destination};
use crate::sniff::{Message, ProxyHeader, proxy_header};

/// A TLS handshake takes at most this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection as it came in.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: Downstream,
    /// Its other end, or whom that one speaks for.
    pub peer: SocketAddr,
    /// What a trusted peer said first.
    pub preface: Preface,
    /// Where a captured connection was meant to go.
    pub original: Option<SocketAddr>,
}

impl Accepted {
    /// A connection of its peer's own, meant for us.
    pub fn new(stream: Downstream, peer: SocketAddr) -> Self {
        Self {
            stream,
            peer,
            preface: Preface::None,
            original: None,
        }
    }
}

/// What a trusted peer said first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Preface {
    /// Nobody was to say anything.
    None,
    /// A PROXY header.
    Header(ProxyHeader),
    /// None, or one that cannot be read: whose connection this is, nobody knows.
    Malformed,
}

/// Peers that say by a PROXY header for whom they speak: they always do, and nobody else is listened to.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Their addresses.
    pub networks: Arc<[IpNet]>,
    /// The header is whole by then.
    pub within: Duration,
}

impl Trust {
    /// Is this one of them?
    pub fn covers(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.networks.iter().any(|network| network.contains(&peer))
    }

    /// Read the header and not a byte more. `None` where the peer left without a word, as health checks do.
    async fn header(&self, tcp: &mut TcpStream) -> Option<Preface> {
        let mut received = Vec::with_capacity(128);
        let reading = async {
            loop {
                match proxy_header::read(&received) {
                    Message::Whole(header, _) => return Some(Preface::Header(header)),
                    Message::Malformed => return Some(Preface::Malformed),
                    Message::NeedMore => {}
                }
                let more = proxy_header::wanted(&received) as u64;
                match (&mut *tcp).take(more).read_buf(&mut received).await {
                    Ok(read) if read > 0 => {}
                    _ if received.is_empty() => return None,
                    _ => return Some(Preface::Malformed),
                }
            }
        };
        timeout(self.within, reading)
            .await
            .unwrap_or(Some(Preface::Malformed))
    }
}

/// How a listener's connections arrive.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// TLS is spoken.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Some peers speak for others.
    pub trust: Option<Trust>,
    /// The connections were meant for somebody else.
    pub capture: Option<Capture>,
}

/// Why a connection is not served.
pub(super) enum Lost {
    /// Its source has as many as one may.
    Full(Full),
    /// It ended, or its handshake failed.
    Gone,
}

impl Arrival {
    /// Is `peer` one that speaks for others?
    pub(super) fn speaks_for_others(&self, peer: IpAddr) -> bool {
        self.trust.as_ref().is_some_and(|trust| trust.covers(peer))
    }

    /// Take a connection up to its first byte. `place` is then its real source's.
    pub(super) async fn receive(
        self,
        mut tcp: TcpStream,
        mut peer: SocketAddr,
        place: &mut Place,
    ) -> Result<Accepted, Lost> {
        let mut original = self
            .capture
            .and_then(|capture| original_destination(&tcp, capture));
        let trust = self.trust.filter(|trust| trust.covers(peer.ip()));
        let preface = match trust {
            None => Preface::None,
            Some(trust) => trust.header(&mut tcp).await.ok_or(Lost::Gone)?,
        };
        if let Preface::Header(header) = &preface {
            if let Some((from, to)) = header.ends {
                peer = from;
                original = self.capture.map(|_| to);
            }
            if let Err(full) = place.belongs_to(peer.ip()) {
                // As over any limit: a reset, at once.
                let _ = tcp.set_zero_linger();
                return Err(Lost::Full(full));
            }
        }
        let stream = match self.tls {
            Some(config) if preface != Preface::Malformed => {
                handshake(tcp, config).await.ok_or(Lost::Gone)?
            }
            // What cannot be told whose it is gets no handshake.
            _ => Downstream::Plain(tcp),
        };
        Ok(Accepted {
            stream,
            peer,
            preface,
            original,
        })
    }
}

async fn handshake(tcp: TcpStream, config: Arc<rustls::ServerConfig>) -> Option<Downstream> {
    let accepting = tokio_rustls::TlsAcceptor::from(config).accept(Ahead::from(tcp));
    match time::timeout(HANDSHAKE, accepting).await {
        Ok(Ok(stream)) => Some(Downstream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}
