//! What stands between client and gateway and can fail: TCP and UDP on one port of loopback, carried by user space, late where
//! it is far.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
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
    /// `late`: on the way, in each direction.
    pub(crate) async fn lay(to: SocketAddr, late: Duration) -> anyhow::Result<Self> {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(address).await?);
        let (swallows_udp, ways) = (Arc::new(AtomicBool::default()), Arc::new(Ways::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(connections(tcp, to, late));
        tasks.spawn(datagrams(
            udp,
            (to, late),
            swallows_udp.clone(),
            ways.clone(),
        ));
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

async fn connections(tcp: TcpListener, to: SocketAddr, late: Duration) {
    let mut open = JoinSet::new();
    while let Ok((near, _)) = tcp.accept().await {
        open.spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else {
                return;
            };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_read, near_write), (far_read, far_write)) = (split(near), split(far));
            tokio::join!(
                carry(near_read, far_write, late),
                carry(far_read, near_write, late)
            );
        });
    }
}

/// One direction, in order, each piece as late as the others.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, late: Duration) {
    let (send, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(4096);
    let reading = async move {
        let mut piece = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            let bytes = piece.get(..count).unwrap_or_default().to_vec();
            if send.send((Instant::now() + late, bytes)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, bytes)) = pieces.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

async fn datagrams(
    udp: Arc<UdpSocket>,
    (to, late): (SocketAddr, Duration),
    swallow: Arc<AtomicBool>,
    ways: Arc<Ways>,
) {
    let (mut back, mut flying) = (JoinSet::new(), JoinSet::new());
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
                    (swallow.clone(), late),
                    ways.clone(),
                ));
                if let Ok(mut ways) = ways.lock() {
                    ways.insert(from, out.clone());
                }
                out
            }
        };
        let bytes = packet.get(..length).unwrap_or_default();
        if late.is_zero() {
            let _ = way.send(bytes).await;
            continue;
        }
        let (at, bytes) = (Instant::now() + late, bytes.to_vec());
        while flying.try_join_next().is_some() {}
        flying.spawn(async move {
            sleep_until(at).await;
            let _ = way.send(&bytes).await;
        });
    }
}

async fn answers(
    udp: Arc<UdpSocket>,
    out: Arc<UdpSocket>,
    client: SocketAddr,
    (swallow, late): (Arc<AtomicBool>, Duration),
    ways: Arc<Ways>,
) {
    let mut flying = JoinSet::new();
    let mut packet = vec![0; 65_535];
    while let Ok(length) = out.recv(&mut packet).await {
        let known = ways.lock().ok().and_then(|ways| ways.get(&client).cloned());
        // Forgotten: what comes to the old port is lost.
        if !known.is_some_and(|way| Arc::ptr_eq(&way, &out)) {
            return;
        }
        if swallow.load(Ordering::Relaxed) {
            continue;
        }
        let bytes = packet.get(..length).unwrap_or_default();
        if late.is_zero() {
            let _ = udp.send_to(bytes, client).await;
            continue;
        }
        let (at, bytes, udp) = (Instant::now() + late, bytes.to_vec(), udp.clone());
        while flying.try_join_next().is_some() {}
        flying.spawn(async move {
            sleep_until(at).await;
            let _ = udp.send_to(&bytes, client).await;
        });
    }
}
