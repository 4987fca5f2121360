//! A flow, and what has to live as long as it does.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Flow};

/// Dropped, the flow goes first.
#[derive(Debug)]
pub struct Held<F: Flow, T: Send> {
    flow: F,
    _held: T,
}

impl<F: Flow, T: Send> Held<F, T> {
    /// Keep `held` while `flow` lives.
    pub fn new(flow: F, held: T) -> Self {
        Self { flow, _held: held }
    }
}

impl<F: Flow, T: Send> Flow for Held<F, T> {
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        self.flow.poll_read(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.flow.poll_write(cx, chunk)
    }

    crate::forward_flow!(flow);
}
