//! The addresses of this host, which come and go while the gateway runs: read anew where they are judged by, and found where a
//! route or a connection shows one.

mod routes;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::LazyLock,
    time::Instant,
};

use sluicegate_policy::Interfaces;
use tokio::net::TcpStream;

/// They are no older than this where somebody is judged by them, in milliseconds.
const AGE: u64 = 1000;

/// A list that [`refresh`] keeps.
///
/// # Errors
/// The kernel's.
pub fn read() -> io::Result<Interfaces> {
    routes::begin();
    let interfaces = Interfaces::from(listed()?);
    interfaces.due_at(now() + AGE);
    Ok(interfaces)
}

/// The list that was kept until now, read once more: what dials have shown stays on it, as none of the connections that are open
/// shows it again.
///
/// # Errors
/// The kernel's.
pub fn read_again(kept: &Interfaces) -> io::Result<Interfaces> {
    reread(kept)?;
    kept.due_at(now() + AGE);
    Ok(kept.clone())
}

/// Before `answers` are judged: where the list is old somebody reads it, and waits for that; others go by what there is
/// meanwhile. Loopback is this host's without any list.
pub async fn refresh(interfaces: &Interfaces, answers: &[IpAddr]) {
    if answers.iter().all(|ip| ip.to_canonical().is_loopback()) {
        return;
    }
    let now = now();
    if !interfaces.is_due(now, now + AGE) {
        return;
    }
    let interfaces = interfaces.clone();
    // The kernel makes the list under a lock that whoever configures its network may hold.
    let read = tokio::task::spawn_blocking(move || reread(&interfaces)).await;
    if let Err(error) = read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        tracing::warn!(%error, "this host's addresses cannot be read: those known before stay");
    }
}

/// Would what is sent to `address` stay on this host by a route, though it is neither loopback nor on the list? The kernel's answer
/// is a second old at most.
#[must_use]
pub fn is_here(interfaces: &Interfaces, address: IpAddr) -> bool {
    let address = address.to_canonical();
    !address.is_loopback()
        && !address.is_unspecified()
        && !interfaces.contains(address)
        && routes::lead_here(address, now())
}

/// Does a connection to `address` lead to this host, by an address other than loopback? What is sent to oneself is sent from
/// where it goes to, whether an interface has the address or a local route leads there.
///
/// # Errors
/// The kernel's.
pub fn leads_here(stream: &TcpStream, address: SocketAddr) -> io::Result<bool> {
    let to = address.ip().to_canonical();
    Ok(!to.is_loopback() && stream.local_addr()?.ip().to_canonical() == to)
}

fn reread(interfaces: &Interfaces) -> io::Result<()> {
    let listed = listed()?;
    interfaces.renew(|before| {
        // What was found is on no list: only the kernel knows whether it is ours still.
        let found = before.iter().filter(|ip| !listed.contains(ip));
        let found = found.filter(|ip| is_ours(**ip));
        listed.iter().chain(found).copied().collect()
    });
    Ok(())
}

/// Either way of knowing will do.
fn is_ours(address: IpAddr) -> bool {
    routes::ask(address).unwrap_or(false) || is_sent_from_itself(address)
}

/// Connecting a UDP socket sends nothing; it only makes the kernel choose what it would send from.
fn is_sent_from_itself(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    };
    from().is_ok_and(|from: SocketAddr| from.ip() == address)
}

fn listed() -> io::Result<Vec<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    Ok(all
        .filter_map(|interface| {
            let address = interface.address?;
            address
                .as_sockaddr_in()
                .map(|v4| IpAddr::V4(v4.ip()))
                .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|ip| !ip.is_loopback())
        .collect())
}

/// Milliseconds of a clock that nobody sets.
fn now() -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{IpAddr, Ipv4Addr, UdpSocket};

    use sluicegate_policy::Interfaces;
    use tokio::net::{TcpListener, TcpStream};

    use super::{
        is_here, is_ours, is_sent_from_itself, leads_here, listed, read, read_again, refresh,
    };

    /// Kept for documentation (RFC 5737): nobody's.
    const NOBODYS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn what_is_ours_no_more_is_forgotten() {
        assert!(is_ours(Ipv4Addr::LOCALHOST.into()) && !is_ours(NOBODYS));
        let interfaces = read().unwrap();
        interfaces.found(NOBODYS);
        // Of loopback's addresses only the first is what they are sent from.
        interfaces.found(Ipv4Addr::LOCALHOST.into());
        // Whoever judged by it and whoever will do it by one list.
        let again = read_again(&interfaces).unwrap();
        for interfaces in [&interfaces, &again] {
            assert!(!interfaces.contains(NOBODYS));
            assert!(interfaces.contains(Ipv4Addr::LOCALHOST.into()));
        }
    }

    #[tokio::test]
    async fn a_list_is_read_where_it_is_due_and_matters() {
        let interfaces = read().unwrap();
        interfaces.replace(&[NOBODYS]);
        interfaces.due_at(0);
        refresh(&interfaces, &[Ipv4Addr::LOCALHOST.into()]).await;
        assert!(interfaces.contains(NOBODYS));
        refresh(&interfaces, &[NOBODYS]).await;
        assert!(!interfaces.contains(NOBODYS));
    }

    #[test]
    fn what_no_list_has_a_route_shows() {
        let unknown = Interfaces::default();
        let known = read().unwrap();
        for own in listed().unwrap() {
            if UdpSocket::bind((own, 0)).is_err() {
                // A link's own need its number, and what is listed may not be in use yet (RFC 4862 §5.4) or any more.
                continue;
            }
            assert!(is_here(&unknown, own), "{own}");
            // Its list was enough.
            assert!(!is_here(&known, own), "{own}");
        }
        assert!(!is_here(&unknown, NOBODYS));
        // Routes lead here too, and nobody asks.
        assert!(!is_here(&unknown, Ipv4Addr::LOCALHOST.into()));
    }

    #[tokio::test]
    async fn a_connection_to_oneself_is_told() {
        for own in listed().unwrap() {
            // A link's own addresses need its number.
            let Ok(listener) = TcpListener::bind((own, 0)).await else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            if !is_sent_from_itself(own) {
                // A second address of its network is sent to from the first.
                continue;
            }
            let stream = TcpStream::connect(address).await.unwrap();
            assert!(leads_here(&stream, address).unwrap(), "{address}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        assert!(!leads_here(&stream, address).unwrap());
    }
}
