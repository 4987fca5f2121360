//! One row of the kernel's socket table, asked for by both ends (sock_diag(7)): reading all of it takes milliseconds where the
//! table is large.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// In `struct inet_diag_msg`, behind family, state, timer and retransmissions: ports, addresses.
const ENDS: usize = HEADER + 4;
const ENDS_LENGTH: usize = 36;
/// Behind interface and cookie, the timer and two queues.
const UID: usize = ENDS + ENDS_LENGTH + 12 + 12;

/// Uid and inode of the socket at `own` that is connected to `other`. `None`: there is none, or nobody to ask.
pub(super) fn socket(own: SocketAddr, other: SocketAddr) -> Option<(u32, u32)> {
    let request = request(own, other)?;
    read(&exchange(&request).ok()?, &request)
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2`.
fn request(own: SocketAddr, other: SocketAddr) -> Option<Vec<u8>> {
    let (from, to) = (own.ip().to_canonical(), other.ip().to_canonical());
    let family = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => AddressFamily::INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => AddressFamily::INET6,
        _ => return None,
    };
    let mut bytes = Vec::with_capacity(72);
    bytes.extend_from_slice(&72u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[u8::try_from(family.as_raw()).ok()?, IPPROTO_TCP, 0, 0]);
    // In any state.
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&own.port().to_be_bytes());
    bytes.extend_from_slice(&other.port().to_be_bytes());
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => {
                bytes.extend_from_slice(&ip.octets());
                bytes.extend_from_slice(&[0; 12]);
            }
            IpAddr::V6(ip) => bytes.extend_from_slice(&ip.octets()),
        }
    }
    // Whatever interface, whatever cookie (INET_DIAG_NOCOOKIE).
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[0xff; 8]);
    Some(bytes)
}

/// The kernel answers before `send` returns.
fn exchange(request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(SOCK_DIAG),
    )?;
    rustix::net::send(&socket, request, SendFlags::empty())?;
    let mut answer = vec![0; 1024];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    answer.truncate(length);
    Ok(answer)
}

/// Where nothing has both ends the kernel tells of a listener that has one.
fn read(answer: &[u8], request: &[u8]) -> Option<(u32, u32)> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    // In the request they stand behind eight bytes.
    let asked = request.get(HEADER + 8..HEADER + 8 + ENDS_LENGTH)?;
    let told = answer.get(ENDS..ENDS + ENDS_LENGTH)?;
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let found = (word(UID)?, word(UID + 4)?);
    (kind == SOCK_DIAG_BY_FAMILY && told == asked).then_some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::{TcpListener, TcpStream};

    use super::{exchange, read, request, socket};

    #[test]
    fn both_ends_find_their_socket_and_no_other() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(local) else {
                continue;
            };
            let place = listener.local_addr().unwrap();
            let near = TcpStream::connect(place).unwrap();
            let (own, other) = (near.local_addr().unwrap(), near.peer_addr().unwrap());
            let asked = request(own, other).unwrap();
            let Ok(answer) = exchange(&asked) else {
                // Nobody to ask here.
                return;
            };
            let uid = rustix::process::geteuid().as_raw();
            let found = read(&answer, &asked);
            assert_eq!(found.map(|(uid, _)| uid), Some(uid), "{local}");
            assert_ne!(found.unwrap().1, 0);
            for length in 0..answer.len() {
                // Cut short it is nothing, or the same.
                let found = answer.get(..length).and_then(|cut| read(cut, &asked));
                assert!(found.is_none_or(|(found, _)| found == uid));
            }
            // The listener's own port: it is not the connection's.
            let mut nobody = own;
            nobody.set_port(1);
            assert_eq!(socket(place, nobody), None, "{local}");
            assert_eq!(socket(nobody, place), None, "{local}");
        }
    }
}
