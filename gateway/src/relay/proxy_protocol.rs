//! The PROXY protocol's binary header, version 2 (haproxy's `doc/proxy-protocol.txt`, §2.2): who speaks, before anything
//! else on a connection to a service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::telemetry::Speaker;

/// The header's first twelve bytes.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, LOCAL: on the sender's own behalf, such as a health check.
const LOCAL: u8 = 0x20;
/// Version 2, PROXY: on behalf of another.
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// PP2_TYPE_UNIQUE_ID: at most 128 bytes.
const UNIQUE_ID: u8 = 0x05;
/// The first of the types applications may use as they like (PP2_TYPE_MIN_CUSTOM): ours names the session.
const SESSION: u8 = 0xe0;

/// The header of a connection opened for `speaker`; without one, for ourselves. `service` is where the connection goes,
/// and said as the destination where it is of the source's family.
pub(super) fn header(speaker: Option<&Speaker>, service: Option<SocketAddr>) -> Vec<u8> {
    let Some(speaker) = speaker else {
        return framed(LOCAL, UNSPEC, &[]);
    };
    let mut body = Vec::with_capacity(256);
    let family = match speaker.source {
        Some(source) => addresses(source, service, &mut body),
        None => UNSPEC,
    };
    tlv(UNIQUE_ID, speaker.id.as_bytes(), &mut body);
    if let Some(session) = &speaker.session {
        let name = format!("{}/{}/{}", session.namespace, session.provider, session.id);
        tlv(SESSION, name.as_bytes(), &mut body);
    }
    framed(PROXY, family, &body)
}

fn addresses(source: SocketAddr, service: Option<SocketAddr>, body: &mut Vec<u8>) -> u8 {
    let from = source.ip().to_canonical();
    let to = service.map(|service| (service.ip().to_canonical(), service.port()));
    match from {
        IpAddr::V4(from) => {
            let (ip, port) = match to {
                Some((IpAddr::V4(ip), port)) => (ip, port),
                _ => (Ipv4Addr::UNSPECIFIED, 0),
            };
            body.extend(from.octets());
            body.extend(ip.octets());
            body.extend(source.port().to_be_bytes());
            body.extend(port.to_be_bytes());
            TCP_OVER_IPV4
        }
        IpAddr::V6(from) => {
            let (ip, port) = match to {
                Some((IpAddr::V6(ip), port)) => (ip, port),
                _ => (Ipv6Addr::UNSPECIFIED, 0),
            };
            body.extend(from.octets());
            body.extend(ip.octets());
            body.extend(source.port().to_be_bytes());
            body.extend(port.to_be_bytes());
            TCP_OVER_IPV6
        }
    }
}

fn tlv(kind: u8, value: &[u8], body: &mut Vec<u8>) {
    // No value of ours is near 64 KiB.
    if let Ok(length) = u16::try_from(value.len()) {
        body.push(kind);
        body.extend(length.to_be_bytes());
        body.extend(value);
    }
}

fn framed(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
    header.extend(SIGNATURE);
    header.extend([command, family]);
    header.extend(u16::try_from(body.len()).unwrap_or_default().to_be_bytes());
    header.extend(body);
    header
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::telemetry::SessionLabel;

    fn speaker(source: Option<&str>, session: bool) -> Speaker {
        Speaker {
            source: source.map(|source| source.parse().unwrap()),
            id: "00c0ffee00000001".into(),
            session: session.then(|| SessionLabel {
                namespace: "default".into(),
                provider: "local".into(),
                id: "one".into(),
                generation: 3,
                owner: None,
            }),
        }
    }

    fn hex(speaker: Option<&Speaker>, service: Option<&str>) -> String {
        let service = service.map(|service| service.parse().unwrap());
        data_encoding::HEXLOWER.encode(&header(speaker, service))
    }

    const START: &str = "0d0a0d0a000d0a515549540a";
    const ID: &str = "05001030306330666665653030303030303031";

    #[test]
    fn as_they_stand_on_the_wire() {
        let v4 = speaker(Some("192.0.2.7:50000"), true);
        let session = "e0001164656661756c742f6c6f63616c2f6f6e65";
        assert_eq!(
            hex(Some(&v4), Some("127.0.0.1:80")),
            format!("{START}21110033c00002077f000001c3500050{ID}{session}")
        );
        let bare = speaker(Some("192.0.2.7:50000"), false);
        assert_eq!(
            hex(Some(&bare), None),
            format!("{START}2111001fc000020700000000c3500000{ID}"),
            "a unix service has no address to say"
        );
        let v6 = speaker(Some("[2001:db8::7]:1"), false);
        assert_eq!(
            hex(Some(&v6), Some("[::1]:443")),
            format!(
                "{START}2121003720010db8000000000000000000000007\
                 00000000000000000000000000000001000101bb{ID}"
            )
        );
        assert_eq!(hex(None, Some("127.0.0.1:80")), format!("{START}20000000"));
        let local = speaker(None, false);
        assert_eq!(hex(Some(&local), None), format!("{START}21000013{ID}"));
    }

    #[test]
    fn a_mapped_source_is_the_ipv4_one_it_is() {
        let mapped = speaker(Some("[::ffff:192.0.2.7]:50000"), false);
        let plain = speaker(Some("192.0.2.7:50000"), false);
        assert_eq!(
            hex(Some(&mapped), Some("[::1]:1")),
            hex(Some(&plain), Some("[::1]:1"))
        );
    }
}
