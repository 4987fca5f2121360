//! What is said to a proxy: CONNECT (RFC 9110 §9.3.6), and SOCKS5 (RFC 1928, RFC 1929) from the client's end.

use bytes::{Bytes, BytesMut};
use data_encoding::BASE64;
use sluicegate_policy::{Denial, Host, Target};
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DialError, Login, failed};
use crate::egress::{Carrier, Upstream};

/// A proxy's answer: longer ones are pages nobody reads.
const LONGEST_ANSWER: usize = 16 * 1024;
/// Interim answers before the one that counts.
const MOST_INTERIM: usize = 8;

/// The proxy has answered, and not with a way.
fn answered(denial: Denial, what: &str) -> DialError {
    DialError {
        denial,
        detail: format!("upstream proxy answered {what}"),
    }
}

fn broken(error: std::io::Error) -> DialError {
    failed(&error.to_string())
}

pub(super) async fn by_connect(
    mut carrier: Carrier,
    asked: &Target,
    login: Option<&Login>,
) -> Result<Upstream, DialError> {
    let credential = login.map_or_else(String::new, |login| {
        let pair = format!("{}:{}", login.user.reveal(), login.password.reveal());
        let encoded = BASE64.encode(pair.as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    });
    let head = format!("CONNECT {asked} HTTP/1.1\r\nHost: {asked}\r\n{credential}\r\n");
    carrier.write_all(head.as_bytes()).await.map_err(broken)?;
    carrier.flush().await.map_err(broken)?;
    let (mut answer, mut interim, mut before) = (BytesMut::new(), 0, 0);
    let code = loop {
        let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            if before + answer.len() > LONGEST_ANSWER {
                return Err(failed("an answer without an end"));
            }
            if carrier.read_buf(&mut answer).await.map_err(broken)? == 0 {
                return Err(failed("closed before it answered"));
            }
            continue;
        };
        let head = answer.split_to(at + 4).freeze();
        let code = status(
            head.split(|byte: &u8| *byte == b'\r')
                .next()
                .unwrap_or_default(),
        );
        // RFC 9110 §15.2: any number of these may come first. To another protocol nobody asked to switch.
        if !matches!(code, Some(100 | 102..=199)) {
            break code;
        }
        interim += 1;
        before += head.len();
        if interim > MOST_INTERIM {
            return Err(failed("nothing but interim answers"));
        }
    };
    match code {
        Some(200..=299) => Ok(Upstream::new(answer.freeze(), carrier)),
        Some(code @ (502 | 503)) => Err(answered(Denial::ConnectUnreachable, &code.to_string())),
        Some(504) => Err(answered(Denial::ConnectTimeout, "504")),
        Some(code) => Err(answered(Denial::UpstreamProxyRefused, &code.to_string())),
        None => Err(failed("not an answer of HTTP/1")),
    }
}

/// RFC 9112 §4: `HTTP/1.x SP 3DIGIT`, and what follows.
fn status(line: &[u8]) -> Option<u16> {
    let text = str::from_utf8(line.get(..12)?).ok()?;
    let code = text
        .strip_prefix("HTTP/1.0 ")
        .or_else(|| text.strip_prefix("HTTP/1.1 "))?;
    let digits = code.bytes().all(|byte| byte.is_ascii_digit());
    let ends = line.get(12).is_none_or(|byte| *byte == b' ');
    (digits && ends).then(|| code.parse().ok()).flatten()
}

pub(super) async fn by_socks(
    mut carrier: Carrier,
    asked: &Target,
    login: Option<&Login>,
) -> Result<Upstream, DialError> {
    // With a login nothing else is offered: a proxy that asks for none is not the one that was meant.
    let method = if login.is_some() { 2 } else { 0 };
    carrier.write_all(&[5, 1, method]).await.map_err(broken)?;
    let [version, chosen] = exactly(&mut carrier).await?;
    if version != 5 {
        return Err(failed("not SOCKS5"));
    }
    if chosen != method {
        return Err(answered(
            Denial::UpstreamProxyRefused,
            &format!("method {chosen:#04x}"),
        ));
    }
    if let Some(login) = login {
        let mut bytes = vec![1];
        for text in [&login.user, &login.password] {
            counted(&mut bytes, text.reveal().as_bytes())?;
        }
        carrier.write_all(&bytes).await.map_err(broken)?;
        let [_, status] = exactly(&mut carrier).await?;
        if status != 0 {
            let what = format!("login status {status:#04x}");
            return Err(answered(Denial::UpstreamProxyRefused, &what));
        }
    }
    let mut request = vec![5, 1, 0];
    match asked.host() {
        Host::Ip(IpAddr::V4(v4)) => {
            request.push(1);
            request.extend(v4.octets());
        }
        Host::Ip(IpAddr::V6(v6)) => {
            request.push(4);
            request.extend(v6.octets());
        }
        Host::Name(name) => {
            request.push(3);
            counted(&mut request, name.to_string().as_bytes())?;
        }
    }
    request.extend(asked.port().to_be_bytes());
    carrier.write_all(&request).await.map_err(broken)?;
    let [version, code, _, kind] = exactly(&mut carrier).await?;
    if version != 5 {
        return Err(failed("not SOCKS5"));
    }
    if code != 0 {
        let denial = match code {
            3 | 4 => Denial::ConnectUnreachable,
            5 => Denial::ConnectRefused,
            6 => Denial::ConnectTimeout,
            _ => Denial::UpstreamProxyRefused,
        };
        return Err(answered(denial, &format!("reply {code:#04x}")));
    }
    // Where it dialled from does not matter, but stands before the tunnel.
    let bound = match kind {
        1 => 4,
        4 => 16,
        3 => {
            let [length] = exactly(&mut carrier).await?;
            usize::from(length)
        }
        _ => return Err(failed("an address type nobody knows")),
    };
    let mut rest = vec![0; bound + 2];
    carrier.read_exact(&mut rest).await.map_err(broken)?;
    Ok(Upstream::new(Bytes::new(), carrier))
}

fn counted(bytes: &mut Vec<u8>, text: &[u8]) -> Result<(), DialError> {
    let length = u8::try_from(text.len()).map_err(|_| failed("over 255 bytes cannot be said"))?;
    bytes.push(length);
    bytes.extend(text);
    Ok(())
}

async fn exactly<const N: usize>(carrier: &mut Carrier) -> Result<[u8; N], DialError> {
    let mut bytes = [0; N];
    carrier.read_exact(&mut bytes).await.map_err(broken)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn status_lines() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407"), Some(407));
        assert_eq!(status(b"HTTP/1.1 200"), Some(200));
        for none in [
            &b"HTTP/2 200 x"[..],
            b"HTTP/1.1 2000",
            b"HTTP/1.1 +20",
            b"SSH-2.0-x",
            b"",
        ] {
            assert_eq!(status(none), None, "{}", none.escape_ascii());
        }
    }
}
