//! A link of user space between a client and a gateway, TCP and UDP on one port: it delays, loses, forgets and swallows.
//!
//! What is lost is drawn from a seed, packet by packet: the same seed and the same packets, the same losses. TCP's segments
//! are not ours to lose (the kernel would only send them again): a loss there is what it looks like from above, a pause.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::tasks::{Tasks, free_port};

/// What a retransmission costs, to TCP.
const PAUSE: Duration = Duration::from_millis(200);
/// Read from a TCP connection at once: about a segment, as the unit of loss.
const SEGMENT: usize = 1400;

/// How bad it is, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// One way.
    pub delay: Duration,
    /// Up to so much more, drawn for each datagram: they overtake each other.
    pub jitter: Duration,
    /// Of a thousand packets, so many are lost.
    pub lost: u64,
    /// Of a thousand datagrams, so many arrive cut short, anywhere.
    pub cut: u64,
}

/// How a TCP connection breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Break {
    /// The rest of this direction is a FIN; the other goes on.
    Fin,
    /// RST, to both ends.
    Reset,
}

/// A break that is to come.
#[derive(Clone, Copy, Debug)]
struct Planned {
    towards: Towards,
    /// So many more bytes pass before it.
    after: u64,
    how: Break,
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Towards {
    /// What the client sends.
    Gateway,
    /// What the gateway sends.
    Client,
}

/// A running link. It is gone when dropped.
pub struct Link {
    /// What the client dials instead of the gateway.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Tasks,
}

/// A datagram on its way, and when it arrives.
type Datagram = (Instant, Vec<u8>);

/// Bytes of a connection on their way.
struct Flight {
    at: Instant,
    bytes: Vec<u8>,
    /// They are the last.
    then: Option<Break>,
}

struct Shared {
    to: SocketAddr,
    weather: Weather,
    seed: u64,
    /// Packets and connections so far.
    seen: AtomicU64,
    /// Datagrams that were lost on purpose.
    lost: AtomicU64,
    swallows_udp: AtomicBool,
    swallows_answers: AtomicBool,
    cuts_up: AtomicBool,
    cuts_down: AtomicBool,
    /// TCP connections break by these, one each.
    planned: Mutex<Vec<Planned>>,
    broken: AtomicU64,
    /// Where each client's datagrams leave from.
    ways: Mutex<HashMap<SocketAddr, mpsc::UnboundedSender<Datagram>>>,
    tasks: Tasks,
}

impl Link {
    /// A link to `to`.
    pub async fn start(to: SocketAddr, weather: Weather, seed: u64) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().await));
        let (tcp, udp) = (TcpListener::bind(address), UdpSocket::bind(address));
        let (tcp, udp) = (tcp.await.unwrap(), Arc::new(udp.await.unwrap()));
        let shared = Arc::new(Shared {
            to,
            weather,
            seed,
            seen: AtomicU64::default(),
            lost: AtomicU64::default(),
            swallows_udp: AtomicBool::default(),
            swallows_answers: AtomicBool::default(),
            cuts_up: AtomicBool::default(),
            cuts_down: AtomicBool::default(),
            planned: Mutex::default(),
            broken: AtomicU64::default(),
            ways: Mutex::default(),
            tasks: Tasks::default(),
        });
        let tasks = Tasks::default();
        tasks.spawn(connections(tcp, shared.clone()));
        tasks.spawn(datagrams(udp, shared.clone()));
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    /// `https://` here.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Datagrams vanish from now on, or no more.
    pub fn swallow_udp(&self, swallow: bool) {
        self.shared.swallows_udp.store(swallow, Ordering::Relaxed);
    }

    /// Datagrams of the gateway's vanish from now on, or no more; it gets what the client sends.
    pub fn swallow_answers(&self, swallow: bool) {
        self.shared
            .swallows_answers
            .store(swallow, Ordering::Relaxed);
    }

    /// Of the next segment of each TCP connection in this direction only half arrives, and then a FIN: the end of a connection
    /// in the middle of whatever it carries. Datagrams vanish, both ways.
    pub fn cut(&self, towards: Towards) {
        let cuts = match towards {
            Towards::Gateway => &self.shared.cuts_up,
            Towards::Client => &self.shared.cuts_down,
        };
        cuts.store(true, Ordering::Relaxed);
        self.swallow_udp(true);
    }

    /// When so many more bytes have gone in this direction, on whatever TCP connections, the one that carries the last of them breaks behind
    /// it.
    pub fn break_after(&self, towards: Towards, after: u64, how: Break) {
        let planned = Planned {
            towards,
            after,
            how,
        };
        self.shared.planned.lock().unwrap().push(planned);
    }

    /// What is planned and has not come about will not.
    pub fn mend(&self) {
        self.shared.planned.lock().unwrap().clear();
    }

    /// TCP connections that broke as planned so far.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// As a NAT that has forgotten everybody: what a client sends next leaves from a new port, and what comes to the old one is
    /// lost.
    pub fn forget(&self) {
        self.shared.ways.lock().unwrap().clear();
    }

    /// How many packets and connections have come so far.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Datagrams lost on purpose so far.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Whether the next packet is lost, and how much later than usual it comes.
    fn draw(&self) -> (bool, Duration) {
        let number = self.seen.fetch_add(1, Ordering::Relaxed);
        let drawn = mix(self.seed.wrapping_add(number));
        let spread = u64::try_from(self.weather.jitter.as_micros()).unwrap();
        let late = (drawn >> 32) % (spread + 1);
        (
            drawn % 1000 < self.weather.lost,
            Duration::from_micros(late),
        )
    }

    /// Where a connection breaks within the next so many bytes, and how.
    fn breaks(&self, towards: Towards, length: usize) -> Option<(usize, Break)> {
        let mut planned = self.planned.lock().unwrap();
        let mut found = None;
        for (place, one) in planned.iter_mut().enumerate() {
            if one.towards == towards && one.after <= length as u64 && found.is_none() {
                found = Some(place);
            } else if one.towards == towards {
                one.after = one.after.saturating_sub(length as u64);
            }
        }
        let one = planned.swap_remove(found?);
        self.broken.fetch_add(1, Ordering::Relaxed);
        Some((usize::try_from(one.after).unwrap(), one.how))
    }

    /// So much of a datagram arrives.
    fn left_of(&self, length: usize) -> usize {
        let drawn = mix(self.seed ^ self.seen.load(Ordering::Relaxed).wrapping_mul(0x5851_F42D));
        if drawn % 1000 < self.weather.cut {
            usize::try_from(drawn >> 32).unwrap() % length.max(1)
        } else {
            length
        }
    }

    /// When a datagram arrives, if it does.
    fn arrival(&self) -> Option<Instant> {
        let (lost, late) = self.draw();
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        let passes = !lost && !self.swallows_udp.load(Ordering::Relaxed);
        passes.then(|| Instant::now() + self.weather.delay + late)
    }
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

async fn datagrams(udp: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut packet = vec![0; 65_535];
    loop {
        // An error is about a datagram sent before: its receiver is gone.
        let Ok((length, from)) = udp.recv_from(&mut packet).await else {
            continue;
        };
        let Some(at) = shared.arrival() else { continue };
        let way = shared.ways.lock().unwrap().get(&from).cloned();
        let way = match way {
            Some(way) => way,
            None => open_way(&udp, from, &shared).await,
        };
        let left = shared.left_of(length);
        let _ = way.send((at, packet[..left].to_vec()));
    }
}

/// A port of its own for a client, both directions.
async fn open_way(
    udp: &Arc<UdpSocket>,
    client: SocketAddr,
    shared: &Arc<Shared>,
) -> mpsc::UnboundedSender<Datagram> {
    let out = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    out.connect(shared.to).await.unwrap();
    let out = Arc::new(out);
    let (send, mut queue) = mpsc::unbounded_channel::<Datagram>();
    let (back, link, near) = (out.clone(), shared.clone(), udp.clone());
    shared.tasks.spawn(async move {
        let flights = Tasks::default();
        let mut packet = vec![0; 65_535];
        loop {
            tokio::select! {
                sent = queue.recv() => {
                    // The way is forgotten: nobody sends by it any more.
                    let Some((at, bytes)) = sent else { return };
                    let out = out.clone();
                    flights.spawn(async move {
                        tokio::time::sleep_until(at).await;
                        let _ = out.send(&bytes).await;
                    });
                }
                received = back.recv(&mut packet) => {
                    let (Ok(length), Some(at)) = (received, link.arrival()) else { continue };
                    if link.swallows_answers.load(Ordering::Relaxed) {
                        continue;
                    }
                    let left = link.left_of(length);
                    let (near, bytes) = (near.clone(), packet[..left].to_vec());
                    flights.spawn(async move {
                        tokio::time::sleep_until(at).await;
                        let _ = near.send_to(&bytes, client).await;
                    });
                }
            }
        }
    });
    shared.ways.lock().unwrap().insert(client, send.clone());
    send
}

async fn connections(tcp: TcpListener, shared: Arc<Shared>) {
    while let Ok((near, _)) = tcp.accept().await {
        let Ok(far) = TcpStream::connect(shared.to).await else {
            continue;
        };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        shared.tasks.spawn(connection(near, far, shared.clone()));
    }
}

/// Both directions, each to its own end, unless it is reset.
async fn connection(mut near: TcpStream, mut far: TcpStream, shared: Arc<Shared>) {
    let reset = Notify::new();
    let was_reset = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let (up, going_up) = mpsc::channel(4096);
        let (down, going_down) = mpsc::channel(4096);
        let ends = async {
            tokio::join!(
                read(near_read, up, &shared, Towards::Gateway),
                write(far_write, going_up, &reset),
                read(far_read, down, &shared, Towards::Client),
                write(near_write, going_down, &reset),
            )
        };
        tokio::select! {
            _ = ends => false,
            () = reset.notified() => true,
        }
    };
    if was_reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

async fn read(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Flight>,
    shared: &Shared,
    towards: Towards,
) {
    let cuts = match towards {
        Towards::Gateway => &shared.cuts_up,
        Towards::Client => &shared.cuts_down,
    };
    let mut segment = vec![0; SEGMENT];
    while let Ok(length @ 1..) = from.read(&mut segment).await {
        let (lost, _) = shared.draw();
        let pause = if lost { PAUSE } else { Duration::ZERO };
        let at = Instant::now() + shared.weather.delay + pause;
        let cut = cuts.load(Ordering::Relaxed);
        let breaks = match cut {
            true => Some((length.div_ceil(2), Break::Fin)),
            false => shared.breaks(towards, length),
        };
        let (passes, how) = breaks.map_or((length, None), |(passes, how)| (passes, Some(how)));
        let flight = Flight {
            at,
            bytes: segment[..passes].to_vec(),
            then: how,
        };
        // Whether the last is taken is all the same.
        if queue.send(flight).await.is_err() || how.is_some() {
            return;
        }
    }
}

async fn write(mut to: WriteHalf<'_>, mut queue: mpsc::Receiver<Flight>, reset: &Notify) {
    while let Some(Flight { at, bytes, then }) = queue.recv().await {
        // In order: a segment that is late holds up what comes behind it.
        tokio::time::sleep_until(at).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        if then == Some(Break::Reset) {
            return reset.notify_one();
        }
    }
    let _ = to.shutdown().await;
}
