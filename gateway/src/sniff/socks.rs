//! What a SOCKS5 client says (RFC 1928), and its user name and password (RFC 1929).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{Bytes, Message, Step, message};

/// RFC 1928 §3.
pub const VERSION: u8 = 5;
/// The only method taken: user name and password (RFC 1928 §3, RFC 1929).
pub const METHOD_PASSWORD: u8 = 2;
/// Version of the password sub-negotiation (RFC 1929 §2).
pub const PASSWORD_VERSION: u8 = 1;

/// What is asked for (RFC 1928 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// CONNECT.
    Connect,
    /// BIND, UDP ASSOCIATE and what nobody knows.
    Other(u8),
}

/// Where to (RFC 1928 §5), as it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination<'a> {
    /// ATYP 1 or 4.
    Ip(IpAddr),
    /// ATYP 3: any bytes.
    Name(&'a [u8]),
    /// Another ATYP: where the address ends, and with it the port, nobody can know.
    Unknown(u8),
}

/// A user name and a password (RFC 1929 §2), either of which may be empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Login<'a> {
    /// UNAME.
    pub name: &'a [u8],
    /// PASSWD.
    pub password: &'a [u8],
}

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// What.
    pub command: Command,
    /// Where to.
    pub destination: Destination<'a>,
    /// And which port; 0 is left to who judges.
    pub port: u16,
}

/// The first byte decides, even alone: SOCKS4 and HTTP never become SOCKS5.
fn version(bytes: &mut Bytes<'_>, wanted: u8) -> Step<()> {
    match bytes.byte() {
        None => Ok(None),
        Some(version) if version == wanted => Ok(Some(())),
        Some(_) => Err(()),
    }
}

/// The greeting: does it offer a user name and password?
pub fn greeting(received: &[u8]) -> Message<bool> {
    message(received, |bytes| {
        let Some(()) = version(bytes, VERSION)? else {
            return Ok(None);
        };
        let methods = bytes.counted();
        Ok(methods.map(|methods| methods.contains(&METHOD_PASSWORD)))
    })
}

/// User name and password.
pub fn login(received: &[u8]) -> Message<Login<'_>> {
    message(received, |bytes| {
        let Some(()) = version(bytes, PASSWORD_VERSION)? else {
            return Ok(None);
        };
        let (Some(name), Some(password)) = (bytes.counted(), bytes.counted()) else {
            return Ok(None);
        };
        Ok(Some(Login { name, password }))
    })
}

/// The request.
pub fn request(received: &[u8]) -> Message<Request<'_>> {
    message(received, |bytes| {
        let Some(()) = version(bytes, VERSION)? else {
            return Ok(None);
        };
        let Some([command, reserved, kind]) = bytes.array() else {
            return Ok(None);
        };
        if reserved != 0 {
            return Err(());
        }
        let command = match command {
            1 => Command::Connect,
            other => Command::Other(other),
        };
        let destination = match kind {
            1 => bytes
                .array()
                .map(|ip: [u8; 4]| Destination::Ip(Ipv4Addr::from(ip).into())),
            3 => bytes.counted().map(Destination::Name),
            4 => bytes
                .array()
                .map(|ip: [u8; 16]| Destination::Ip(Ipv6Addr::from(ip).into())),
            other => {
                return Ok(Some(Request {
                    command,
                    destination: Destination::Unknown(other),
                    port: 0,
                }));
            }
        };
        let (Some(destination), Some(port)) = (destination, bytes.array()) else {
            return Ok(None);
        };
        Ok(Some(Request {
            command,
            destination,
            port: u16::from_be_bytes(port),
        }))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greetings() {
        assert_eq!(greeting(&[5, 2, 0, 2]), Message::Whole(true, 4));
        assert_eq!(greeting(&[5, 1, 0, 9]), Message::Whole(false, 3));
        assert_eq!(greeting(&[5, 0]), Message::Whole(false, 2));
        assert_eq!(greeting(b"GET / HTTP/1.1\r\n"), Message::Malformed);
        assert_eq!(greeting(&[4, 1, 0, 80]), Message::Malformed);
    }

    #[test]
    fn logins() {
        let whole = |name: &'static [u8], password: &'static [u8], taken| {
            Message::Whole(Login { name, password }, taken)
        };
        assert_eq!(login(b"\x01\x01u\x03abc"), whole(b"u", b"abc", 7));
        assert_eq!(login(&[1, 0, 0]), whole(b"", b"", 3));
        assert_eq!(login(b"\x01\x02us"), Message::NeedMore);
        assert_eq!(login(&[5, 0, 0]), Message::Malformed);
    }

    #[test]
    fn requests() {
        let name = request(b"\x05\x01\x00\x03\x01a\x01\xbb");
        let asked = |destination, command| Request {
            command,
            destination,
            port: 443,
        };
        assert_eq!(
            name,
            Message::Whole(asked(Destination::Name(b"a"), Command::Connect), 8)
        );
        let v4 = request(&[5, 2, 0, 1, 127, 0, 0, 1, 1, 0xbb]);
        let ip = Destination::Ip("127.0.0.1".parse().unwrap());
        assert_eq!(v4, Message::Whole(asked(ip, Command::Other(2)), 10));
        let mut v6 = vec![5, 3, 0, 4];
        v6.extend([0; 15]);
        v6.extend([1, 1, 0xbb]);
        let ip = Destination::Ip("::1".parse().unwrap());
        assert_eq!(
            request(&v6),
            Message::Whole(asked(ip, Command::Other(3)), 22)
        );
        let unknown = Request {
            command: Command::Connect,
            destination: Destination::Unknown(2),
            port: 0,
        };
        assert_eq!(request(&[5, 1, 0, 2]), Message::Whole(unknown, 4));
        assert_eq!(request(&[5, 1, 9, 1]), Message::Malformed);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_what_was_read(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64) {
            let cut = cut.min(bytes.len());
            match request(&bytes[..cut]) {
                Message::NeedMore => {}
                earlier => prop_assert_eq!(earlier, request(&bytes)),
            }
            match greeting(&bytes[..cut]) {
                Message::NeedMore => {}
                earlier => prop_assert_eq!(earlier, greeting(&bytes)),
            }
            match login(&bytes[..cut]) {
                Message::NeedMore => {}
                earlier => prop_assert_eq!(earlier, login(&bytes)),
            }
        }
    }
}
