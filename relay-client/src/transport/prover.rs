//! Shows credentials, with the proof of the key they are bound to where there is one.

use std::{borrow::Cow, sync::Arc};

use sluicegate_certs::{Channel, ClientKey};

/// Of one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Prover {
    key: Option<Arc<ClientKey>>,
    channel: Option<Channel>,
}

impl Prover {
    /// With this key, on a connection whose ends share this.
    pub(super) fn new(key: Option<Arc<ClientKey>>, channel: Option<Channel>) -> Self {
        Self { key, channel }
    }

    /// The credential as it is to be sent. Without TLS 1.3 there is nothing a proof could be bound to.
    pub(super) fn present<'a>(&self, token: &'a str) -> Cow<'a, str> {
        match (&self.key, &self.channel) {
            (Some(key), Some(channel)) => key.present(token, channel).into(),
            _ => token.into(),
        }
    }
}
