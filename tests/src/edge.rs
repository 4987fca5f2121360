//! What stands between the outside and the gateway's public listener, and can be broken: a balancer that carries bytes,
//! shows a certificate of its own, lets everything pass, or is gone.

use std::collections::{HashMap, hash_map::Entry};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use crate::tasks::{Tasks, until};

/// How it behaves, to connections that come from now on.
#[derive(Clone)]
pub enum Manner {
    /// Bytes go to the gateway's public listener.
    Carry(SocketAddr),
    /// TLS ends here, and what is inside goes to the gateway's plain listener.
    Terminate(Arc<ServerConfig>, SocketAddr),
    /// As [`Manner::Terminate`], but every CONNECT is answered 200 and led nowhere near a policy.
    Leak(Arc<ServerConfig>, SocketAddr),
    /// Nobody listens.
    Gone,
}

/// The balancer. It stops when dropped.
pub struct Edge {
    /// Where it listens while it does.
    pub address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    datagrams: Arc<Mutex<Option<SocketAddr>>>,
    _carrying: Tasks,
    accepting: Mutex<Option<Tasks>>,
}

impl Edge {
    /// Listen on a port of our own choosing; nobody is led anywhere yet.
    pub async fn start() -> Self {
        // The same port for both, as a public listener has it.
        let (listener, socket) = loop {
            let at = ("127.0.0.1", crate::tasks::free_port().await);
            if let (Ok(listener), Ok(socket)) =
                (TcpListener::bind(at).await, UdpSocket::bind(at).await)
            {
                break (listener, socket);
            }
        };
        let datagrams = Arc::default();
        let carrying = Tasks::default();
        carrying.spawn(carry_datagrams(socket, Arc::clone(&datagrams)));
        let edge = Self {
            address: listener.local_addr().unwrap(),
            manner: Arc::new(Mutex::new(Manner::Gone)),
            datagrams,
            _carrying: carrying,
            accepting: Mutex::default(),
        };
        edge.accept(listener);
        edge
    }

    fn accept(&self, listener: TcpListener) {
        let manner = Arc::clone(&self.manner);
        let tasks = Tasks::default();
        tasks.spawn(async move {
            let visitors = Tasks::default();
            while let Ok((stream, _)) = listener.accept().await {
                let manner = manner.lock().unwrap().clone();
                visitors.spawn(serve(stream, manner));
            }
        });
        *self.accepting.lock().unwrap() = Some(tasks);
    }

    /// Datagrams go there from now on; `None`: nowhere, without a word, as where UDP is blocked.
    pub fn carry_datagrams(&self, to: Option<SocketAddr>) {
        *self.datagrams.lock().unwrap() = to;
    }

    /// Behave like this from now on. Connections that are open are cut.
    pub async fn behave(&self, manner: Manner) {
        let gone = matches!(manner, Manner::Gone);
        *self.manner.lock().unwrap() = manner;
        drop(self.accepting.lock().unwrap().take());
        // The old listener is dropped with its task, a moment later.
        let listener = until("the edge's port", || {
            let socket = std::net::TcpListener::bind(self.address).ok()?;
            socket.set_nonblocking(true).ok()?;
            TcpListener::from_std(socket).ok()
        })
        .await;
        if !gone {
            self.accept(listener);
        }
    }
}

async fn carry_datagrams(socket: UdpSocket, to: Arc<Mutex<Option<SocketAddr>>>) {
    let socket = Arc::new(socket);
    let (mut peers, answers) = (
        HashMap::<SocketAddr, Arc<UdpSocket>>::new(),
        Tasks::default(),
    );
    let mut datagram = [0; 65_536];
    while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
        let Some(to) = *to.lock().unwrap() else {
            continue;
        };
        if let Entry::Vacant(place) = peers.entry(from) {
            let upstream = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
            upstream.connect(to).await.unwrap();
            let (back, upwards) = (Arc::clone(&socket), Arc::clone(&upstream));
            answers.spawn(async move {
                let mut datagram = [0; 65_536];
                while let Ok(length) = upwards.recv(&mut datagram).await {
                    let _ = back.send_to(&datagram[..length], from).await;
                }
            });
            place.insert(upstream);
        }
        let _ = peers[&from].send(&datagram[..length]).await;
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) {
    match manner {
        Manner::Gone => {}
        Manner::Carry(to) => {
            if let Ok(mut gateway) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut stream, &mut gateway).await;
            }
        }
        Manner::Terminate(tls, to) => {
            let Ok(mut inside) = TlsAcceptor::from(tls).accept(stream).await else {
                return;
            };
            if let Ok(mut gateway) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut inside, &mut gateway).await;
            }
        }
        Manner::Leak(tls, to) => {
            let Ok(mut inside) = TlsAcceptor::from(tls).accept(stream).await else {
                return;
            };
            if inside.get_ref().1.alpn_protocol() == Some(b"h2") {
                if let Ok(mut gateway) = TcpStream::connect(to).await {
                    let _ = copy_bidirectional(&mut inside, &mut gateway).await;
                }
                return;
            }
            leak(&mut inside).await;
        }
    }
}

/// A proxy without a policy: every CONNECT is connected, or at least said to be.
async fn leak(inside: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match inside.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let _ = inside.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let _ = inside.flush().await;
    if let Ok(address) = target.parse::<SocketAddr>()
        && let Ok(mut upstream) = TcpStream::connect(address).await
    {
        let _ = copy_bidirectional(inside, &mut upstream).await;
    }
}

/// A server that shows a certificate for `name`, signed by the gateway's own authority in `state`, good or expired.
pub fn showing(state: &Path, name: &str, expired: bool) -> Arc<ServerConfig> {
    let read = |file: &str| std::fs::read_to_string(state.join(file)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = date_time_ymd(2020, 1, 1);
    let until = if expired { 2021 } else { 2090 };
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}
