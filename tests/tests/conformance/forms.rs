//! The ways to ask for a target, and the column each stands for.

use data_encoding::BASE64;
use e2e::{Pipe, Wire, capsules, socks};

use crate::streams;
use crate::table::Front;

/// One way to ask for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The first request of a connection, Host as the target.
    Connect,
    /// The same as HTTP/1.0 without Host.
    Connect10,
    /// After another request on the same connection.
    ConnectKept,
    /// Host as the target.
    Absolute,
    /// As HTTP/1.0 without Host.
    Absolute10,
    /// SOCKS5, the whole conversation in one segment.
    Socks,
    /// HTTP/1 that was meant for the target's port at some address, as a trusted balancer says, with the session's credential.
    Captured,
    /// The same to a listener that knows the port, and only the name from its clients.
    Named,
    /// `connect-tcp` as an HTTP/1.1 upgrade.
    Upgrade,
    /// CONNECT on a stream.
    Http2,
    /// A request with `:scheme` http and another authority.
    Http2Forward,
    /// `connect-tcp` as an extended CONNECT.
    Http2Template,
    /// CONNECT on a stream.
    Http3,
    /// A request with `:scheme` http and another authority.
    Http3Forward,
    /// `connect-tcp` as an extended CONNECT.
    Http3Template,
}

use Form::*;

/// All of them.
pub(crate) const FORMS: [Form; 15] = [
    Connect,
    Connect10,
    ConnectKept,
    Absolute,
    Absolute10,
    Socks,
    Captured,
    Named,
    Upgrade,
    Http2,
    Http2Forward,
    Http2Template,
    Http3,
    Http3Forward,
    Http3Template,
];

/// Those that have an authority-form: CONNECT and its like.
pub(crate) const CONNECTS: [Form; 5] = [Connect, Connect10, ConnectKept, Http2, Http3];
/// `connect-tcp`, which has a template instead.
pub(crate) const TEMPLATES: [Form; 3] = [Upgrade, Http2Template, Http3Template];
/// Those whose every request is for a URL.
pub(crate) const FORWARDS: [Form; 4] = [Absolute, Absolute10, Http2Forward, Http3Forward];

impl Form {
    /// The column.
    pub(crate) fn front(self) -> Front {
        match self {
            Connect | Connect10 => Front::Connect,
            ConnectKept => Front::ConnectKept,
            Absolute | Absolute10 => Front::Absolute,
            Socks => Front::Socks,
            Captured => Front::Transparent,
            Named => Front::Sni,
            Upgrade | Http2Template | Http3Template => Front::ConnectTcp,
            Http2 | Http2Forward => Front::Http2,
            Http3 | Http3Forward => Front::Http3,
        }
    }

    /// Can it say this at all? SOCKS has two bytes for a port, and 255 for a name. A captured connection has a port before
    /// it has a Host, whose value blanks may surround. A template has a port apart, and no brackets. A client of HTTP/2 says
    /// what its library takes.
    pub(crate) fn says(self, authority: &[u8]) -> bool {
        let trimmed = !authority.starts_with(b" ") && !authority.starts_with(b"\t");
        match self {
            Socks => socks::request(authority).is_some(),
            Captured | Named => trimmed && port_of(authority).is_some(),
            Upgrade | Http3Template => template(authority).is_some(),
            Http2 | Http2Forward | Http2Template => self
                .fields(authority, "")
                .is_some_and(|fields| streams::request(&fields).is_some()),
            _ => true,
        }
    }

    /// Does a tunnel follow?
    pub(crate) fn tunnels(self) -> bool {
        !FORWARDS.contains(&self) && !self.is_captured()
    }

    /// Is the target nobody's to ask for, but what the first bytes say?
    pub(crate) fn is_captured(self) -> bool {
        matches!(self, Captured | Named)
    }

    /// Is it a stream of a connection?
    pub(crate) fn is_stream(self) -> bool {
        self.is_http3() || matches!(self, Http2 | Http2Forward | Http2Template)
    }

    /// Is it one of QUIC's?
    pub(crate) fn is_http3(self) -> bool {
        matches!(self, Http3 | Http3Forward | Http3Template)
    }

    /// May the tunnel's first bytes come behind the request at once? An upgrade has to be answered first.
    pub(crate) fn takes_early(self) -> bool {
        self != Upgrade
    }

    /// The request's head, where it is bytes of a connection.
    pub(crate) fn head(self, authority: &[u8], credential: &str) -> Vec<u8> {
        let (line, rest): (&[u8], &[u8]) = match self {
            Socks => return conversation(authority, credential),
            Captured | Named => {
                return [
                    &preface(authority, credential)[..],
                    b"GET /probe HTTP/1.1\r\nHost: ",
                    authority,
                    b"\r\n\r\n",
                ]
                .concat();
            }
            Upgrade => return upgrade(authority, credential),
            Connect | Connect10 | ConnectKept => (b"CONNECT ", b""),
            _ => (b"GET http://", b"/probe"),
        };
        let fields = match self {
            Connect10 | Absolute10 => b" HTTP/1.0\r\n".to_vec(),
            _ => [b" HTTP/1.1\r\nHost: ", authority, b"\r\n"].concat(),
        };
        let credential = credential.as_bytes();
        [line, authority, rest, &fields, credential, b"\r\n"].concat()
    }

    /// The request's fields, where it is a stream's; bytes are characters up to U+00FF.
    pub(crate) fn fields(
        self,
        authority: &[u8],
        credential: &str,
    ) -> Option<Vec<(String, String)>> {
        let own = |text: &str| text.to_owned();
        let authority_text: String = authority.iter().copied().map(char::from).collect();
        let mut fields = match self {
            Http2Forward | Http3Forward => vec![
                (own(":method"), own("GET")),
                (own(":scheme"), own("http")),
                (own(":authority"), authority_text),
                (own(":path"), own("/probe")),
            ],
            Http2Template | Http3Template => vec![
                (own(":method"), own("CONNECT")),
                (own(":protocol"), own("connect-tcp")),
                (own(":scheme"), own("https")),
                (own(":authority"), own("gateway.test")),
                (own(":path"), template(authority)?),
                (own("capsule-protocol"), own("?1")),
            ],
            _ => vec![
                (own(":method"), own("CONNECT")),
                (own(":authority"), authority_text),
            ],
        };
        let credential = if TEMPLATES.contains(&self) {
            origins(credential)
        } else {
            own(credential)
        };
        let lines = credential.split_terminator("\r\n");
        fields.extend(lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        }));
        Some(fields)
    }

    /// Read the answer of a tunnel that is opened, byte by byte; the tunnel.
    pub(crate) async fn opened(self, mut wire: Wire, what: &str) -> Wire<Pipe> {
        if self == Socks {
            let opened = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(wire.take(opened.len()).await, opened, "{what}");
        } else {
            let head = wire.head().await;
            let switched = if self == Upgrade { 101 } else { 200 };
            assert_eq!(head.status, switched, "{what}: {head:?}");
        }
        if self == Upgrade {
            capsules::inside(wire)
        } else {
            wire.map(Pipe::Tcp)
        }
    }
}

/// The port behind the last colon, where it is one.
pub(crate) fn port_of(authority: &[u8]) -> Option<u16> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    let port = std::str::from_utf8(&authority[colon + 1..]).ok()?;
    port.parse().ok()
}

/// User and password of a `Proxy-Authorization` line.
fn login_of(credential: &str) -> (String, String) {
    let encoded = credential.trim_end().rsplit(' ').next().unwrap();
    let userinfo = BASE64.decode(encoded.as_bytes()).unwrap();
    let userinfo = String::from_utf8(userinfo).unwrap();
    let (name, password) = userinfo.split_once(':').unwrap();
    (name.to_owned(), password.to_owned())
}

/// A PROXY header that names the session and what was dialled: the authority's own address, or some address that has its port.
pub(crate) fn preface(authority: &[u8], credential: &str) -> Vec<u8> {
    let (_, handle) = login_of(credential);
    let port = port_of(authority).expect("something that has a port");
    let dialled = match std::str::from_utf8(authority).unwrap_or_default().parse() {
        Ok(std::net::SocketAddr::V4(literal)) => literal.ip().octets(),
        _ => [203, 0, 113, 1],
    };
    let length = u16::try_from(15 + handle.len()).unwrap();
    let value = u16::try_from(handle.len()).unwrap();
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..],
        &length.to_be_bytes(),
        &[127, 0, 0, 1],
        &dialled,
        &[0x30, 0x39],
        &port.to_be_bytes(),
        &[0xe1],
        &value.to_be_bytes(),
        handle.as_bytes(),
    ]
    .concat()
}

/// Greeting, login and request of a SOCKS5 client that waits for no answer.
fn conversation(authority: &[u8], credential: &str) -> Vec<u8> {
    let (name, password) = login_of(credential);
    let request = socks::request(authority).expect("something SOCKS can say");
    let login = socks::login(&name, &password);
    [&socks::GREETING[..], &login, &request].concat()
}

/// The default template, its variables encoded to the last byte.
fn template(authority: &[u8]) -> Option<String> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    // Without brackets it is not this authority but one that is in order.
    let text = std::str::from_utf8(host).unwrap_or_default();
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return None;
    }
    let inner = host.strip_prefix(b"[").and_then(|h| h.strip_suffix(b"]"));
    let host = inner.filter(|inner| inner.contains(&b':')).unwrap_or(host);
    let encoded = |part: &[u8]| -> String {
        let sound = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let one = |byte: &u8| match byte {
            byte if sound(byte) => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        part.iter().map(one).collect()
    };
    let (host, port) = (encoded(host), encoded(port));
    Some(format!("/.well-known/masque/tcp/{host}/{port}/"))
}

fn upgrade(authority: &[u8], credential: &str) -> Vec<u8> {
    let path = template(authority).expect("something a template can say");
    let fields = "Host: gateway.test\r\nConnection: Upgrade\r\nUpgrade: connect-tcp\r\nCapsule-Protocol: ?1\r\n";
    let credential = origins(credential);
    format!("GET {path} HTTP/1.1\r\n{fields}{credential}\r\n").into_bytes()
}

/// The lines of a proxy's credential as an origin's, and the other way round.
fn origins(credential: &str) -> String {
    let lines = credential.split_terminator("\r\n").map(|line| {
        if line.starts_with("Authorization:") {
            return format!("Proxy-{line}\r\n");
        }
        let Some(value) = line.strip_prefix("Proxy-Authorization:") else {
            return format!("{line}\r\n");
        };
        let plain = value.trim().strip_prefix("Basic ").and_then(|encoded| {
            let userinfo = BASE64.decode(encoded.as_bytes()).ok()?;
            let userinfo = String::from_utf8(userinfo).ok()?;
            Some(userinfo.split_once(':')?.1.to_owned())
        });
        match plain {
            Some(handle) => format!("Authorization: Bearer {handle}\r\n"),
            None => format!("Authorization:{value}\r\n"),
        }
    });
    lines.collect()
}
