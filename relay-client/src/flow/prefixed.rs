//! A flow of which some bytes were read already.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Flow};

/// Gives `first`, then what the flow has.
#[derive(Debug)]
pub struct Prefixed<F> {
    first: Bytes,
    flow: F,
}

impl<F: Flow> Prefixed<F> {
    /// `first` was read from `flow` before it was one.
    pub fn new(first: Bytes, flow: F) -> Self {
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
