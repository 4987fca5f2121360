//! What goes into HTTP/2 DATA frames: payload, with a capsule head before it or none.

use std::io::IoSlice;

use bytes::{Buf, Bytes};
use sluicegate_relay_protocol::capsule::Head;

/// Bytes read at once, at most. Behind a capsule's head they are one DATA frame of HTTP/2, and four records of an upgraded
/// connection: what is left over would be a frame and a write of its own, every time.
pub const FULL: usize = 4 * (CAPSULE - Head::USUAL_MAX);

/// Head and payload of one capsule on an upgraded connection together: one TLS record (RFC 8446 §5.1), one segment run.
pub(super) const CAPSULE: usize = 16 * 1024;

/// A small head and a payload that is not copied to follow it: both leave in one DATA frame.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    head: Head,
    head_sent: usize,
    payload: Bytes,
}

impl Chunk {
    /// A capsule: its head and its payload.
    pub fn capsule(kind: u64, payload: Bytes) -> Self {
        Self {
            head: Head::new(kind, payload.len()),
            head_sent: 0,
            payload,
        }
    }

    fn head(&self) -> &[u8] {
        self.head
            .as_slice()
            .get(self.head_sent..)
            .unwrap_or_default()
    }
}

impl From<Bytes> for Chunk {
    fn from(payload: Bytes) -> Self {
        Self {
            head: Head::default(),
            head_sent: 0,
            payload,
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.head().len() + self.payload.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.head() {
            [] => &self.payload,
            head => head,
        }
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head().len());
        self.head_sent += of_head;
        self.payload.advance(count - of_head);
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = [self.head(), &self.payload];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        slices
            .iter_mut()
            .zip(parts)
            .map(|(slot, part)| *slot = IoSlice::new(part))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::Chunk;
    use bytes::{Buf, Bytes};
    use sluicegate_relay_protocol::capsule::DATA;
    use std::io::IoSlice;

    #[test]
    fn head_and_payload_are_one_buffer() {
        let chunk = Chunk::capsule(DATA, Bytes::from_static(b"hello"));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(chunk.chunks_vectored(&mut slices), 2);
        assert_eq!(chunk.remaining(), 10);
        for taken in 0..=10 {
            let mut rest = chunk.clone();
            rest.advance(taken);
            let left = rest.remaining();
            assert_eq!((taken + left, rest.copy_to_bytes(left).len()), (10, left));
        }
    }
}
