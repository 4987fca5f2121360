//! Whose process is at the other end of a loopback TCP connection? The kernel's socket table says.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::diag;
use crate::flow::Shared;

/// Is the process at the other end one of our own user's? A unix listener has made sure of it.
pub(crate) async fn is_ours(socket: &Shared) -> bool {
    let Shared::Tcp(tcp) = socket else {
        return true;
    };
    let (Ok(peer), Ok(local)) = (tcp.peer_addr(), tcp.local_addr()) else {
        return false;
    };
    let own = rustix::process::geteuid().as_raw();
    if diag::socket(peer, local).and_then(owner) == Some(own) {
        return true;
    }
    // There is nobody to ask for the row alone, or nothing good to tell: the whole table has the last word.
    match tokio::task::spawn_blocking(move || uid_of(peer, local)).await {
        Ok(Ok(Some(uid))) if uid == own => true,
        Ok(Ok(uid)) => {
            tracing::warn!(%local, %peer, uid, "another user's process was refused");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%local, %error, "cannot tell whose process it is: give --any-uid or a unix socket");
            false
        }
        Err(_) => false,
    }
}

/// The uid that owns the socket bound to `peer` and connected to `local`, both as this end sees them. `None`: no process
/// holds it any more, or it is in another network namespace.
///
/// # Errors
/// There is no /proc to ask.
fn uid_of(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
    // A socket of the IPv6 family may hold either end of an IPv4 connection.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = match fs::read_to_string(table) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(uid) = find(&text, peer, local) {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// The uid in the row whose own end is `own` and whose other end is `other` (proc_pid_net(5)).
fn find(table: &str, own: SocketAddr, other: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let ends = (address(columns.nth(1)?)?, address(columns.next()?)?);
        if ends != (canonical(own), canonical(other)) {
            return None;
        }
        // st, queues, timer and retransmissions come before the uid; the timeout between it and the inode.
        let uid = columns.nth(4)?.parse().ok()?;
        let inode = columns.nth(1)?.parse().ok()?;
        owner((uid, inode))
    })
}

/// Closed by its process and kept by the kernel, a socket has no inode. Whose it was newer kernels still say (Linux 6.18), older
/// ones say uid 0.
fn owner((uid, inode): (u32, u32)) -> Option<u32> {
    (inode != 0 || uid != 0).then_some(uid)
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// `0100007F:1F90`: address words in the machine's byte order, the port as it reads.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut words = ip
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok())
        .map(|word| word.map(u32::to_ne_bytes));
    let ip: IpAddr = if ip.len() == 8 {
        Ipv4Addr::from(words.next()??).into()
    } else {
        let mut bytes = Vec::with_capacity(16);
        for word in words {
            bytes.extend_from_slice(&word?);
        }
        Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
    };
    Some((ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::{find, uid_of};

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 ffff 100 0 0 10 0\n   \
        1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4343 1 ffff 20 4 30 10 -1\n   \
        2: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     7        0 4444 1 ffff 20 4 30 10 -1\n   \
        3: 0100007F:C351 0100007F:1F90 04 00000000:00000000 00:00000000 00000000     0        0 0 1 ffff 20 4 30 10 -1\n";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue\n   \
        0: 0000000000000000FFFF00000100007F:C352 0000000000000000FFFF00000100007F:1F90 01 0:0 00:0 0  1001 0 5555 1 ffff\n   \
        1: 00000000000000000000000001000000:C353 00000000000000000000000001000000:1F90 01 0:0 00:0 0  1002 0 5556 1 ffff\n";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    // The tables above are a little-endian machine's.
    #[cfg(target_endian = "little")]
    #[test]
    fn the_row_with_both_ends_says_whose_it_is() {
        let proxy = at("127.0.0.1:8080");
        let found = |table, peer| find(table, at(peer), proxy);
        assert_eq!(found(TCP, "127.0.0.1:50000"), Some(1000));
        assert_eq!(found(TCP, "127.0.0.1:50001"), None, "closed by its process");
        assert_eq!(found(TCP, "127.0.0.1:50009"), None);
        assert_eq!(found(TCP6, "127.0.0.1:50002"), Some(1001));
        assert_eq!(
            find(TCP6, at("[::ffff:127.0.0.1]:50002"), proxy),
            Some(1001)
        );
        assert_eq!(find(TCP6, at("[::1]:50003"), at("[::1]:8080")), Some(1002));
        for broken in [
            "",
            "x\n",
            "x\n1: nonsense",
            "x\n1: 0100007F:C350 0100007F:1F90 01",
        ] {
            assert_eq!(found(broken, "127.0.0.1:50000"), None);
        }
    }

    #[test]
    fn the_kernel_says_so_of_a_connection_of_ours() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local) else {
                continue;
            };
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, peer) = listener.accept().unwrap();
            let own = rustix::process::geteuid().as_raw();
            let local = far.local_addr().unwrap();
            assert_eq!(uid_of(peer, local).unwrap(), Some(own));
            drop(near);
            let uid = uid_of(peer, local).unwrap();
            let told = uid.is_none_or(|uid| uid == own && own != 0);
            assert!(told, "nobody holds it any more: {uid:?}");
        }
    }
}
