//! What stands between client and gateway and can fail: TCP and UDP on one port of loopback, carried by user space.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

/// Where each client's datagrams leave from.
type Ways = Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>;

pub(crate) struct Path {
    pub(crate) address: SocketAddr,
    swallows_udp: Arc<AtomicBool>,
    ways: Arc<Ways>,
    _tasks: JoinSet<()>,
}

impl Path {
    pub(crate) async fn lay(to: SocketAddr) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let (swallows_udp, ways) = (Arc::new(AtomicBool::default()), Arc::new(Ways::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(connections(tcp, to));
        tasks.spawn(datagrams(udp, to, swallows_udp.clone(), ways.clone()));
        Ok(Self {
            address,
            swallows_udp,
            ways,
            _tasks: tasks,
        })
    }

    /// Datagrams vanish from now on.
    pub(crate) fn swallow_udp(&self) {
        self.swallows_udp.store(true, Ordering::Relaxed);
    }

    /// What a client sends next leaves from another port.
    pub(crate) fn forget(&self) {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.clear();
    }
}

async fn connections(tcp: TcpListener, to: SocketAddr) {
    let mut open = JoinSet::new();
    while let Ok((mut near, _)) = tcp.accept().await {
        open.spawn(async move {
            if let Ok(mut far) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
}

async fn datagrams(udp: Arc<UdpSocket>, to: SocketAddr, swallow: Arc<AtomicBool>, ways: Arc<Ways>) {
    let mut back = JoinSet::new();
    let mut packet = vec![0; 65_535];
    loop {
        // An error is about a datagram sent before.
        let Ok((length, from)) = udp.recv_from(&mut packet).await else {
            continue;
        };
        if swallow.load(Ordering::Relaxed) {
            continue;
        }
        let known = ways.lock().ok().and_then(|ways| ways.get(&from).cloned());
        let way = match known {
            Some(way) => way,
            None => {
                let Ok(out) = UdpSocket::bind(("127.0.0.1", 0)).await else {
                    continue;
                };
                let out = Arc::new(out);
                if out.connect(to).await.is_err() {
                    continue;
                }
                back.spawn(answers(
                    udp.clone(),
                    out.clone(),
                    from,
                    swallow.clone(),
                    ways.clone(),
                ));
                if let Ok(mut ways) = ways.lock() {
                    ways.insert(from, out.clone());
                }
                out
            }
        };
        let _ = way.send(packet.get(..length).unwrap_or_default()).await;
    }
}

async fn answers(
    udp: Arc<UdpSocket>,
    out: Arc<UdpSocket>,
    client: SocketAddr,
    swallow: Arc<AtomicBool>,
    ways: Arc<Ways>,
) {
    let mut packet = vec![0; 65_535];
    while let Ok(length) = out.recv(&mut packet).await {
        let known = ways.lock().ok().and_then(|ways| ways.get(&client).cloned());
        // Forgotten: what comes to the old port is lost.
        if !known.is_some_and(|way| Arc::ptr_eq(&way, &out)) {
            return;
        }
        if !swallow.load(Ordering::Relaxed) {
            let _ = udp
                .send_to(packet.get(..length).unwrap_or_default(), client)
                .await;
        }
    }
}
