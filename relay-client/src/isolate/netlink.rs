//! Just enough netlink to set up a network namespace that has loopback and nothing else: messages written by hand, so
//! that no program has to be run where programs have no capabilities.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Loopback is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

/// NETLINK_ROUTE is 0, the protocol nobody names.
const ROUTE: Option<Protocol> = None;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const REQUEST_ACKNOWLEDGED: u16 = 0x5;
/// `NLM_F_CREATE | NLM_F_EXCL`.
const CREATE: u16 = 0x600;
const IFF_UP: u32 = 1;
const RTA_OIF: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Nobody else could have it.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const HEADER: usize = 16;
/// Of an attribute's kind; the rest are flags.
const KIND: u16 = 0x3fff;
/// The kernel makes no longer datagrams than whoever reads them has room for.
const LONGEST: usize = 16 * 1024;

/// A message under construction.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// `struct nlmsghdr`; the length is filled in at the end.
    pub(super) fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut message = Self::default();
        message.put(&0u32.to_ne_bytes());
        message.put(&kind.to_ne_bytes());
        message.put(&flags.to_ne_bytes());
        message.put(&sequence.to_ne_bytes());
        message.put(&0u32.to_ne_bytes());
        message
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// `struct nlattr` and its value, padded.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.put(&length.to_ne_bytes()).put(&kind.to_ne_bytes());
        self.put(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// The bytes of the attributes alone, for nesting.
    pub(super) fn into_value(self) -> Vec<u8> {
        self.0
    }

    /// The whole message.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.0
    }
}

/// Send messages as one datagram and wait until `acknowledgements` of them are acknowledged.
pub(super) fn exchange(
    protocol: Option<Protocol>,
    messages: &[u8],
    acknowledgements: usize,
) -> io::Result<()> {
    let socket = asked(protocol, messages)?;
    let mut buffer = vec![0; LONGEST];
    let mut left = acknowledgements;
    while left > 0 {
        for error in errors(heard(&socket, &mut buffer)?) {
            if error != 0 {
                return Err(io::Error::from_raw_os_error(-error));
            }
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

/// Ask for a list, and wait for all of it: for each message of the answer what stands after its header.
pub(super) fn dump(protocol: Option<Protocol>, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let socket = asked(protocol, request)?;
    let mut buffer = vec![0; LONGEST];
    let mut found = Vec::new();
    loop {
        let heard = heard(&socket, &mut buffer)?;
        if let Some(error) = errors(heard).into_iter().find(|error| *error != 0) {
            return Err(io::Error::from_raw_os_error(-error));
        }
        for (kind, body) in messages(heard) {
            if kind == NLMSG_DONE {
                return Ok(found);
            }
            found.push(body.to_vec());
        }
    }
}

fn asked(protocol: Option<Protocol>, messages: &[u8]) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    rustix::net::send(&socket, messages, SendFlags::empty())?;
    Ok(socket)
}

fn heard<'b>(socket: &OwnedFd, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let (length, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// The codes of the NLMSG_ERROR messages in a datagram; 0 is an acknowledgement.
fn errors(datagram: &[u8]) -> Vec<i32> {
    let errors = messages(datagram).into_iter();
    let errors = errors.filter(|(kind, _)| *kind == NLMSG_ERROR);
    errors
        .filter_map(|(_, body)| word(body).map(u32::cast_signed))
        .collect()
}

/// The messages of a datagram: their kinds, and what stands after their headers.
fn messages(mut datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(length) = word(datagram) {
        let length = length as usize;
        let kind = datagram.get(4..6).and_then(|kind| kind.try_into().ok());
        let body = datagram.get(HEADER..length.min(datagram.len()));
        if let (Some(kind), Some(body)) = (kind.map(u16::from_ne_bytes), body) {
            found.push((kind, body));
        }
        match datagram.get(length.next_multiple_of(4).max(HEADER)..) {
            Some(rest) => datagram = rest,
            None => break,
        }
    }
    found
}

fn word(bytes: &[u8]) -> Option<u32> {
    let word = bytes.get(..4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(word))
}

/// Attributes one after another: their kinds, without flags, and their values.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let [first, second, third, fourth, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([first, second]));
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((u16::from_ne_bytes([third, fourth]) & KIND, value));
        match bytes.get(length.next_multiple_of(4)..) {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    found
}

/// Bring loopback up; it has 127.0.0.1 and ::1 then.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, REQUEST_ACKNOWLEDGED, 1);
    // struct ifinfomsg: family and type unspecified.
    message.put(&[0; 4]).put(&LOOPBACK.to_ne_bytes());
    message
        .put(&IFF_UP.to_ne_bytes())
        .put(&IFF_UP.to_ne_bytes());
    exchange(ROUTE, &message.finish(), 1)
}

/// The machine's own addresses, beside those of loopback, which resolvers do not count: where a family has no other they
/// say that it has none, and leave its addresses out (`AI_ADDRCONFIG`). None of them stands for a name ([`pool`](super::pool)).
pub(super) const OWN: [IpAddr; 2] = [IpAddr::V4(OWN_V4), IpAddr::V6(OWN_V6)];
pub(super) const OWN_V4: Ipv4Addr = Ipv4Addr::new(198, 19, 255, 254);
pub(super) const OWN_V6: Ipv6Addr = Ipv6Addr::new(
    0xfd73, 0x6c75, 0x6963, 0x6567, 0xffff, 0xffff, 0xffff, 0xfffe,
);

/// Give loopback one of them.
pub(super) fn has(address: IpAddr) -> io::Result<()> {
    let (family, bits, bytes) = match address {
        IpAddr::V4(v4) => (AF_INET, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, 128, v6.octets().to_vec()),
    };
    let mut message = Message::new(RTM_NEWADDR, REQUEST_ACKNOWLEDGED | CREATE, 1);
    // struct ifaddrmsg: of anybody's scope.
    message.put(&[family, bits, IFA_F_NODAD, 0]);
    message.put(&LOOPBACK.to_ne_bytes());
    message.attribute(IFA_LOCAL, &bytes);
    message.attribute(IFA_ADDRESS, &bytes);
    exchange(ROUTE, &message.finish(), 1)
}

/// Make every address of the family one of this host's own: what is sent anywhere arrives here, and where nothing
/// listens it is refused at once.
pub(super) fn everything_is_here(ipv6: bool) -> io::Result<()> {
    let family = if ipv6 { AF_INET6 } else { AF_INET };
    let mut message = Message::new(RTM_NEWROUTE, REQUEST_ACKNOWLEDGED | CREATE, 1);
    // struct rtmsg: any destination, any source.
    message.put(&[
        family,
        0,
        0,
        0,
        RT_TABLE_LOCAL,
        RTPROT_STATIC,
        RT_SCOPE_HOST,
        RTN_LOCAL,
    ]);
    message.put(&0u32.to_ne_bytes());
    message.attribute(RTA_OIF, &LOOPBACK.to_ne_bytes());
    exchange(ROUTE, &message.finish(), 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::{Message, errors};

    #[test]
    fn attributes_are_padded_and_counted() {
        let mut message = Message::new(24, 5, 7);
        message.attribute(4, b"abc\0x");
        let bytes = message.finish();
        assert_eq!(bytes.len(), 16 + 12);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 9u16.to_ne_bytes());
    }

    #[test]
    fn acknowledgements_and_errors_are_told_apart() {
        let answer = |code: i32| {
            let mut message = Message::new(2, 0, 1);
            message.put(&code.to_ne_bytes()).put(&[0; 16]);
            message.finish()
        };
        let mut both = answer(0);
        both.extend(answer(-1));
        assert_eq!(errors(&both), [0, -1]);
        for cut in 0..both.len() {
            assert!(errors(&both[..cut]).len() <= 2);
        }
        assert!(errors(&Message::new(3, 0, 1).finish()).is_empty());
    }
}
