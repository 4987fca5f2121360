//! What is trusted: the roots a peer's chain must end in.
use crate::{
    CertError,
    identity::{certificates, certificates_pem},
};
use rustls::{RootCertStore, pki_types::CertificateDer};

/// A set of root certificates, in the order added, each once.
#[derive(Clone, Debug, Default)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// No roots: nothing is trusted.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The system's roots, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name. A root that does not parse is left out: a
    /// system's store may hold some that no verifier takes.
    ///
    /// # Errors
    /// Where there is a store and nothing of it could be read. A system without any store gives an empty bundle.
    pub fn system() -> Result<Self, CertError> {
        let found = rustls_native_certs::load_native_certs();
        if let (true, Some(error)) = (found.certs.is_empty(), found.errors.first()) {
            return Err(CertError::SystemRoots(error.to_string()));
        }
        let mut bundle = Self::empty();
        for root in found.certs {
            if RootCertStore::empty().add(root.clone()).is_ok() {
                bundle.insert(root);
            }
        }
        Ok(bundle)
    }

    /// This bundle and every certificate of a PEM text.
    ///
    /// # Errors
    /// No certificate in it, or one that does not parse: given by hand, it is meant to count.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, CertError> {
        for root in certificates(pem)? {
            RootCertStore::empty()
                .add(root.clone())
                .map_err(|error| CertError::Certificate(error.to_string()))?;
            self.insert(root);
        }
        Ok(self)
    }

    /// Every root, as one PEM text.
    pub fn to_pem(&self) -> String {
        certificates_pem(&self.roots)
    }

    /// Is nothing trusted?
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// How many roots.
    pub fn len(&self) -> usize {
        self.roots.len()
    }

    /// The roots as rustls wants them.
    pub(crate) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.roots.iter().cloned());
        store
    }

    fn insert(&mut self, root: CertificateDer<'static>) {
        if !self.roots.contains(&root) {
            self.roots.push(root);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Authority;
    use std::time::SystemTime;

    #[test]
    fn pem_round_trips_and_counts_each_root_once() {
        let one = Authority::create("one", SystemTime::now()).unwrap();
        let two = Authority::create("two", SystemTime::now()).unwrap();
        let both = format!(
            "{}{}{}",
            one.certificate_pem(),
            two.certificate_pem(),
            one.certificate_pem()
        );
        let bundle = TrustBundle::empty().with_pem(both.as_bytes()).unwrap();
        assert_eq!(bundle.len(), 2);
        let again = TrustBundle::empty()
            .with_pem(bundle.to_pem().as_bytes())
            .unwrap();
        assert_eq!(again.to_pem(), bundle.to_pem());
        assert!(!again.is_empty());
        assert!(TrustBundle::empty().is_empty());
    }

    #[test]
    fn text_without_a_certificate_is_a_fault() {
        assert!(matches!(
            TrustBundle::empty().with_pem(b"hello"),
            Err(CertError::NoCertificate)
        ));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            TrustBundle::empty().with_pem(broken),
            Err(CertError::Certificate(_))
        ));
    }
}
