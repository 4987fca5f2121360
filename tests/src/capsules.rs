//! Capsules (RFC 9297) of `connect-tcp`, written and read by a reader of the tests' own.

use tokio::io::{AsyncRead, AsyncWrite};

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
