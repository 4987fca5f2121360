//! The shape of what an authority signs: names, purposes and validity of end-entity certificates.
use crate::CertError;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls::pki_types::DnsName;
use std::{
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use time::OffsetDateTime;

/// How far back validity starts: a sandbox whose clock is behind must not find the certificate "not yet valid".
const BACKDATE: Duration = Duration::from_secs(3600);

/// Longest common name (RFC 5280 appendix A.1, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// What an end-entity certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Answers TLS handshakes.
    Server,
    /// Shows itself to a server that asks for a client certificate.
    Client,
}

/// A moment as certificates write it (RFC 5280 §4.1.2.5); whole seconds.
pub(crate) fn moment(time: SystemTime) -> Result<OffsetDateTime, CertError> {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_err(|_| CertError::Time)?
        .as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| CertError::Time)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CertError::Time)
}

/// Validity from a little before `now` for `lifetime`, never past `latest`.
pub(crate) fn validity(
    now: SystemTime,
    lifetime: Duration,
    latest: SystemTime,
) -> Result<(OffsetDateTime, OffsetDateTime), CertError> {
    let end = now
        .checked_add(lifetime)
        .ok_or(CertError::Time)?
        .min(latest);
    let start = now
        .checked_sub(BACKDATE)
        .unwrap_or(UNIX_EPOCH)
        .max(UNIX_EPOCH);
    Ok((moment(start)?, moment(end)?))
}

/// A subject alternative name: an address literal, a DNS name, or `*.` and a DNS name.
pub(crate) fn alternative_name(name: &str) -> Result<SanType, CertError> {
    let fault = || CertError::Name(name.to_owned());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    // dNSName is a name without the root's dot (RFC 5280 §4.2.1.6); the parser here would let it pass.
    if plain.ends_with('.') || DnsName::try_from(plain).is_err() {
        return Err(fault());
    }
    let text = Ia5String::try_from(name.to_ascii_lowercase()).map_err(|_| fault())?;
    Ok(SanType::DnsName(text))
}

/// Everything of an end-entity certificate except its validity and key.
pub(crate) fn params(
    common_name: &str,
    alternative_names: Vec<SanType>,
    purpose: Purpose,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(common_name);
    params.subject_alt_names = alternative_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A subject with this common name, where it fits; the names that count are the alternative ones.
pub(crate) fn distinguished_name(common_name: &str) -> rcgen::DistinguishedName {
    let mut subject = rcgen::DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Sluicegate");
    if common_name.len() <= LONGEST_COMMON_NAME {
        subject.push(DnType::CommonName, common_name);
    }
    subject
}
