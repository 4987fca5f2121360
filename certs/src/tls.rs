//! The only builder of rustls configurations: what every listener and every client of this house speaks.
//!
//! TLS 1.2 and 1.3, the provider explicit, no early data (RFC 8446 §8: it can be replayed, and a CONNECT must not be).
use crate::{CertError, Identity, ServerIdentity, TrustBundle, sealing};
use rustls::{
    ALL_VERSIONS, CipherSuite, ClientConfig, ServerConfig, SupportedCipherSuite,
    SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};
use std::sync::{Arc, LazyLock};

/// One provider for the process: order of cipher suites is settled once.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        *suite = sealing::suite(*suite);
    }
    let hardware = aes_in_hardware();
    provider
        .cipher_suites
        .sort_by_key(|suite| rank(suite, hardware));
    Arc::new(provider)
});

/// The provider everything here uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}

/// A server's configuration, showing `identity`'s current certificate. Sessions resume by ticket; an empty `alpn` negotiates none.
///
/// The first handshake after six hours makes a new key for tickets, and the first after six more forgets the old one. None ever leaves
/// the process: no replica knows it, nor does who takes the machine when it is gone.
///
/// # Errors
/// Where the random source fails.
pub fn server(identity: &ServerIdentity, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, CertError> {
    server_that_resumes(identity, alpn, ALL_VERSIONS)
}

/// As [`server`], for clients that show a certificate under `roots`. Nothing resumes: every connection proves the
/// certificate anew, so one that expired or is no longer trusted ends with its last connection.
///
/// # Errors
/// Where `roots` is empty.
pub fn server_with_client_auth(
    identity: &ServerIdentity,
    roots: &TrustBundle,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, CertError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store()), provider()).build()?;
    let mut config = server_config(identity, Some(verifier), alpn, ALL_VERSIONS)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A client's configuration: peers must chain to `trust`; `identity` is shown to servers that ask. Resumption is on,
/// in memory and per configuration.
///
/// # Errors
/// Where rustls refuses the protocol versions, which it does not.
pub fn client(
    trust: &TrustBundle,
    alpn: &[&[u8]],
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, CertError> {
    client_config(trust, alpn, identity, ALL_VERSIONS).map(Arc::new)
}

/// As [`server`], for QUIC: TLS 1.3 only (RFC 9001 §4.2), no early data.
///
/// # Errors
/// As [`server`].
pub fn quic_server(
    identity: &ServerIdentity,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, CertError> {
    server_that_resumes(identity, alpn, &[&TLS13])
}

/// As [`client`], for QUIC: TLS 1.3 only (RFC 9001 §4.2), no early data.
///
/// # Errors
/// As [`client`].
pub fn quic_client(trust: &TrustBundle, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, CertError> {
    client_config(trust, alpn, None, &[&TLS13]).map(Arc::new)
}

fn client_config(
    trust: &TrustBundle,
    alpn: &[&[u8]],
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, CertError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(trust.store());
    let mut config = match identity {
        Some(identity) => {
            let shown: Arc<dyn ResolvesClientCert> =
                Arc::new(SingleCertAndKey::from(Arc::clone(identity.certified())));
            builder.with_client_cert_resolver(shown)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    config.enable_early_data = false;
    Ok(config)
}

fn server_that_resumes(
    identity: &ServerIdentity,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>, CertError> {
    let mut config = server_config(identity, None, alpn, versions)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Each is made and sent in every handshake, and one resumes the next connection; that one brings the next.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

fn server_config(
    identity: &ServerIdentity,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, CertError> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity.clone()));
    config.alpn_protocols = protocols(alpn);
    // Our order counts: it knows what this machine does in hardware, and it is this machine that carries every tunnel.
    config.ignore_client_order = true;
    config.max_early_data_size = 0;
    Ok(config)
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Place of a suite in our order: what the machine does fastest first, 128-bit AES before 256. rustls separates the
/// versions itself, so only the order within one counts.
fn rank(suite: &SupportedCipherSuite, hardware: bool) -> u8 {
    use CipherSuite::*;
    match suite.suite() {
        TLS13_CHACHA20_POLY1305_SHA256
        | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            if hardware {
                3
            } else {
                0
            }
        }
        TLS13_AES_128_GCM_SHA256
        | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 1,
        _ => 2,
    }
}

/// Does this CPU run AES-GCM in instructions of its own?
fn aes_in_hardware() -> bool {
    #[cfg(target_arch = "x86_64")]
    let found = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let found = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let found = false;
    found
}

#[cfg(test)]
mod tests;
