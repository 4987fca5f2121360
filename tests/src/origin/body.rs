//! Bodies whose every block differs, so that a lost, doubled or swapped block changes the digest.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use data_encoding::HEXLOWER;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame};
use sha2::{Digest, Sha256};

/// What every route answers with.
pub(crate) type Answered = BoxBody<Bytes, Infallible>;

const BLOCK: usize = 64 * 1024;

/// Block `number` of the pattern: its number in front, a fixed filling behind.
fn block(number: u64, filling: &[u8]) -> Bytes {
    let mut block = BytesMut::from(filling);
    block[..8].copy_from_slice(&number.to_be_bytes());
    block.freeze()
}

fn filling() -> Vec<u8> {
    (0..BLOCK).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// `total` bytes of pattern, produced as they are read.
pub(crate) struct Pattern {
    left: u64,
    number: u64,
    filling: Vec<u8>,
}

impl Pattern {
    pub(crate) fn of(total: u64) -> Self {
        Self {
            left: total,
            number: 0,
            filling: filling(),
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut block = block(self.number, &self.filling);
        block.truncate(usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK));
        self.left -= block.len() as u64;
        self.number += 1;
        Some(block)
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|block| Ok(Frame::data(block))))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}

/// SHA-256, hexadecimal, of `total` bytes of pattern.
pub fn pattern_digest(total: u64) -> String {
    let (mut pattern, mut hash) = (Pattern::of(total), Sha256::new());
    while let Some(block) = pattern.next() {
        hash.update(&block);
    }
    HEXLOWER.encode(&hash.finalize())
}

/// Writes `total` bytes of pattern.
///
/// # Errors
/// Those of `output`.
pub fn write_pattern(total: u64, output: &mut impl Write) -> std::io::Result<()> {
    let mut pattern = Pattern::of(total);
    while let Some(block) = pattern.next() {
        output.write_all(&block)?;
    }
    Ok(())
}

/// Reads a body to its end: length and SHA-256.
pub(crate) async fn digest<B>(mut body: B) -> Result<(u64, String), B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.len() as u64;
            hash.update(&data);
        }
    }
    Ok((length, HEXLOWER.encode(&hash.finalize())))
}
