//! A flow of which some bytes were read already.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Flow, Rest};

/// Gives `first`, then what the flow has.
#[derive(Debug)]
pub struct Prefixed<F> {
    first: Rest,
    flow: F,
}

impl<F: Flow> Prefixed<F> {
    /// `first` was read from `flow` before it was one.
    pub fn new(first: Bytes, flow: F) -> Self {
        let first = Rest::new(first);
        Self { first, flow }
    }
}

impl<F: Flow> Flow for Prefixed<F> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Ok(Some(first))),
            None => self.flow.poll_read(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.flow.poll_write(cx, chunk)
    }

    crate::forward_flow!(flow);
}
