//! Who is at the ends of the relay: clients of the gateway and what they have to come through, and services behind it.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluicegate_certs::{ClientKey, ServerIdentity, TrustBundle, tls};
use sluicegate_relay::{
    backoff::Backoff,
    session::{Session, SessionConfig},
    tasks::Tasks,
    transport::{Choice, Endpoint, Tls, Transport},
};
use sluicegate_relay_protocol::ALPN_RELAY;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{World, within};

/// Every transport of the client: what holds on one holds on all.
pub(crate) const TRANSPORTS: [Transport; 3] = [Transport::Quic, Transport::H2, Transport::H1];

impl World {
    /// Whom its clients trust.
    pub(crate) fn trust(&self) -> TrustBundle {
        TrustBundle::empty()
            .with_pem(self.authority.certificate_pem().as_bytes())
            .unwrap()
    }

    /// A relay client over TLS and HTTP/2.
    pub(crate) fn client(&self, token: &str) -> Client {
        self.client_over(Choice::Only(Transport::H2), token)
    }

    /// A relay client over what it may choose from.
    pub(crate) fn client_over(&self, transport: Choice, token: &str) -> Client {
        self.client_at(self.address, transport, token)
    }

    /// A relay client with a key of its own.
    pub(crate) fn client_holding(&self, key: ClientKey, transport: Choice, token: &str) -> Client {
        let tls = Tls::new(&self.trust()).unwrap().with_key(key);
        self.client_by(tls, self.address, transport, token)
    }

    /// A relay client of what is at this address.
    pub(crate) fn client_at(&self, address: SocketAddr, transport: Choice, token: &str) -> Client {
        let tls = Tls::new(&self.trust()).unwrap();
        self.client_by(tls, address, transport, token)
    }

    fn client_by(&self, tls: Tls, address: SocketAddr, transport: Choice, token: &str) -> Client {
        let config = SessionConfig {
            endpoint: Endpoint::parse(&format!("https://{address}")).unwrap(),
            tls,
            token: token.into(),
            transport,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Client {
            session: Session::start(config, &tasks, stop.child_token()),
            tasks,
            stop,
        }
    }

    /// A QUIC connection with nothing of the relay client's on it, and its socket.
    pub(crate) async fn quic(&self) -> Result<(quinn::Endpoint, quinn::Connection), String> {
        self.quic_at(self.address, quinn::TransportConfig::default())
            .await
    }

    /// The same to who has the gateway's certificate at this address, with parameters of its own.
    pub(crate) async fn quic_at(
        &self,
        address: SocketAddr,
        transport: quinn::TransportConfig,
    ) -> Result<(quinn::Endpoint, quinn::Connection), String> {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(self.quic_tls()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let socket = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = socket.connect_with(config, address, "127.0.0.1");
        let connected = within("QUIC", connecting.unwrap()).await;
        connected
            .map(|connection| (socket, connection))
            .map_err(|error| error.to_string())
    }

    /// The relay client's TLS, as it is for QUIC.
    pub(crate) fn quic_tls(&self) -> Arc<rustls::ClientConfig> {
        let pem = self.authority.certificate_pem();
        let trust = TrustBundle::empty().with_pem(pem.as_bytes()).unwrap();
        tls::quic_client(&trust, &[ALPN_RELAY]).unwrap()
    }

    /// A middlebox that terminates TLS, with these ALPN names, in front of the gateway's plain listener.
    pub(crate) async fn middlebox(&self, tasks: &mut JoinSet<()>, alpn: &[&[u8]]) -> SocketAddr {
        let config = tls::server(&self.identity(), alpn).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, gateway) = (listener.local_addr().unwrap(), self.plain);
        tasks.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                passing.spawn(async move {
                    let (Ok(mut near), Ok(mut far)) = (
                        acceptor.accept(tcp).await,
                        TcpStream::connect(gateway).await,
                    ) else {
                        return;
                    };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        address
    }

    /// A TLS service's identity, trusted by the gateway.
    pub(crate) fn service_tls(&self, name: &str) -> TlsAcceptor {
        let identity = self.authority.issue_server(
            &[name.into()],
            Duration::from_secs(3600),
            SystemTime::now(),
        );
        TlsAcceptor::from(tls::server(&ServerIdentity::new(identity.unwrap()), &[]).unwrap())
    }
}

/// A relay client and what runs it.
pub(crate) struct Client {
    pub(crate) session: Session,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Client {
    /// A local TCP address that leads to the service.
    pub(crate) async fn forward(&self, service: &str) -> SocketAddr {
        use sluicegate_relay::{
            forward::forward,
            listen::{Address, Listener},
        };
        let listener = Listener::bind(&Address::Tcp("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let Address::Tcp(address) = listener.address().unwrap() else {
            unreachable!("asked for TCP")
        };
        let work = forward(
            listener,
            service.into(),
            self.session.clone(),
            false,
            Tasks::default(),
            self.stop.child_token(),
        );
        self.tasks.spawn(work);
        address
    }

    /// Offer this local address to the host.
    pub(crate) fn expose(&self, listener: &str, url: &str) {
        use sluicegate_relay::{expose::expose, listen::Address};
        self.tasks.spawn(expose(
            listener.into(),
            Address::parse(url).unwrap(),
            self.session.clone(),
            Tasks::default(),
            self.stop.child_token(),
        ));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What a service does with each connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    /// Gives back what comes, FIN for FIN.
    Echo,
    /// Reads to the FIN, then answers with its digest.
    Digest,
    /// Reads nothing, for ever.
    Frozen,
}

/// A TCP service on loopback; its URL.
pub(crate) async fn tcp_service(tasks: &mut JoinSet<()>, manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            open.spawn(async move { drop(serve(tcp, manner).await) });
        }
    });
    url
}

/// A unix service; its URL.
pub(crate) fn unix_service(
    tasks: &mut JoinSet<()>,
    path: &std::path::Path,
    manner: Manner,
) -> String {
    let listener = UnixListener::bind(path).unwrap();
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.spawn(async move { drop(serve(stream, manner).await) });
        }
    });
    format!("unix://{}", path.display())
}

/// A TLS service on loopback; its URL by name.
pub(crate) async fn tls_service(
    tasks: &mut JoinSet<()>,
    acceptor: TlsAcceptor,
    name: &str,
    manner: Manner,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("tls://{name}:{}", listener.local_addr().unwrap().port());
    tasks.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            open.spawn(async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    drop(serve(tls, manner).await);
                }
            });
        }
    });
    url
}

async fn serve(
    mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    manner: Manner,
) -> io::Result<()> {
    match manner {
        Manner::Echo => {
            let (mut read, mut write) = tokio::io::split(io);
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        }
        Manner::Digest => {
            let digest = digest(&mut io).await?;
            io.write_all(&digest).await?;
            io.shutdown().await
        }
        Manner::Frozen => std::future::pending().await,
    }
}

/// SHA-256 of everything to the end.
pub(crate) async fn digest(io: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match io.read(&mut buffer).await? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&buffer[..count]),
        }
    }
}

/// Ask, end, and take the whole answer.
pub(crate) async fn call(address: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(address).await?;
    tcp.write_all(question).await?;
    tcp.shutdown().await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    Ok(answer)
}
