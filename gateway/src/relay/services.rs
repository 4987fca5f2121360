//! Opening host services. Only a `ServicePermit` opens one, and only this module knows how.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, pki_types::ServerName};
use sluicegate_policy::{
    Denial, Host, HostName, OwnAddresses, ProxyProtocol, ServicePermit, ServiceUrl, Within,
};
use sluicegate_relay::flow::{Ahead, Flow, Shared, SocketFlow, TlsFlow};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{proxy_protocol, socket};
use crate::{descriptors, interfaces, outcome::is_exhausted, telemetry::Speaker};

/// Resolves the name of a `tls://` service: the operator's resolver, never `getaddrinfo`.
pub type Resolve = Arc<
    dyn Fn(HostName) -> Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Denial>> + Send>>
        + Send
        + Sync,
>;

/// What opening needs to know.
#[derive(Clone)]
pub struct ServicesConfig {
    /// Until connected, handshake included.
    pub connect_timeout: Duration,
    /// Never a service, whatever is configured.
    pub own: Arc<OwnAddresses>,
    /// For `tls://` names.
    pub resolve: Resolve,
    /// Trust for `tls://` services; no ALPN.
    pub tls: Arc<ClientConfig>,
    /// The same trust, ALPN `h2`: for gRPC.
    pub tls_h2: Arc<ClientConfig>,
    /// Silence after which a stream is cut, where the service sets none. Absent: never.
    pub idle_timeout: Option<Duration>,
}

/// Opens host services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// What these were made with.
    made: Arc<Settings>,
    /// What is in force, for all that were made of one another: what outlives a configuration opens by the one of its moment.
    now: Arc<ArcSwap<Settings>>,
}

struct Settings {
    /// Tells them from those before.
    number: u64,
    config: ServicesConfig,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("connect_timeout", &self.made.config.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// A service did not open.
#[derive(Debug, thiserror::Error)]
#[error("{denial:?}: {detail}")]
pub struct ServiceFailure {
    /// For the client.
    pub denial: Denial,
    /// For the operator's record.
    pub detail: String,
}

impl ServiceFailure {
    fn unavailable(detail: impl ToString) -> Self {
        Self {
            denial: Denial::ServiceUnavailable,
            detail: detail.to_string(),
        }
    }

    /// Of a connection that could not be made.
    pub(super) fn of(error: &io::Error, detail: String) -> Self {
        let denial = if is_exhausted(error) {
            // Ours, not the service's.
            Denial::ConnectionLimit
        } else {
            Denial::ServiceUnavailable
        };
        Self { denial, detail }
    }
}

/// A connection to a service.
pub(super) enum Connected {
    Plain(Shared),
    Tls(Box<TlsStream<Ahead>>),
}

/// Anything HTTP/2 can run on.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

impl Connected {
    /// A flow says its own end: until then it stays as [`reset_if_dropped`] made it.
    fn flow(self) -> Box<dyn Flow> {
        match self {
            Self::Plain(socket) => Box::new(SocketFlow::new(socket)),
            Self::Tls(stream) => Box::new(TlsFlow::new(*stream)),
        }
    }

    /// For HTTP/2, whose streams have ends of their own: whatever ends the connection, one that is open was cut. So that
    /// takes back what [`reset_if_dropped`] asked for, and the last frames are delivered.
    pub(super) fn io(self) -> Box<dyn Io> {
        match self {
            Self::Plain(socket) => {
                socket.close_finishes();
                Box::new(socket)
            }
            Self::Tls(stream) => {
                stream.get_ref().0.close_finishes();
                stream
            }
        }
    }
}

impl Services {
    /// With these settings.
    pub fn new(config: ServicesConfig) -> Self {
        let made = Arc::new(Settings { number: 0, config });
        let now = Arc::new(ArcSwap::new(made.clone()));
        Self { made, now }
    }

    /// Those that take their place, with other settings, once these are [`put in force`](Self::put_in_force).
    pub fn after(&self, config: ServicesConfig) -> Self {
        let number = self.made.number + 1;
        Self {
            made: Arc::new(Settings { number, config }),
            now: self.now.clone(),
        }
    }

    /// From now on these settings hold for those before, too.
    pub fn put_in_force(&self) {
        self.now.store(self.made.clone());
    }

    /// Which settings are in force: what was opened by others is not used again.
    pub(super) fn in_force(&self) -> u64 {
        self.now.load().number
    }

    /// This machine's own addresses.
    pub(super) fn own_interfaces(&self) -> Arc<Vec<IpAddr>> {
        self.now.load().config.own.interfaces.list()
    }

    /// Silence after which a stream is cut, where the service sets none.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.now.load().config.idle_timeout
    }

    /// Open a byte stream to the service, for `speaker`; without one, on our own behalf. A service with `proxyProtocol` is
    /// told.
    ///
    /// # Errors
    /// `ServiceUnavailable`, `OwnListener`.
    pub async fn open(
        &self,
        permit: &ServicePermit,
        speaker: Option<&Speaker>,
    ) -> Result<(Box<dyn Flow>, Option<SocketAddr>), ServiceFailure> {
        let (connected, address) = self.connect(permit, speaker, false).await?;
        Ok((connected.flow(), address))
    }

    pub(super) async fn connect(
        &self,
        permit: &ServicePermit,
        speaker: Option<&Speaker>,
        http2: bool,
    ) -> Result<(Connected, Option<SocketAddr>), ServiceFailure> {
        let settings = self.now.load_full();
        let limit = settings.config.connect_timeout;
        let connecting = settings.config.connect(permit, speaker, http2);
        match timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(ServiceFailure::unavailable(format!(
                "no connection within {limit:?}"
            ))),
        }
    }
}

impl ServicesConfig {
    /// However long it takes.
    async fn connect(
        &self,
        permit: &ServicePermit,
        speaker: Option<&Speaker>,
        http2: bool,
    ) -> Result<(Connected, Option<SocketAddr>), ServiceFailure> {
        let (mut socket, address) = self.socket(permit).await?;
        if permit.service().proxy_protocol == Some(ProxyProtocol::V2) {
            // Before TLS, as its senders have it: it speaks of the connection, not of what is in it.
            let header = proxy_protocol::header(speaker, address);
            let written = socket.write_all(&header).await;
            written.map_err(ServiceFailure::unavailable)?;
        }
        let ServiceUrl::Tls { host, .. } = permit.url() else {
            return Ok((Connected::Plain(socket), address));
        };
        let config = if http2 { &self.tls_h2 } else { &self.tls };
        let name = server_name(host)
            .ok_or_else(|| ServiceFailure::unavailable("not a name in certificates"))?;
        let connector = TlsConnector::from(config.clone());
        let stream = connector
            .connect(name, Ahead::from(socket))
            .await
            .map_err(ServiceFailure::unavailable)?;
        Ok((Connected::Tls(Box::new(stream)), address))
    }

    /// The connection under everything else.
    async fn socket(
        &self,
        permit: &ServicePermit,
    ) -> Result<(Shared, Option<SocketAddr>), ServiceFailure> {
        let (socket, address) = match permit.url() {
            ServiceUrl::Unix(path) => {
                let service = permit.service();
                let file = socket::file(path)
                    .map_err(|error| ServiceFailure::of(&error, error.to_string()))?;
                if let Some(listed) = &service.within.sockets {
                    socket::hold(path, &file, listed)?;
                }
                let stream = socket::connect(file, service.peer_uid).await;
                let stream = stream.map_err(|e| ServiceFailure::of(&e, e.to_string()))?;
                return Ok((stream.into(), None));
            }
            ServiceUrl::Tcp(ip, port) => self.dial(&[*ip], *port).await?,
            ServiceUrl::Tls { host, port } => {
                let addresses = self.addresses(host).await?;
                hold_addresses(&addresses, &permit.service().within)?;
                self.dial(&addresses, *port).await?
            }
        };
        Ok((socket, Some(address)))
    }

    async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, ServiceFailure> {
        match host {
            Host::Ip(ip) => Ok(vec![*ip]),
            Host::Name(name) => (self.resolve)(name.clone())
                .await
                .map_err(|denial| ServiceFailure::unavailable(denial.reason())),
        }
    }

    /// The first address that answers. What the operator named is not judged, but that it is not ourselves.
    async fn dial(
        &self,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<(Shared, SocketAddr), ServiceFailure> {
        let own = &self.own;
        interfaces::refresh(&own.interfaces, addresses).await;
        let mut last = ServiceFailure::unavailable("the name has no address");
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            hold_foreign(own, address)?;
            if interfaces::is_here(&own.interfaces, *ip) {
                own.interfaces.found(*ip);
                hold_foreign(&own.with(*ip), address)?;
            }
            match reset_if_dropped(address).await {
                Ok((socket, here)) => {
                    // It may have become a place where hosts dial while the connection was made.
                    hold_foreign(own, address)?;
                    if here {
                        own.interfaces.found(*ip);
                        hold_foreign(&own.with(*ip), address)?;
                    }
                    // Small messages must not wait for one another's acknowledgement.
                    socket.no_delay();
                    return Ok((socket, address));
                }
                Err(error) => last = ServiceFailure::of(&error, format!("{address}: {error}")),
            }
        }
        Err(last)
    }
}

fn hold_foreign(own: &OwnAddresses, address: SocketAddr) -> Result<(), ServiceFailure> {
    if own.listens_on(address.ip(), address.port()) {
        return Err(ServiceFailure {
            denial: Denial::OwnListener,
            detail: address.to_string(),
        });
    }
    Ok(())
}

/// A connection that nobody takes over ends in RST: a service must not take it for one that was finished. The kernel may
/// have connected it while its client was giving up. Beside it, whether it [leads here](interfaces::leads_here).
async fn reset_if_dropped(address: SocketAddr) -> io::Result<(Shared, bool)> {
    let socket = descriptors::socket_towards(address)?;
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let stream = socket.connect(address).await?;
    let here = interfaces::leads_here(&stream, address)?;
    Ok((Shared::resetting(stream), here))
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Ip(ip) => Some(ServerName::IpAddress((*ip).into())),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).ok(),
    }
}

/// Every address the name resolved to must be one its author may name: what is dialled is the first that answers.
fn hold_addresses(addresses: &[IpAddr], within: &Within) -> Result<(), ServiceFailure> {
    for address in addresses {
        within.admits(*address).map_err(|denial| ServiceFailure {
            denial,
            detail: format!("{address} is outside the provider's ceiling.addresses"),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Duration, SockRef, SocketFlow, reset_if_dropped};

    /// Set back behind its back, it stays so: what takes the connection over does not set it again.
    #[tokio::test]
    async fn that_a_close_resets_is_set_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (socket, here) = reset_if_dropped(address).await.unwrap();
        assert!(!here);
        let linger = || SockRef::from(&socket).linger().unwrap();
        assert_eq!(linger(), Some(Duration::ZERO));
        SockRef::from(&socket).set_linger(None).unwrap();
        let _flow = SocketFlow::new(socket.clone());
        assert_eq!(linger(), None);
        assert!(SockRef::from(&socket).tcp_nodelay().unwrap());
    }
}
