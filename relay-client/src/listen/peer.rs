//! Whose process is at the other end of a loopback TCP connection? The kernel's socket table says.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{alone, diag};
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
    if whose(diag::socket(peer, local)) == Whose::User(own) {
        return true;
    }
    // There is nobody to ask for the row alone, or nothing good to tell: the whole table has the last word.
    let looked = tokio::task::spawn_blocking(move || -> io::Result<(Whose, bool)> {
        let found = whose(row_of(peer, local)?);
        Ok((found, found == Whose::Gone && alone::are_we(own)))
    });
    let looked = match looked.await {
        Ok(looked) => looked,
        Err(_) => return false,
    };
    match looked {
        Ok((Whose::User(uid), _)) if uid == own => return true,
        // A program that writes and closes at once has been here, and there is nobody else whose it could be.
        Ok((Whose::Gone, true)) => return true,
        Ok((Whose::User(uid), _)) => {
            alone::met_another();
            tracing::warn!(%local, %peer, uid, "another user's process was refused");
        }
        Ok((Whose::Gone, false)) => {
            tracing::warn!(%local, %peer, "a program was refused that had closed its connection before it was known whose it is: programs that write and close at once need a unix socket, or --any-uid");
        }
        Ok((Whose::Nobody, _)) => {
            tracing::warn!(%local, %peer, "a connection was refused whose other end is reset already, or in another network namespace");
        }
        Err(error) => {
            tracing::warn!(%local, %error, "cannot tell whose process it is: give --any-uid or a unix socket");
        }
    }
    false
}

/// What the socket table says of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// It is this user's.
    User(u32),
    /// Closed by its process, and kept by the kernel to its end.
    Gone,
    /// There is none, or it is in another network namespace.
    Nobody,
}

/// Closed by its process and kept by the kernel, a socket has no inode. Whose it was newer kernels still say for a moment (Linux
/// 6.18, until the other end has acknowledged the FIN), older ones say uid 0, as all of them do later.
fn whose(row: Option<(u32, u32)>) -> Whose {
    match row {
        None => Whose::Nobody,
        Some((0, 0)) => Whose::Gone,
        Some((uid, _)) => Whose::User(uid),
    }
}

/// Uid and inode of the socket bound to `peer` and connected to `local`, both as this end sees them.
///
/// # Errors
/// There is no /proc to ask.
fn row_of(peer: SocketAddr, local: SocketAddr) -> io::Result<Option<(u32, u32)>> {
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
        if let Some(row) = find(&text, peer, local) {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Uid and inode in the row whose own end is `own` and whose other end is `other` (proc_pid_net(5)).
fn find(table: &str, own: SocketAddr, other: SocketAddr) -> Option<(u32, u32)> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let ends = (address(columns.nth(1)?)?, address(columns.next()?)?);
        if ends != (canonical(own), canonical(other)) {
            return None;
        }
        // st, queues, timer and retransmissions come before the uid; the timeout between it and the inode.
        let uid = columns.nth(4)?.parse().ok()?;
        let inode = columns.nth(1)?.parse().ok()?;
        Some((uid, inode))
    })
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

    use super::{Whose, find, row_of, whose};

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
        let found = |table, peer| whose(find(table, at(peer), proxy));
        assert_eq!(found(TCP, "127.0.0.1:50000"), Whose::User(1000));
        assert_eq!(found(TCP, "127.0.0.1:50001"), Whose::Gone);
        assert_eq!(found(TCP, "127.0.0.1:50009"), Whose::Nobody);
        assert_eq!(found(TCP6, "127.0.0.1:50002"), Whose::User(1001));
        assert_eq!(found(TCP6, "[::ffff:127.0.0.1]:50002"), Whose::User(1001));
        let v6 = find(TCP6, at("[::1]:50003"), at("[::1]:8080"));
        assert_eq!(whose(v6), Whose::User(1002));
        for broken in [
            "",
            "x\n",
            "x\n1: nonsense",
            "x\n1: 0100007F:C350 0100007F:1F90 01",
        ] {
            assert_eq!(found(broken, "127.0.0.1:50000"), Whose::Nobody);
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
            assert_eq!(whose(row_of(peer, local).unwrap()), Whose::User(own));
            drop(near);
            let told = whose(row_of(peer, local).unwrap());
            let gone = told == Whose::Gone || (told == Whose::User(own) && own != 0);
            assert!(gone, "nobody holds it any more: {told:?}");
        }
    }
}
