//! A credential as it was presented: its text, and the key that was proved with it.

use sluicegate_certs::{Channel, Thumbprint, proven, split_proof};

use crate::secret::Secret;

/// What somebody shows. Made from a [`Secret`] alone it proves no key.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    secret: &'a Secret,
    proved: Option<Thumbprint>,
}

impl<'a> Presented<'a> {
    /// As it came on this connection. A proof that does not hold proves nothing, and is told from none by nobody.
    pub fn on(secret: &'a Secret, channel: Option<&Channel>) -> Self {
        let (credential, proof) = split_proof(secret.reveal());
        let proved = match (proof, channel) {
            (Some(proof), Some(channel)) => proven(credential, proof, channel),
            _ => None,
        };
        Self { secret, proved }
    }

    /// The credential, without the proof.
    pub fn text(&self) -> &'a str {
        split_proof(self.secret.reveal()).0
    }

    /// The key whose holder presents it.
    pub fn proved(&self) -> Option<Thumbprint> {
        self.proved
    }

    /// Nothing but the credential.
    pub fn secret(&self) -> &'a Secret {
        self.secret
    }
}

impl<'a> From<&'a Secret> for Presented<'a> {
    fn from(secret: &'a Secret) -> Self {
        Self::on(secret, None)
    }
}
