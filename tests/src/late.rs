//! A user-space link that delays: TCP and UDP on one port, towards another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use crate::tasks::Tasks;

/// The link. It ends when dropped.
pub struct LateLink {
    /// Its near end.
    pub address: SocketAddr,
    _tasks: Tasks,
}

impl LateLink {
    /// Towards `far`, with so much delay each way.
    pub async fn to(far: SocketAddr, delay: Duration) -> Self {
        loop {
            let near = ("127.0.0.1:0").parse().unwrap();
            if let Some(link) = Self::between(near, far, delay).await {
                return link;
            }
        }
    }

    /// From `near`. `None`: somebody else has the port, TCP's or UDP's.
    pub async fn between(near: SocketAddr, far: SocketAddr, delay: Duration) -> Option<Self> {
        let listener = TcpListener::bind(near).await.ok()?;
        let near = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(near).await.ok()?;
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::default();
        tasks.spawn(tcp(listener, far, delay));
        tasks.spawn(udp(Arc::new(socket), far, delay));
        Some(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn tcp(listener: TcpListener, far: SocketAddr, delay: Duration) {
    let tasks = Tasks::default();
    while let Ok((near, _)) = listener.accept().await {
        let Ok(far) = TcpStream::connect(far).await else {
            continue;
        };
        for socket in [&near, &far] {
            socket.set_nodelay(true).unwrap();
        }
        let ((near_read, near_write), (far_read, far_write)) =
            (near.into_split(), far.into_split());
        for (read, write) in [(near_read, far_write), (far_read, near_write)] {
            let (put, taken) = unbounded_channel();
            tasks.spawn(reading(read, put, delay));
            tasks.spawn(writing(taken, write));
        }
    }
}

type Late = (Instant, Vec<u8>);

async fn reading(mut from: OwnedReadHalf, put: UnboundedSender<Late>, delay: Duration) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let late = (Instant::now() + delay, buffer[..count].to_vec());
        if put.send(late).is_err() {
            return;
        }
    }
}

async fn writing(mut taken: UnboundedReceiver<Late>, mut to: OwnedWriteHalf) {
    while let Some((at, bytes)) = taken.recv().await {
        sleep_until(at).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn udp(near: Arc<UdpSocket>, far: SocketAddr, delay: Duration) {
    let tasks = Tasks::default();
    let mut clients: HashMap<SocketAddr, UnboundedSender<Late>> = HashMap::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok((count, client)) = near.recv_from(&mut buffer).await {
        let late = (Instant::now() + delay, buffer[..count].to_vec());
        let new = || {
            let (put, taken) = unbounded_channel();
            tasks.spawn(flow(near.clone(), client, far, taken, delay));
            put
        };
        // A flow that has ended takes no more, and the datagram is lost: so are datagrams.
        let _ = clients.entry(client).or_insert_with(new).send(late);
    }
}

/// One client's datagrams, from a socket of its own.
async fn flow(
    near: Arc<UdpSocket>,
    client: SocketAddr,
    far: SocketAddr,
    mut taken: UnboundedReceiver<Late>,
    delay: Duration,
) {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    socket.connect(far).await.unwrap();
    let tasks = Tasks::default();
    let (put, mut back) = unbounded_channel::<Late>();
    let receiving = socket.clone();
    tasks.spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // ICMP's word that nobody is there is an error here, and no reason to stop.
            if let Ok(count) = receiving.recv(&mut buffer).await {
                let late = (Instant::now() + delay, buffer[..count].to_vec());
                if put.send(late).is_err() {
                    return;
                }
            }
        }
    });
    tasks.spawn(async move {
        while let Some((at, bytes)) = back.recv().await {
            sleep_until(at).await;
            let _ = near.send_to(&bytes, client).await;
        }
    });
    while let Some((at, bytes)) = taken.recv().await {
        sleep_until(at).await;
        let _ = socket.send(&bytes).await;
    }
}
