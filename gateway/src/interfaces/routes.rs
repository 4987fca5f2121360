//! Where the kernel delivers what is sent to an address: here, where a local route says so, whether an interface has the address
//! or not. `RTM_GETROUTE` (rtnetlink(7)), written by hand: one request, one answer.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    sync::{Mutex, Once, PoisonError},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
};

use super::AGE;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const RTA_DST: u16 = 1;
const RTN_LOCAL: u8 = 2;
/// Delivered here like a local one (RFC 4291 §2.6): a router has the first address of each of its networks so.
const RTN_ANYCAST: u8 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// Where `struct rtmsg`, which follows, has the route's type.
const TYPE: usize = HEADER + 7;
/// So many answers are kept by each thread.
const MOST: usize = 1024;

/// Open from the start, for whoever is on no dial's path, and for threads that get no descriptor.
static SHARED: Mutex<Kernel> = Mutex::new(Kernel {
    socket: None,
    sequence: 0,
});

thread_local! {
    /// Of this thread alone: no dial waits for another's.
    static OWN: RefCell<Own> = RefCell::default();
}

/// Before anybody asks. Where routes cannot be asked for, the log says so from the start.
pub(super) fn begin() {
    if let Err(error) = ask(Ipv4Addr::LOCALHOST.into()) {
        tell(&error);
    }
}

/// Does a route lead here, as of a second ago at most? Where the kernel cannot be asked none does, and the log says so once.
pub(super) fn lead_here(address: IpAddr, now: u64) -> bool {
    let answer = OWN.with_borrow_mut(|own| own.answer(address, now));
    answer.unwrap_or_else(|error| {
        tell(&error);
        false
    })
}

/// The same as of now.
///
/// # Errors
/// The kernel's; not where it has no route, which leads nowhere.
pub(super) fn ask(address: IpAddr) -> io::Result<bool> {
    let kernel = SHARED.lock();
    kernel
        .unwrap_or_else(PoisonError::into_inner)
        .ask(address.to_canonical())
}

fn tell(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(%error, "the kernel does not say where routes lead: addresses of this host that only a local route brings may be taken for others");
    });
}

/// One thread's.
#[derive(Debug, Default)]
struct Own {
    answers: Answers,
    kernel: Kernel,
}

impl Own {
    fn answer(&mut self, address: IpAddr, now: u64) -> io::Result<bool> {
        if let Some(here) = self.answers.get(address, now) {
            return Ok(here);
        }
        let asked = self.kernel.ask(address.to_canonical());
        let here = or_shared(asked, || ask(address))?;
        self.answers.put(address, here, now);
        Ok(here)
    }
}

/// There is no descriptor or no memory for a socket of the thread's own: the one that is open asks.
fn or_shared(own: io::Result<bool>, shared: impl FnOnce() -> io::Result<bool>) -> io::Result<bool> {
    own.or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => shared(),
        _ => Err(error),
    })
}

/// What the kernel said lately.
#[derive(Debug, Default)]
struct Answers(HashMap<IpAddr, (bool, u64)>);

impl Answers {
    fn get(&self, address: IpAddr, now: u64) -> Option<bool> {
        let (here, until) = self.0.get(&address)?;
        (now < *until).then_some(*here)
    }

    fn put(&mut self, address: IpAddr, here: bool, now: u64) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, until)| now < *until);
            // Looking through them is for many to pay, not for each.
            if self.0.len() > MOST / 2 {
                self.0.clear();
            }
        }
        self.0.insert(address, (here, now + AGE));
    }
}

#[derive(Debug, Default)]
struct Kernel {
    /// Kept from one request to the next.
    socket: Option<OwnedFd>,
    sequence: u32,
}

impl Kernel {
    fn ask(&mut self, address: IpAddr) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        // One that failed is not used again.
        if let Some(kept) = self.socket.take()
            && let Ok(here) = exchange(&kept, address, self.sequence)
        {
            self.socket = Some(kept);
            return Ok(here);
        }
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is 0, the protocol nobody names.
            None,
        )?;
        let here = exchange(&socket, address, self.sequence)?;
        self.socket = Some(socket);
        Ok(here)
    }
}

/// The kernel answers before it returns from the request, so that nobody waits.
fn exchange(socket: &OwnedFd, address: IpAddr, sequence: u32) -> io::Result<bool> {
    net::send(socket, &request(address, sequence), SendFlags::empty())?;
    let mut answer = [0u8; 1024];
    loop {
        let (length, _) = net::recv(socket, &mut answer, RecvFlags::empty())?;
        if let Some(told) = told(answer.get(..length).unwrap_or_default(), sequence) {
            return told.or_else(|error| nowhere(error, address, has_ipv6));
        }
    }
}

/// Where the kernel has no IPv6 (`ipv6.disable=1`, or built so) none of its addresses leads anywhere. Nobody is there to answer for the
/// family then, of which rtnetlink says `EOPNOTSUPP`, as of a request that it does not know at all: a socket tells them apart.
fn nowhere(error: io::Error, address: IpAddr, has_ipv6: impl Fn() -> bool) -> io::Result<bool> {
    match Errno::from_io_error(&error) {
        Some(Errno::OPNOTSUPP | Errno::AFNOSUPPORT) if address.is_ipv6() && !has_ipv6() => {
            Ok(false)
        }
        _ => Err(error),
    }
}

fn has_ipv6() -> bool {
    let socket = net::socket_with(
        AddressFamily::INET6,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    );
    // That there are too many is told after the family is found.
    !matches!(socket, Err(Errno::AFNOSUPPORT))
}

/// What is sent to `address` from wherever the kernel would choose, by this process.
fn request(address: IpAddr, sequence: u32) -> Vec<u8> {
    let (family, bits, bytes) = match address {
        IpAddr::V4(v4) => (AF_INET, 32u8, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, 128u8, v6.octets().to_vec()),
    };
    // struct nlattr and its value.
    let attribute = 4 + u16::from(bits) / 8;
    // struct rtmsg has 12.
    let length = 16 + 12 + u32::from(attribute);
    [
        &length.to_ne_bytes()[..],
        &RTM_GETROUTE.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        &[0; 4],
        &[family, bits, 0, 0, 0, 0, 0, 0],
        &[0; 4],
        &attribute.to_ne_bytes(),
        &RTA_DST.to_ne_bytes(),
        bytes.as_slice(),
    ]
    .concat()
}

/// What a datagram answers to the request of this number; nothing where it is about another.
fn told(datagram: &[u8], sequence: u32) -> Option<io::Result<bool>> {
    if word(datagram, 8)? != sequence {
        return None;
    }
    let kind = datagram.get(4..6)?.try_into().ok()?;
    match u16::from_ne_bytes(kind) {
        RTM_NEWROUTE => {
            let leads = *datagram.get(TYPE)?;
            Some(Ok(matches!(leads, RTN_LOCAL | RTN_ANYCAST)))
        }
        NLMSG_ERROR => {
            let code = word(datagram, HEADER)?.cast_signed().wrapping_neg();
            let error = io::Error::from_raw_os_error(code);
            // No route, or one that is unreachable, prohibited or a blackhole.
            Some(match Errno::from_io_error(&error) {
                Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL) => {
                    Ok(false)
                }
                _ => Err(error),
            })
        }
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.get(..4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
        sync::{PoisonError, mpsc},
        thread,
        time::Duration,
    };

    use super::{
        Answers, MOST, Own, SHARED, ask, has_ipv6, lead_here, nowhere, or_shared, request, told,
        word,
    };

    fn answer(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap();
        let header = [
            &length.to_ne_bytes()[..],
            &kind.to_ne_bytes(),
            &[0; 2],
            &sequence.to_ne_bytes(),
            &[0; 4],
        ];
        [header.concat().as_slice(), body].concat()
    }

    #[test]
    fn routes_and_errors_are_read() {
        let route = |kind: u8| answer(24, 7, &[2, 32, 0, 0, 255, 2, 254, kind, 0, 0, 0, 0]);
        // Unicast, local, broadcast, anycast, multicast.
        for (kind, here) in [(1, false), (2, true), (3, false), (4, true), (5, false)] {
            assert_eq!(told(&route(kind), 7).unwrap().unwrap(), here, "{kind}");
        }
        assert!(told(&route(2), 8).is_none());
        for cut in 0..24 {
            assert!(told(route(2).get(..cut).unwrap(), 7).is_none());
        }
        let error = |code: i32| answer(2, 7, &(-code).to_ne_bytes());
        // ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL.
        for code in [101, 113, 13, 22] {
            assert!(!told(&error(code), 7).unwrap().unwrap(), "{code}");
        }
        // EPERM, EOPNOTSUPP.
        for code in [1, 95] {
            let told = told(&error(code), 7).unwrap();
            assert_eq!(told.unwrap_err().raw_os_error(), Some(code));
        }
    }

    #[test]
    fn without_ipv6_its_addresses_lead_nowhere() {
        let [v4, v6] = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        // EPERM, EOPNOTSUPP, EAFNOSUPPORT.
        for (code, address, has_ipv6, known) in [
            (95, v6, false, true),
            (97, v6, false, true),
            (95, v6, true, false),
            (97, v6, true, false),
            (95, v4, false, false),
            (97, v4, false, false),
            (1, v6, false, false),
        ] {
            let told = nowhere(io::Error::from_raw_os_error(code), address, || has_ipv6);
            match told {
                Ok(here) => assert!(known && !here, "{code} {address} {has_ipv6}"),
                Err(error) => {
                    assert!(!known, "{code} {address} {has_ipv6}");
                    assert_eq!(error.raw_os_error(), Some(code));
                }
            }
        }
        // What this kernel answers is no error, whether it has IPv6 or not.
        let loopback = Ipv6Addr::LOCALHOST;
        let bound = UdpSocket::bind((loopback, 0));
        assert!(has_ipv6() || bound.is_err());
        assert!(!ask(v6).unwrap());
        assert!(bound.is_err() || ask(loopback.into()).unwrap());
    }

    #[test]
    fn requests_say_how_long_they_are() {
        for (address, length) in [("192.0.2.1", 36), ("2001:db8::1", 48)] {
            let address: IpAddr = address.parse().unwrap();
            let request = request(address, 7);
            assert_eq!(request.len(), length);
            assert_eq!(word(&request, 0), Some(u32::try_from(length).unwrap()));
        }
    }

    #[test]
    fn answers_are_kept_for_a_while_and_in_bounds() {
        let mut answers = Answers::default();
        let one = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        answers.put(one, true, 5000);
        assert_eq!(answers.get(one, 5999), Some(true));
        assert_eq!(answers.get(one, 6000), None);
        for number in 0..10_000u32 {
            answers.put(number.to_be_bytes().into(), false, 5000);
            assert!(answers.0.len() <= MOST);
        }
        assert_eq!(answers.get(9999u32.to_be_bytes().into(), 5000), Some(false));
    }

    #[test]
    fn the_kernel_is_asked_anew_where_its_answer_is_old() {
        let mut own = Own::default();
        let loopback = Ipv4Addr::LOCALHOST.into();
        own.answers.put(loopback, false, 5000);
        assert!(!own.answer(loopback, 5999).unwrap());
        assert!(own.answer(loopback, 6000).unwrap());
        assert_eq!(own.answers.get(loopback, 6999), Some(true));
        assert_eq!(own.answers.get(loopback, 7000), None);
    }

    #[test]
    fn no_dial_waits_for_another_thread() {
        let held = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let (said, says) = mpsc::channel();
        let dials = thread::spawn(move || said.send(lead_here(Ipv4Addr::LOCALHOST.into(), 5000)));
        assert!(says.recv_timeout(Duration::from_secs(60)).unwrap());
        drop(held);
        dials.join().unwrap().unwrap();
    }

    #[test]
    fn who_gets_no_socket_asks_by_what_is_open() {
        // EMFILE, ENFILE, ENOMEM, ENOBUFS.
        for code in [24, 23, 12, 105] {
            let own = Err(io::Error::from_raw_os_error(code));
            assert!(or_shared(own, || Ok(true)).unwrap(), "{code}");
        }
        // EPERM: the other would be told the same.
        let own = Err(io::Error::from_raw_os_error(1));
        let told = or_shared(own, || Ok(true)).unwrap_err();
        assert_eq!(told.raw_os_error(), Some(1));
        assert!(!or_shared(Ok(false), || Ok(true)).unwrap());
    }

    #[test]
    fn the_kernel_says_what_is_here() {
        // More than once by one socket.
        for _ in 0..3 {
            assert!(ask(Ipv4Addr::LOCALHOST.into()).unwrap());
            assert!(ask(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()).unwrap());
            // All of its network is.
            assert!(ask(Ipv4Addr::new(127, 9, 9, 9).into()).unwrap());
            // Kept for documentation (RFC 5737): nobody's.
            assert!(!ask(Ipv4Addr::new(192, 0, 2, 1).into()).unwrap());
        }
    }
}
