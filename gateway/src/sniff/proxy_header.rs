//! The PROXY protocol's header, versions 1 and 2 (haproxy's `doc/proxy-protocol.txt`, §2): who a connection is really from,
//! said by a balancer before anything else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{Bytes, Message, Step, message};

/// §2.2: the first twelve bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// §2.1: the first six of version 1.
const WORD: &[u8; 6] = b"PROXY ";
/// §2.1: version 1 is at most so long, its line end included.
const LONGEST_LINE: usize = 107;
/// What follows version 2's sixteen bytes. Certificates may stand there; whole chains need not.
const LONGEST_BODY: usize = 4096;
/// PP2_TYPE_CRC32C (§2.2.3).
const CHECKSUM: u8 = 0x03;
/// The types applications may use as they like begin at 0xe0 (PP2_TYPE_MIN_CUSTOM), which is ours towards services: this one
/// carries a credential of the session the connection is for.
const CREDENTIAL: u8 = 0xe1;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProxyHeader {
    /// From where, and where to; `None` where the sender speaks for itself (LOCAL) or does not know (UNKNOWN, UNSPEC).
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// The credential of the session, where the sender was told to name one.
    pub credential: Option<Vec<u8>>,
}

/// Read a header from the connection's first byte.
pub fn read(received: &[u8]) -> Message<ProxyHeader> {
    let is = |start: &[u8]| received.starts_with(start) || start.starts_with(received);
    if is(SIGNATURE) {
        message(received, version_2)
    } else if is(WORD) {
        version_1(received)
    } else {
        Message::Malformed
    }
}

/// So many more bytes can be read without reading beyond the header, which is not whole yet.
pub fn wanted(received: &[u8]) -> usize {
    let fixed = SIGNATURE.len() + 4;
    if received.len() < SIGNATURE.len() {
        // The shortest header there is, `PROXY UNKNOWN\r\n`, is longer.
        SIGNATURE.len() - received.len()
    } else if !received.starts_with(SIGNATURE) {
        1
    } else if received.len() < fixed {
        fixed - received.len()
    } else {
        let length = received.get(14..fixed).and_then(|two| two.try_into().ok());
        let length = length.map_or(0, u16::from_be_bytes);
        (fixed + usize::from(length))
            .saturating_sub(received.len())
            .max(1)
    }
}

fn version_1(received: &[u8]) -> Message<ProxyHeader> {
    let Some(end) = received.windows(2).position(|two| two == b"\r\n") else {
        return if received.len() < LONGEST_LINE {
            Message::NeedMore
        } else {
            Message::Malformed
        };
    };
    let line = received.get(..end).unwrap_or_default();
    if end + 2 > LONGEST_LINE {
        return Message::Malformed;
    }
    match str::from_utf8(line).ok().and_then(line_1) {
        Some(header) => Message::Whole(header, end + 2),
        None => Message::Malformed,
    }
}

fn line_1(line: &str) -> Option<ProxyHeader> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(ProxyHeader::default());
    }
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (from, to) = (ip()?, ip()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let number: u16 = word.parse().ok()?;
        (number.to_string() == word).then_some(number)
    };
    let (from_port, to_port) = (port()?, port()?);
    words.next().is_none().then(|| ProxyHeader {
        ends: Some((
            SocketAddr::new(from.to_canonical(), from_port),
            SocketAddr::new(to.to_canonical(), to_port),
        )),
        credential: None,
    })
}

fn version_2(bytes: &mut Bytes<'_>) -> Step<ProxyHeader> {
    let received = bytes.rest();
    let Some(_) = bytes.take(SIGNATURE.len()) else {
        return Ok(None);
    };
    let Some([command, family, high, low]) = bytes.array() else {
        return Ok(None);
    };
    if usize::from(u16::from_be_bytes([high, low])) > LONGEST_BODY {
        return Err(());
    }
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(()),
    };
    let Some(body) = bytes.take(u16::from_be_bytes([high, low]).into()) else {
        return Ok(None);
    };
    if local {
        // §2.2: the sender's own connection; what else it says is to be ignored.
        return Ok(Some(ProxyHeader::default()));
    }
    let header = received.get(..received.len() - bytes.rest().len());
    let header = header.unwrap_or_default();
    match message(body, |body| version_2_body(family, header, body)) {
        Message::Whole(header, _) => Ok(Some(header)),
        // The length says it is all there.
        Message::NeedMore | Message::Malformed => Err(()),
    }
}

/// `header`: all of it, which ends as its body does.
fn version_2_body(family: u8, header: &[u8], body: &mut Bytes<'_>) -> Step<ProxyHeader> {
    let mut ends = || -> Option<(SocketAddr, SocketAddr)> {
        let (from, to): (IpAddr, IpAddr) = match family {
            0x11 => (
                Ipv4Addr::from(body.array::<4>()?).into(),
                Ipv4Addr::from(body.array::<4>()?).into(),
            ),
            _ => (
                Ipv6Addr::from(body.array::<16>()?).into(),
                Ipv6Addr::from(body.array::<16>()?).into(),
            ),
        };
        let ports = [body.array()?, body.array()?].map(u16::from_be_bytes);
        let [from_port, to_port] = ports;
        Some((
            SocketAddr::new(from.to_canonical(), from_port),
            SocketAddr::new(to.to_canonical(), to_port),
        ))
    };
    let ends = match family {
        0x00 => None,
        0x11 | 0x21 => Some(ends().ok_or(())?),
        // Datagrams and unix sockets are nothing that comes to a TCP listener.
        _ => return Err(()),
    };
    let (mut credential, mut is_checked) = (None, false);
    while !body.rest().is_empty() {
        let (kind, value) = (body.byte(), body.counted_wide());
        let (Some(kind), Some(value)) = (kind, value) else {
            return Err(());
        };
        if kind == CHECKSUM {
            let told: [u8; 4] = value.try_into().map_err(|_| ())?;
            let after = header.len() - body.rest().len();
            if is_checked || u32::from_be_bytes(told) != checksum(header, after - told.len()) {
                return Err(());
            }
            is_checked = true;
        }
        if kind == CREDENTIAL && credential.replace(value.to_vec()).is_some() {
            return Err(());
        }
    }
    Ok(Some(ProxyHeader { ends, credential }))
}

/// CRC-32C of a header (§2.2.3; RFC 9260, appendix A), with the four bytes from `at` on as zero, where it stands itself.
fn checksum(header: &[u8], at: usize) -> u32 {
    let own = at..at + 4;
    let bytes = header.iter().enumerate();
    let bytes = bytes.map(|(place, byte)| if own.contains(&place) { 0 } else { *byte });
    !bytes.fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            let carried = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            (sum >> 1) ^ carried
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> ProxyHeader {
        let (header, taken) = read(bytes).whole().unwrap();
        assert_eq!(taken, bytes.len());
        header
    }

    fn framed(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 1, 0xbb];

    #[test]
    fn version_1_lines() {
        let header = whole(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n");
        assert_eq!(header.ends, ends("192.0.2.7:12345", "10.0.0.1:443"));
        let header = whole(b"PROXY TCP6 2001:db8::7 ::ffff:10.0.0.1 1 65535\r\n");
        assert_eq!(header.ends, ends("[2001:db8::7]:1", "10.0.0.1:65535"));
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), ProxyHeader::default());
        assert_eq!(
            whole(b"PROXY UNKNOWN ff::1 x y\r\n"),
            ProxyHeader::default()
        );
        let malformed: [&[u8]; 12] = [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443 \r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 012345 443\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.07 10.0.0.1 1 443\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 1 443\r\n",
            b"PROXY TCP6 192.0.2.7 10.0.0.1 1 443\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 1 443\r\n",
            b"PROXY  TCP4 192.0.2.7 10.0.0.1 1 443\r\n",
            b"PROXY \xff\r\n",
            b"proxy TCP4",
            b"GET / HTTP/1.1\r\n",
        ];
        for line in malformed {
            assert_eq!(read(line), Message::Malformed, "{}", line.escape_ascii());
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 120]].concat();
        assert_eq!(read(&endless[..106]), Message::NeedMore);
        assert_eq!(read(&endless), Message::Malformed);
        let long = [&endless[..106], b"\r\n"].concat();
        assert_eq!(read(&long), Message::Malformed);
    }

    #[test]
    fn version_2_frames() {
        let header = whole(&framed(0x21, 0x11, &V4));
        assert_eq!(header.ends, ends("192.0.2.7:12345", "10.0.0.1:443"));
        assert_eq!(whole(&framed(0x20, 0x11, &V4)), ProxyHeader::default());
        assert_eq!(whole(&framed(0x21, 0, &[])), ProxyHeader::default());
        let with = |tlvs: &[u8]| framed(0x21, 0x11, &[&V4[..], tlvs].concat());
        let header = whole(&with(&[4, 0, 1, 0, 0xe1, 0, 2, b'a', b'b', 0x20, 0, 0]));
        assert_eq!(header.credential.as_deref(), Some(&b"ab"[..]));
        let malformed = [
            framed(0x22, 0x11, &V4),
            framed(0x11, 0x11, &V4),
            framed(0x21, 0x12, &V4),
            framed(0x21, 0x31, &[0; 216]),
            framed(0x21, 0x11, &V4[..11]),
            framed(0x21, 0x21, &V4),
            with(&[4, 0, 2, 0]),
            with(&[4, 0]),
            with(&[0xe1, 0, 1, b'a', 0xe1, 0, 1, b'b']),
            framed(0x21, 0, &vec![0; LONGEST_BODY + 1]),
        ];
        for frame in malformed {
            assert_eq!(read(&frame), Message::Malformed, "{}", frame.escape_ascii());
        }
    }

    /// The specification: who knows of it has to check it.
    #[test]
    fn a_checksum_that_is_there_is_checked() {
        // HAProxy's own, with `proxy-v2-options crc32c`.
        let haproxy = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\x7f\0\0\x01\x7f\0\0\x01\xbd\x66\x1b\x59\x03\0\x04\x0e\x87\xc0\x6b";
        let header = whole(haproxy);
        assert_eq!(header.ends, ends("127.0.0.1:48486", "127.0.0.1:7001"));
        // But for its type, without which it is another field.
        for place in (16..28).chain(29..haproxy.len()) {
            let mut other = *haproxy;
            other[place] ^= 1;
            assert_eq!(read(&other), Message::Malformed, "{place}");
        }
        // Wherever it stands; what is behind the header is not of it.
        let with = |tlvs: &[u8]| framed(0x21, 0x11, &[&V4[..], tlvs].concat());
        let sum = [3, 0, 4, 0x00, 0x39, 0x5f, 0x4c];
        let between = with(&[&[4, 0, 1, 0], &sum[..], &[0xe1, 0, 2, b'a', b'b']].concat());
        let (header, taken) = read(&[&between[..], b"GET"].concat()).whole().unwrap();
        assert_eq!(header.credential.as_deref(), Some(&b"ab"[..]));
        assert_eq!(taken, between.len());
        for malformed in [with(&[3, 0, 0]), with(&[3, 0, 5, 0, 0, 0, 0, 0])] {
            assert_eq!(read(&malformed), Message::Malformed);
        }
        // What the sender says of itself is not looked at.
        assert_eq!(
            whole(&framed(0x20, 0x11, &[&V4[..], &sum].concat())),
            ProxyHeader::default()
        );
    }

    /// A reader that asks for as much as it may have reads the header, and nothing behind it.
    fn read_greedily(bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            match read(&bytes[..at]) {
                Message::Whole(_, taken) => {
                    assert_eq!(taken, at, "not a byte beyond");
                    return Some(at);
                }
                Message::Malformed => return None,
                Message::NeedMore => {
                    let more = wanted(&bytes[..at]);
                    assert!(more > 0);
                    if at + more > bytes.len() {
                        return None;
                    }
                    at += more;
                }
            }
        }
    }

    #[test]
    fn nothing_behind_a_header_is_read() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\r\n".to_vec(),
            framed(0x21, 0x11, &V4),
            framed(0x20, 0, &[]),
        ] {
            let followed = [&header[..], b"\x16\x03\x01PROXY UNKNOWN\r\n"].concat();
            assert_eq!(read_greedily(&followed), Some(header.len()));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_was_read(
            start in 0_usize..3,
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            cut in 0_usize..80,
        ) {
            let start = [&b""[..], b"PROXY TCP4 ", &SIGNATURE[..]][start];
            let bytes = [start, &tail].concat();
            let cut = cut.min(bytes.len());
            match read(&bytes[..cut]) {
                Message::NeedMore => {}
                earlier => prop_assert_eq!(earlier, read(&bytes)),
            }
            read_greedily(&bytes);
        }
    }
}
