//! Out of the gateway and to its public URL: TCP, and TLS as a sandbox would ask for it.

use std::{net::IpAddr, net::SocketAddr};

use rustls::{CertificateError, pki_types::ServerName};
use sluicegate_policy::{Denial, Host, HostName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{
    check::Finding,
    plan::{Maker, Road, Way},
};

/// A connection to the public URL.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What the client offers (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Alpn {
    H1,
    H2,
}

/// Dial the public URL's host.
pub(super) async fn dial(way: &Way, road: &Road) -> Result<TcpStream, Finding> {
    let addresses = addresses(way, road).await?;
    let mut last = Finding::fail(format!("{} has no address", road.target), "publicUrl");
    for ip in addresses {
        let address = SocketAddr::new(ip, road.target.port());
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                let reason = format!("cannot connect to {} at {address}: {error}", road.url());
                let setting = if road.resolve.is_empty() {
                    "publicUrl"
                } else {
                    "probe.resolve"
                };
                last = Finding::fail(reason, setting);
            }
        }
    }
    Err(last)
}

pub(super) async fn addresses(way: &Way, road: &Road) -> Result<Vec<IpAddr>, Finding> {
    if !road.resolve.is_empty() {
        return Ok(road.resolve.clone());
    }
    match road.target.host() {
        Host::Ip(ip) => Ok(vec![*ip]),
        // The system's own names and static entries are a sandbox's business too, but not this gateway's.
        Host::Name(name) => match way.resolver.lookup(name).await {
            Ok(resolved) => Ok(resolved.addresses),
            Err((denial, detail)) => Err(unresolved(way.maker, name, denial, &detail)),
        },
    }
}

/// Where name servers fail it is they who are to be mended, and not where probes go. A name that they say does not exist may be
/// one for the outside alone. The name servers of an agent's machine are no setting of the gateway's.
fn unresolved(maker: Maker, name: &HostName, denial: Denial, detail: &str) -> Finding {
    let fails = matches!(denial, Denial::DnsFailed | Denial::DnsTimeout);
    let what = if fails {
        "could not be resolved"
    } else {
        "does not resolve"
    };
    let (place, round, setting) = match maker {
        Maker::Own if fails => ("here", "probe.resolve", "dns.servers"),
        Maker::Own => ("here", "probe.resolve", "probe.resolve"),
        Maker::Agent => ("where the agent runs", "its --resolve", "publicUrl"),
    };
    let reason = denial.reason();
    Finding::fail(
        format!(
            "the public name {name} {what} {place}: {reason} ({detail}); {round} leads probes round it"
        ),
        setting,
    )
}

/// TLS where the URL says so, verified for its host.
pub(super) async fn secure(
    road: &Road,
    tcp: TcpStream,
    alpn: Alpn,
) -> Result<Box<dyn Io>, Finding> {
    if !road.tls {
        return Ok(Box::new(tcp));
    }
    let name = match road.target.host() {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|error| Finding::fail(format!("{name}: {error}"), "publicUrl"))?,
    };
    let (config, protocol) = match alpn {
        Alpn::H1 => (&road.h1, b"http/1.1".as_slice()),
        Alpn::H2 => (&road.h2, b"h2".as_slice()),
    };
    let stream = TlsConnector::from(config.clone())
        .connect(name, tcp)
        .await
        .map_err(|error| refused(road, &error))?;
    if stream.get_ref().1.alpn_protocol() != Some(protocol) {
        let wanted = String::from_utf8_lossy(protocol);
        let reason = format!("{} does not negotiate {wanted} in TLS", road.url());
        return Err(Finding::fail(reason, "publicUrl"));
    }
    Ok(Box::new(stream))
}

/// Why a certificate was refused, in words that say what to do.
fn refused(road: &Road, error: &std::io::Error) -> Finding {
    let host = road.target.host();
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = tls else {
        let reason = format!("no TLS with {}: {error}", road.url());
        return Finding::fail(reason, "publicUrl");
    };
    let reason = format!(
        "the certificate that {} shows {}",
        road.url(),
        fault(why, host)
    );
    Finding::fail(reason, road.certificate_setting)
}

/// What is wrong with a certificate.
fn fault(why: &CertificateError, host: &Host) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("is not valid for {host}")
        }
        CertificateError::UnknownIssuer => {
            "is signed by none of the system's roots and not by the private CA".into()
        }
        CertificateError::BadSignature => "has a signature that is not its issuer's".into(),
        CertificateError::BadEncoding => "cannot be read".into(),
        CertificateError::Revoked => "was revoked".into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not one for servers (extended key usage)".into()
        }
        // The verifier has a name for it and no words.
        CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "is that of a certificate authority (CA: true), and a server needs one that is issued by it".into()
        }
        CertificateError::Other(other) => format!("is refused: {other}"),
        other => format!("is refused: {other}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use rustls::{
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{CertificateDer, UnixTime, pem::PemObject},
    };
    use sluicegate_certs::Authority;

    use super::*;
    use crate::{
        egress::{NameServer, Resolver, ResolverConfig},
        probe::testing,
    };

    #[tokio::test]
    async fn dead_name_servers_are_the_fault_and_probe_resolve_the_way_round() {
        // Bound and never read: it takes every question and answers none.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let config = ResolverConfig {
            servers: vec![NameServer::Plain(silent.local_addr().unwrap())],
            timeout: std::time::Duration::from_millis(50),
            ..ResolverConfig::default()
        };
        let target = sluicegate_policy::Target::from_authority("gateway.test:443").unwrap();
        let plan = testing::plan(Some(target), Vec::new());
        let way = Way {
            resolver: Resolver::new(&config).unwrap(),
            ..Way::clone(&plan.way.unwrap())
        };
        let Err(Finding::Fail { reason, setting }) = addresses(&way, &way.road).await else {
            unreachable!("nobody answered");
        };
        assert_eq!(setting, "dns.servers", "{reason}");
        assert!(
            reason.contains("gateway.test could not be resolved"),
            "{reason}"
        );
        assert!(reason.contains("probe.resolve"), "{reason}");
        let round = Road {
            resolve: vec![[192, 0, 2, 1].into()],
            ..way.road.clone()
        };
        let dialled = addresses(&way, &round).await.unwrap();
        assert_eq!(dialled, [IpAddr::from([192, 0, 2, 1])]);
    }

    #[test]
    fn a_name_that_is_not_there_is_another_fault_than_servers_that_fail() {
        let name = HostName::parse("gateway.test").unwrap();
        for (maker, denial, expected, round) in [
            (
                Maker::Own,
                Denial::DnsFailed,
                "dns.servers",
                "probe.resolve",
            ),
            (
                Maker::Own,
                Denial::DnsTimeout,
                "dns.servers",
                "probe.resolve",
            ),
            (
                Maker::Own,
                Denial::DnsNotFound,
                "probe.resolve",
                "probe.resolve",
            ),
            (Maker::Agent, Denial::DnsTimeout, "publicUrl", "--resolve"),
            (Maker::Agent, Denial::DnsNotFound, "publicUrl", "--resolve"),
        ] {
            let found = unresolved(maker, &name, denial, "as it was said");
            let Finding::Fail { reason, setting } = found else {
                unreachable!("{denial:?}");
            };
            assert_eq!(setting, expected, "{maker:?} {denial:?}");
            for part in [denial.reason(), "as it was said", round] {
                assert!(reason.contains(part), "{reason}");
            }
        }
    }

    /// Verified as the probe would: what is said is for people.
    #[test]
    fn a_ca_that_is_shown_as_a_servers_certificate_is_named_so() {
        let authority = Authority::create("test", std::time::SystemTime::now()).unwrap();
        let pem = authority.certificate_pem();
        let own = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().unwrap();
        let name = ServerName::try_from("gateway.test").unwrap();
        let refused = verifier.verify_server_cert(&own, &[], &name, &[], UnixTime::now());
        let Err(rustls::Error::InvalidCertificate(why)) = refused else {
            unreachable!("{refused:?}");
        };
        let host = Host::Name(HostName::parse("gateway.test").unwrap());
        let told = fault(&why, &host);
        assert!(told.contains("certificate authority"), "{told}");
    }
}
