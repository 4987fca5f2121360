//! A flow of which some bytes were read already.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Flow};

/// Up to so many bytes are copied out of the buffer they were read into.
const FEW: usize = 1024;

/// The rest of what was read, held by itself: a [`Bytes`] keeps the whole buffer that it is a piece of alive, also where it is empty.
#[must_use]
pub fn apart(rest: Bytes) -> Bytes {
    if rest.len() > FEW {
        return rest;
    }
    Bytes::copy_from_slice(&rest)
}

/// Gives `first`, then what the flow has.
#[derive(Debug)]
pub struct Prefixed<F> {
    first: Bytes,
    flow: F,
}

impl<F: Flow> Prefixed<F> {
    /// `first` was read from `flow` before it was one.
    pub fn new(first: Bytes, flow: F) -> Self {
        let first = apart(first);
        Self { first, flow }
    }
}

impl<F: Flow> Flow for Prefixed<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if self.first.is_empty() {
            return self.flow.poll_read(cx);
        }
        Poll::Ready(Ok(Some(std::mem::take(&mut self.first))))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.flow.poll_write(cx, chunk)
    }

    crate::forward_flow!(flow);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{future::poll_fn, sync::Arc};

    use bytes::{Buf, Bytes};

    use super::{FEW, Prefixed};
    use crate::flow::{Flow, SocketFlow, testing::pair};

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

    #[tokio::test]
    async fn a_rest_does_not_hold_the_buffer_it_was_read_into() {
        for rest in [0, 1, FEW] {
            let seen = Arc::new(());
            let mut first = Bytes::from_owner(Buffer {
                bytes: vec![7; 16 * 1024],
                _seen: seen.clone(),
            });
            first.advance(first.len() - rest);
            assert_eq!(Arc::strong_count(&seen), 2, "{rest}");
            let (near, _far) = pair(false).await;
            let mut flow = Prefixed::new(first, SocketFlow::new(near));
            assert_eq!(Arc::strong_count(&seen), 1, "{rest}");
            if rest > 0 {
                let read = poll_fn(|cx| flow.poll_read(cx)).await.unwrap().unwrap();
                assert_eq!(read, vec![7; rest]);
            }
        }
    }
}
