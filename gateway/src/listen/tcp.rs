//! TCP listeners and their accept loops.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::{net::TcpListener, time};

use super::{Accepted, Arrival, Capture, Lost, Places};
use crate::{
    descriptors::{self, For},
    drain::{DrainWatch, Stage},
    telemetry::{Telemetry, TransportLabel},
};

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ListenerKind {
    /// TLS, everything a sandbox may ask.
    Public,
    /// The same without TLS.
    Plain,
    /// The admin API.
    Management,
    /// TLS with client certificates: hosts that dial what sandboxes expose.
    Private,
    /// SOCKS5.
    Socks,
    /// Connections that the network brings here instead of where they were meant to go.
    Transparent,
    /// TLS and HTTP/1 passed on by the name they say.
    Sni,
}

impl ListenerKind {
    /// The label in metrics and records.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Plain => "plain",
            Self::Management => "management",
            Self::Private => "private",
            Self::Socks => "socks",
            Self::Transparent => "transparent",
            Self::Sni => "sni",
        }
    }

    /// What it speaks.
    pub const fn transports(self) -> &'static [&'static str] {
        match self {
            Self::Public => &["TLS h2", "TLS http/1.1"],
            Self::Plain => &["h2", "http/1.1"],
            Self::Management => &["http/1.1"],
            Self::Private => &["TLS"],
            Self::Socks => &["socks5"],
            Self::Transparent => &["any TCP"],
            Self::Sni => &["TLS, passed on", "http/1.1"],
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    /// What it is for.
    pub kind: ListenerKind,
    /// Where it listens (port 0 resolved).
    pub address: SocketAddr,
    socket: TcpListener,
}

/// Connections the kernel holds before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after an accept that failed for want of file descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(50);

impl Listener {
    /// Bind. An IPv6 address takes IPv6 only. What is captured by TPROXY comes to any address (IP_TRANSPARENT, which needs
    /// CAP_NET_ADMIN).
    ///
    /// # Errors
    /// The address is taken, not ours, or not permitted.
    pub fn bind(
        kind: ListenerKind,
        address: SocketAddr,
        capture: Option<Capture>,
    ) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if matches!(capture, Some(Capture::Tproxy { .. })) {
            if address.is_ipv6() {
                socket.set_ip_transparent_v6(true)?;
            } else {
                socket.set_ip_transparent_v4(true)?;
            }
        }
        socket.set_nonblocking(true)?;
        // What it accepts has it from the start.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keepalive())?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        Ok(Self {
            kind,
            address: socket.local_addr()?,
            socket,
        })
    }
}

/// A client that vanishes while nothing is on its way to it is gone after half a minute: what waits for it, or it offers,
/// must not be taken for somebody's. No TCP_USER_TIMEOUT: that would also end a client that takes nothing for a while, though
/// it answers every probe of its window (Linux, `tcp_probe_timer`).
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3)
}

/// What is left of a connection or a stream once it is open: it may be there for days, and idle. Opening takes several times
/// as much room, which is not kept for as long.
pub type Carrying = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accept until the drain reaches [`Stage::Draining`] (operators are let in until the end); each connection is served in a task of its own. `places` bounds
/// how many there are at once; over it a connection is reset at once and counted.
pub async fn accept_loop<F, Fut>(
    listener: Listener,
    arrival: Arrival,
    places: Arc<Places>,
    telemetry: Telemetry,
    mut drain: DrainWatch,
    serve: F,
) where
    F: Fn(Accepted) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Option<Carrying>> + Send + 'static,
{
    let spawner = drain.clone();
    let management = listener.kind == ListenerKind::Management;
    let until = if management {
        Stage::Forced
    } else {
        Stage::Draining
    };
    let mut over = pin!(drain.reached(until));
    // Looked up once. A listener that nobody has come to has no count.
    let mut counted = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut over => return,
            accepted = listener.socket.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_if_exhausted(&error).await;
                continue;
            }
        };
        // Operators are let in to the last one.
        if !management && descriptors::is_kept_back(&tcp, For::Arriving) {
            telemetry
                .metrics()
                .connection_refused(listener.kind.label(), "descriptors");
            let _ = tcp.set_zero_linger();
            continue;
        }
        // Of whom a balancer speaks is known later.
        let place = if arrival.speaks_for_others(peer.ip()) {
            places.take_unnamed()
        } else {
            places.take(peer.ip())
        };
        let mut place = match place {
            Ok(place) => place,
            Err(full) => {
                telemetry
                    .metrics()
                    .connection_refused(listener.kind.label(), full.label());
                let _ = tcp.set_zero_linger();
                continue;
            }
        };
        let counted = counted.get_or_insert_with(|| {
            let metrics = telemetry.metrics();
            metrics.connections(listener.kind.label(), TransportLabel::tcp)
        });
        let guard = counted.begin();
        let (arrival, serve) = (arrival.clone(), serve.clone());
        let (metrics, kind) = (telemetry.clone(), listener.kind);
        let opening = Box::pin(async move {
            let carrying = match arrival.receive(tcp, peer, &mut place).await {
                Ok(accepted) => serve(accepted).await,
                Err(Lost::Full(full)) => {
                    metrics
                        .metrics()
                        .connection_refused(kind.label(), full.label());
                    None
                }
                Err(Lost::Gone) => None,
            };
            (place, carrying)
        });
        let work = async move {
            let (place, carrying) = opening.await;
            if let Some(carrying) = carrying {
                carrying.await;
            }
            // What is no longer counted has left its place.
            drop((place, guard));
        };
        if management {
            spawner.spawn_service(work);
        } else {
            spawner.spawn(work);
        }
    }
}

/// Out of file descriptors or memory: accepting again at once would only spin. A connection that broke before it was
/// accepted needs no pause.
async fn pause_if_exhausted(error: &io::Error) {
    if !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    ) {
        descriptors::ran_out();
        tracing::warn!(%error, "accept failed; pausing");
        time::sleep(EXHAUSTED).await;
    }
}

#[cfg(test)]
mod tests;
