//! Capsules (RFC 9297) of `connect-tcp`, written and read by a reader of the tests' own.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pipe::{Far, Pipe, reset};
use crate::wire::Wire;

/// DATA, draft-ietf-httpbis-connect-tcp-12.
pub const DATA: u32 = 0x2028_d7f2;
/// FINAL_DATA.
pub const FINAL_DATA: u32 = 0x2028_d7f3;

/// One capsule; payloads of up to 16,383 bytes.
pub fn capsule(kind: u32, payload: &[u8]) -> Vec<u8> {
    let kind = (kind | 0x8000_0000).to_be_bytes();
    let length = u16::try_from(payload.len()).unwrap() | 0x4000;
    [&kind[..], &length.to_be_bytes(), payload].concat()
}

/// A whole stream in capsules: `payload`, then FIN.
pub fn whole(payload: &[u8]) -> Vec<u8> {
    let data = payload.chunks(10_000).map(|part| capsule(DATA, part));
    let mut bytes: Vec<u8> = data.flatten().collect();
    bytes.extend(capsule(FINAL_DATA, &[]));
    bytes
}

/// The request for a tunnel to `host:port`.
pub fn egress(target: &str, token: &str) -> String {
    let (host, port) = target.rsplit_once(':').unwrap();
    upgrade(&format!("/.well-known/masque/tcp/{host}/{port}/"), token)
}

/// The request for what is at this path, over HTTP/1.1.
pub fn upgrade(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: connect-tcp\r\n\
         Capsule-Protocol: ?1\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// Asks, and has its 101.
pub async fn switch<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, request: &str) {
    wire.send(request).await;
    let head = wire.head().await;
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.value("upgrade"), "connect-tcp");
    assert!(head.value("connection").eq_ignore_ascii_case("upgrade"));
    assert_eq!(head.value("capsule-protocol"), "?1");
    assert!(head.value("proxy-status").starts_with("sluicegate"));
}

async fn varint<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>) -> u64 {
    let first = wire.take(1).await[0];
    let rest = wire.take((1 << (first >> 6)) - 1).await;
    rest.iter().fold(u64::from(first & 0x3f), |all, byte| {
        all << 8 | u64::from(*byte)
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// The next capsule: its type and its payload.
    pub async fn capsule(&mut self) -> (u64, Vec<u8>) {
        let kind = varint(self).await;
        let length = varint(self).await;
        (kind, self.take(usize::try_from(length).unwrap()).await)
    }

    /// The payload of the next `count` bytes of DATA, however they were cut.
    pub async fn payload(&mut self, count: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        while payload.len() < count {
            let (kind, part) = self.capsule().await;
            assert_eq!(kind, u64::from(DATA), "a capsule of {} bytes", part.len());
            payload.extend(part);
        }
        payload
    }

    /// Everything until FINAL_DATA.
    pub async fn until_fin(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        loop {
            let (kind, part) = self.capsule().await;
            payload.extend(part);
            if kind == u64::from(FINAL_DATA) {
                return payload;
            }
            assert_eq!(kind, u64::from(DATA), "an unexpected capsule");
        }
    }
}

/// The stream inside the capsules of another.
pub fn inside<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(outer: Wire<S>) -> Wire<Pipe> {
    let (stream, early) = outer.into_parts();
    let (from, mut to) = tokio::io::split(stream);
    Wire::over(Pipe::carried(|far| async move {
        let Far { down, mut up } = far;
        let arriving = async move {
            let mut from = Box::pin(io::Cursor::new(early).chain(from));
            let end = loop {
                match next(&mut from).await {
                    Ok((kind, part)) => {
                        let _ = down.send(Ok(part.into()));
                        if kind == u64::from(FINAL_DATA) {
                            return;
                        }
                        assert_eq!(kind, u64::from(DATA), "an unexpected capsule");
                    }
                    Err(_) => break reset(),
                }
            };
            let _ = down.send(Err(end));
        };
        let sending = async move {
            while let Some(part) = up.recv().await {
                let part = part.map_or_else(
                    || capsule(FINAL_DATA, &[]),
                    |part: Bytes| part.chunks(10_000).flat_map(|c| capsule(DATA, c)).collect(),
                );
                // Whoever is gone has said so in the other direction.
                let _ = to.write_all(&part).await;
            }
        };
        tokio::join!(arriving, sending);
    }))
}

async fn number(from: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let first = from.read_u8().await?;
    let mut number = u64::from(first & 0x3f);
    for _ in 1..1 << (first >> 6) {
        number = number << 8 | u64::from(from.read_u8().await?);
    }
    Ok(number)
}

async fn next(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(u64, Vec<u8>)> {
    let kind = number(from).await?;
    let length = number(from).await?;
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    from.read_exact(&mut payload).await?;
    Ok((kind, payload))
}
