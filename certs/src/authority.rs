//! The private authority: what signs the gateway's own certificates in development and inside a deployment.
use crate::{
    CertError, Identity, files,
    identity::{certificates, certificates_pem},
    leaf::{self, Purpose},
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    string::PrintableString,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{
    fmt,
    fs::File,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of a new authority: ten years.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The attribute `serialNumber` of a name (RFC 5280 appendix A.1).
const SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// A private certificate authority with an ECDSA P-256 key. The key never shows in `Debug`.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Certificates a verifier needs between a leaf and its root; empty for a root.
    intermediates: Vec<CertificateDer<'static>>,
    certificate_pem: String,
    not_after: SystemTime,
}

impl Authority {
    /// A new authority with a fresh key, valid for ten years from `now`.
    ///
    /// # Errors
    /// Where `now` is out of range or the random source fails.
    pub fn create(common_name: &str, now: SystemTime) -> Result<Self, CertError> {
        let key = generate()?;
        let certificate = self_signed(common_name, &key, now)?;
        Self::from_parts(&certificate, key)
    }

    /// The authority kept in `dir` as `ca.pem` (0644) and `ca.key` (0600), made there the first time.
    ///
    /// Both files are written wholly or not at all, the key first: a crash in between leaves a key, from which the
    /// next start makes the certificate. Processes starting at once make one authority, not two.
    ///
    /// # Errors
    /// A directory that cannot be written, a key others can touch, a certificate without its key, one of another key,
    /// one that has expired.
    pub fn load_or_create(
        dir: &Path,
        common_name: &str,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        let lock = File::open(dir).map_err(|source| CertError::Read {
            path: dir.to_owned(),
            source,
        })?;
        lock.lock().map_err(|source| CertError::Read {
            path: dir.to_owned(),
            source,
        })?;
        let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let kept_certificate = files::read_if_there(&certificate_path)?;
        let key = match files::read_if_there(&key_path)? {
            Some(pem) => {
                files::refuse_exposed(&key_path)?;
                read_key(&pem)?
            }
            None if kept_certificate.is_some() => {
                return Err(CertError::KeyMissing { path: key_path });
            }
            None => {
                let key = generate()?;
                files::write_atomically(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
        };
        let authority = match kept_certificate {
            Some(pem) => {
                let root = certificates(&pem)?
                    .into_iter()
                    .next()
                    .ok_or(CertError::NoCertificate)?;
                Self::from_parts(&root, key)?
            }
            None => {
                let authority = Self::from_parts(&self_signed(common_name, &key, now)?, key)?;
                files::write_atomically(
                    &certificate_path,
                    authority.certificate_pem.as_bytes(),
                    0o644,
                )?;
                authority
            }
        };
        if authority.not_after <= now {
            Err(CertError::AuthorityExpired)
        } else {
            Ok(authority)
        }
    }

    /// An authority from a certificate and the key that must be its own.
    fn from_parts(certificate: &CertificateDer<'static>, key: KeyPair) -> Result<Self, CertError> {
        let malformed = |error: &dyn fmt::Display| CertError::Certificate(error.to_string());
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| malformed(&error))?;
        if parsed.public_key().subject_public_key.data != key.der_bytes() {
            return Err(CertError::KeyMismatch);
        }
        if !parsed.is_ca() {
            return Err(CertError::NotAuthority);
        }
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .ok_or(CertError::Time)?;
        let issuer = Issuer::from_ca_cert_der(certificate, key)?;
        let certificate_pem = certificates_pem(std::slice::from_ref(certificate));
        Ok(Self {
            issuer,
            intermediates: Vec::new(),
            certificate_pem,
            not_after,
        })
    }

    /// The authority's certificate: what a client trusts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// When the authority's certificate expires; nothing it issues lives longer.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// A server's identity for DNS names (`*.` and a name allowed) and address literals, valid from an hour before
    /// `now` (clocks differ) until `now + lifetime`, or as long as the authority itself.
    ///
    /// # Errors
    /// No name, or one that is neither.
    pub fn issue_server(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Identity, CertError> {
        let first = names.first().ok_or(CertError::NoNames)?;
        let alternative = names
            .iter()
            .map(|name| leaf::alternative_name(name))
            .collect::<Result<_, _>>()?;
        self.issue(
            leaf::params(first, alternative, Purpose::Server),
            lifetime,
            now,
        )
    }

    /// A client's identity: `name` is its common name, and its alternative name too where it is a DNS name or address.
    ///
    /// # Errors
    /// An empty name.
    pub fn issue_client(
        &self,
        name: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Identity, CertError> {
        if name.is_empty() {
            return Err(CertError::NoNames);
        }
        let alternative = leaf::alternative_name(name).into_iter().collect();
        self.issue(
            leaf::params(name, alternative, Purpose::Client),
            lifetime,
            now,
        )
    }

    /// An authority below this one that verifiers believe only for the DNS names given and what is below them
    /// (RFC 5280 §4.2.1.10): its key may live where more hands reach it, and is never written anywhere.
    pub(crate) fn constrained(
        &self,
        common_name: &str,
        permitted: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, CertError> {
        if permitted.is_empty() {
            return Err(CertError::NoNames);
        }
        let key = generate()?;
        let mut params = authority_params(common_name, &key, 0)?;
        params.use_authority_key_identifier_extension = true;
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted
                .iter()
                .cloned()
                .map(GeneralSubtree::DnsName)
                .collect(),
            excluded_subtrees: Vec::new(),
        });
        (params.not_before, params.not_after) = leaf::validity(now, lifetime, self.not_after)?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let mut authority = Self::from_parts(&certificate, key)?;
        authority.intermediates = std::iter::once(certificate)
            .chain(self.intermediates.iter().cloned())
            .collect();
        Ok(authority)
    }

    /// Sign a fresh key's certificate.
    fn issue(
        &self,
        mut params: CertificateParams,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Identity, CertError> {
        if self.not_after <= now {
            return Err(CertError::AuthorityExpired);
        }
        (params.not_before, params.not_after) = leaf::validity(now, lifetime, self.not_after)?;
        let key = generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = std::iter::once(certificate.der().clone())
            .chain(self.intermediates.iter().cloned())
            .collect();
        Identity::from_der(
            chain,
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A fresh P-256 key.
fn generate() -> Result<KeyPair, CertError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// The key kept in `ca.key`.
fn read_key(pem: &[u8]) -> Result<KeyPair, CertError> {
    let text = std::str::from_utf8(pem).map_err(|_| CertError::NoKey)?;
    KeyPair::from_pem(text).map_err(|_| CertError::NoKey)
}

/// Subject, basic constraints and key usages of an authority with at most `below` authorities under it.
///
/// The subject carries a piece of the key: verifiers look issuers up by name, and two authorities of one name in a
/// trust bundle would make a good chain fail as "bad signature".
fn authority_params(
    common_name: &str,
    key: &KeyPair,
    below: u8,
) -> Result<CertificateParams, CertError> {
    let piece: String = key
        .public_key_raw()
        .iter()
        .rev()
        .take(8)
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = leaf::distinguished_name(common_name);
    params.distinguished_name.push(
        DnType::CustomDnType(SERIAL_NUMBER.to_vec()),
        DnValue::PrintableString(PrintableString::try_from(piece)?),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A root's certificate. One authority may stand below it: the constrained one that mints leaves for interception.
fn self_signed(
    common_name: &str,
    key: &KeyPair,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CertError> {
    let mut params = authority_params(common_name, key, 1)?;
    let latest = now.checked_add(LIFETIME).ok_or(CertError::Time)?;
    (params.not_before, params.not_after) = leaf::validity(now, LIFETIME, latest)?;
    Ok(params.self_signed(key)?.der().clone())
}

#[cfg(test)]
mod tests;
