//! What was read of a stream, and not been asked for yet.

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

/// Up to so many bytes are copied out of the buffer they were read into.
const FEW: usize = 1024;

/// Held by itself: a [`Bytes`] keeps the whole buffer that it is a piece of alive, also where it is empty.
#[derive(Debug)]
pub struct Rest(Bytes);

impl Rest {
    /// `read` was read before whoever asks for it was there.
    #[must_use]
    pub fn new(read: Bytes) -> Self {
        Self(apart(read))
    }

    /// Is nothing left?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it. `None`: nothing is left.
    pub fn take(&mut self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| std::mem::take(&mut self.0))
    }

    /// As much as there is room for.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        give(&mut self.0, buffer);
    }
}

/// What is left of what was read, without the buffer where it is little or nothing.
pub(super) fn apart(rest: Bytes) -> Bytes {
    if rest.len() > FEW {
        return rest;
    }
    Bytes::copy_from_slice(&rest)
}

/// Give as much of `rest` as there is room for. With its last byte the buffer goes that it was a piece of.
pub(super) fn give(rest: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let count = rest.len().min(buffer.remaining());
    buffer.put_slice(rest.get(..count).unwrap_or_default());
    rest.advance(count);
    if rest.is_empty() {
        *rest = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;

    const BUFFER: usize = 16 * 1024;

    /// A large buffer that can be seen to go.
    struct Buffer {
        bytes: Vec<u8>,
        _seen: Arc<()>,
    }

    impl AsRef<[u8]> for Buffer {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    /// The last `rest` bytes of such a buffer: the others were taken.
    fn read(rest: usize) -> (Bytes, Arc<()>) {
        let seen = Arc::new(());
        let mut buffer = Bytes::from_owner(Buffer {
            bytes: vec![7; BUFFER],
            _seen: seen.clone(),
        });
        buffer.advance(BUFFER - rest);
        assert_eq!(Arc::strong_count(&seen), 2);
        (buffer, seen)
    }

    #[test]
    fn a_small_rest_or_none_does_not_hold_the_buffer() {
        for length in [0, 1, FEW] {
            let (bytes, seen) = read(length);
            let mut rest = Rest::new(bytes);
            assert_eq!(Arc::strong_count(&seen), 1, "{length}");
            let given = rest.take();
            assert_eq!(given.unwrap_or_default(), vec![7; length]);
            assert!(rest.is_empty() && rest.take().is_none());
        }
    }

    #[test]
    fn what_was_given_is_not_held_any_more() {
        let (bytes, seen) = read(BUFFER);
        let mut rest = Rest::new(bytes);
        let mut room = vec![0; BUFFER - 1];
        let mut buffer = ReadBuf::new(&mut room);
        rest.give(&mut buffer);
        assert_eq!(buffer.filled(), vec![7; BUFFER - 1]);
        assert_eq!(Arc::strong_count(&seen), 2, "a byte is left");
        buffer.clear();
        rest.give(&mut buffer);
        assert_eq!(buffer.filled(), [7]);
        assert_eq!(Arc::strong_count(&seen), 1);
        rest.give(&mut buffer);
        assert_eq!(buffer.filled(), [7], "there is no more");

        let (bytes, seen) = read(BUFFER);
        let mut rest = Rest::new(bytes);
        assert_eq!(rest.take().unwrap().len(), BUFFER);
        assert_eq!(Arc::strong_count(&seen), 1);
    }
}
