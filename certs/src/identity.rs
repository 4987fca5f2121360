//! A certificate chain with its private key, and the slot a running server takes it from.
use crate::{CertError, files, tls};
use arc_swap::ArcSwap;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A chain (leaf first) and the key of its leaf. The key never shows in `Debug`.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    key: Arc<PrivateKeyDer<'static>>,
    not_after: SystemTime,
    names: Vec<String>,
}

impl Identity {
    /// From a PEM chain, leaf first, and a PEM key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// What is malformed or missing, and a key that is another certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => CertError::NoKey,
            other => CertError::Pem(other.to_string()),
        })?;
        Self::from_der(chain, key)
    }

    /// From files, as [`Identity::from_pem`]. The key's mode is the operator's business: mounted secrets differ.
    ///
    /// # Errors
    /// Also where a file cannot be read, naming it.
    pub fn load(chain: &Path, key: &Path) -> Result<Self, CertError> {
        Self::from_pem(&files::read(chain)?, &files::read(key)?)
    }

    /// From DER parts.
    pub(crate) fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertError> {
        let leaf = chain.first().ok_or(CertError::NoCertificate)?;
        let (not_after, names) = read_leaf(leaf)?;
        let certified =
            CertifiedKey::from_der(chain, key.clone_key(), &tls::provider()).map_err(|error| {
                match error {
                    rustls::Error::InconsistentKeys(_) => CertError::KeyMismatch,
                    other => CertError::Tls(other),
                }
            })?;
        Ok(Self {
            certified: Arc::new(certified),
            key: Arc::new(key),
            not_after,
            names,
        })
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        certificates_pem(&self.certified.cert)
    }

    /// The private key as PEM. A secret: for a 0600 file, never for a log.
    pub fn key_pem(&self) -> String {
        let label = match &*self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        encode(label, self.key.secret_der())
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf's alternative names: DNS names as written and addresses in canonical form.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// What rustls signs with.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The identity a listener shows: replaceable while it serves. Clones share one slot.
#[derive(Clone, Debug)]
pub struct ServerIdentity {
    slot: Arc<ArcSwap<Identity>>,
}

impl ServerIdentity {
    /// Start with `identity`.
    pub fn new(identity: Identity) -> Self {
        Self {
            slot: Arc::new(ArcSwap::from_pointee(identity)),
        }
    }

    /// Show `identity` from the next handshake on; open connections keep what they have.
    pub fn replace(&self, identity: Identity) {
        self.slot.store(Arc::new(identity));
    }

    /// The identity shown now.
    pub fn current(&self) -> Arc<Identity> {
        self.slot.load_full()
    }
}

impl ResolvesServerCert for ServerIdentity {
    /// One identity for every name: the client decides whether it covers the one it wanted.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.slot.load().certified()))
    }
}

/// Every certificate of a PEM text; at least one, else a fault.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertError::Pem(error.to_string()))?;
    if found.is_empty() {
        Err(CertError::NoCertificate)
    } else {
        Ok(found)
    }
}

/// Certificates as one PEM text.
pub(crate) fn certificates_pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates
        .iter()
        .map(|certificate| encode("CERTIFICATE", certificate))
        .collect()
}

/// One PEM section (RFC 7468), lines ended by LF.
fn encode(label: &str, der: &[u8]) -> String {
    pem::encode_config(
        &pem::Pem::new(label, der),
        pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
    )
}

/// End of validity and names of a leaf.
fn read_leaf(der: &CertificateDer<'_>) -> Result<(SystemTime, Vec<String>), CertError> {
    let malformed = |error: &dyn fmt::Display| CertError::Certificate(error.to_string());
    let (rest, leaf) = X509Certificate::from_der(der).map_err(|error| malformed(&error))?;
    if !rest.is_empty() {
        return Err(malformed(&"trailing bytes"));
    }
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or(CertError::Time)?;
    let alternative = leaf
        .subject_alternative_name()
        .map_err(|error| malformed(&error))?;
    let names = alternative
        .map(|extension| {
            extension
                .value
                .general_names
                .iter()
                .filter_map(name_text)
                .collect()
        })
        .unwrap_or_default();
    Ok((not_after, names))
}

/// A DNS name or address among a certificate's alternative names.
fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            let v6 =
                || <[u8; 16]>::try_from(*octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
