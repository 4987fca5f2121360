//! What can go wrong with keys and certificates, one fact per variant.
use std::{io, path::PathBuf};

/// A fault of a key, a certificate, a file of either, or a TLS configuration. No variant ever carries key material.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written where it belongs: the directory is missing, not writable, or its disk is full.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A private key is open to other users.
    #[error("{path} has mode {mode:04o}: a private key must be its owner's alone (chmod 600)", path = path.display())]
    KeyExposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The authority's certificate is there and its key is not.
    #[error("{path} is missing although its certificate is there: restore it, or remove both for a new authority", path = path.display())]
    KeyMissing {
        /// The key's file.
        path: PathBuf,
    },
    /// No certificate in what should be a PEM chain.
    #[error("no PEM certificate found")]
    NoCertificate,
    /// No private key in what should be one.
    #[error("no PEM private key found")]
    NoKey,
    /// A key of another kind.
    #[error("not an Ed25519 key")]
    NotEd25519,
    /// The system gave none.
    #[error("the system gives no randomness")]
    NoRandomness,
    /// PEM framing or its base64 is broken.
    #[error("malformed PEM: {0}")]
    Pem(String),
    /// A certificate's DER does not parse.
    #[error("malformed certificate: {0}")]
    Certificate(String),
    /// A certificate that is not for another key.
    #[error("the certificate does not belong to the private key")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error("the certificate is not an authority's")]
    NotAuthority,
    /// The authority itself is past its life.
    #[error(
        "the authority's certificate has expired: remove ca.pem and ca.key for a new one, and hand out the new trust bundle"
    )]
    AuthorityExpired,
    /// Nothing to put into a certificate.
    #[error("a server certificate needs at least one name")]
    NoNames,
    /// Neither a DNS name nor an address literal.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// A name outside what a constrained authority may speak for.
    #[error("{0:?} is outside the names this authority may speak for")]
    NameNotPermitted(String),
    /// A moment that a certificate cannot express.
    #[error("the time or lifetime is out of range")]
    Time,
    /// Making or signing a certificate failed.
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// The system's roots cannot be read at all.
    #[error("cannot read the system's trusted roots: {0}")]
    SystemRoots(String),
    /// rustls refuses the key, chain or settings.
    #[error("TLS configuration refused: {0}")]
    Tls(#[from] rustls::Error),
    /// Clients are to be verified and there is nothing to verify them by.
    #[error("client certificates cannot be verified: {0}")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
}
