//! The operator's own proxy as the way out: what is judged here is asked of it, and of nobody else where it says no.
//!
//! It is asked for the judged address, so that what it dials is what was judged; or, where the operator chooses so, for the name,
//! which it then resolves anew by itself ([ADR 21](../../../docs/adr/0021-chaining-asks-for-the-judged-address.md)).

mod ask;

use std::{net::SocketAddr, sync::Arc};

use rustls::pki_types::ServerName;
use sluicegate_policy::{AddressPermit, Denial, Grant, Host, Target, decide};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Carrier, DialError, Egress, Upstream};
use crate::secret::Secret;

/// What it speaks.
#[derive(Clone, Debug)]
pub enum Speaks {
    /// HTTP/1.1 CONNECT, inside TLS where there is a configuration for it.
    Http(Option<Arc<rustls::ClientConfig>>),
    /// SOCKS5.
    Socks,
}

/// What it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskFor {
    /// The address that was judged.
    Address,
    /// The name, whose answers were judged here.
    Name,
}

/// A user and a password.
#[derive(Clone, Debug)]
pub struct Login {
    /// Before the colon.
    pub user: Secret,
    /// Behind it.
    pub password: Secret,
}

/// The operator's proxy.
#[derive(Clone, Debug)]
pub struct UpstreamProxy {
    /// What it speaks.
    pub speaks: Speaks,
    /// Where it is.
    pub target: Target,
    /// What lets us dial it, and nothing else.
    pub grant: Arc<Grant>,
    /// Shown to it.
    pub login: Option<Login>,
    /// What it is asked for.
    pub ask_for: AskFor,
    /// Targets and addresses that it is not asked for.
    pub bypass: Option<Arc<Grant>>,
}

impl UpstreamProxy {
    /// Is this target reached without it? It is where the list has its name, or all its addresses.
    pub(super) fn bypassed(&self, target: &Target, permits: &[AddressPermit]) -> bool {
        let Some(bypass) = &self.bypass else {
            return false;
        };
        let named = |host: Host, port| {
            Target::new(host, port).is_some_and(|target| decide(bypass, &target).is_ok())
        };
        decide(bypass, target).is_ok()
            || permits.iter().all(|permit| {
                let address = permit.address();
                named(Host::Ip(address.ip().to_canonical()), address.port())
            })
    }

    /// Is what the other carries carried as this one would carry it? Its login and its trust were looked at when it was asked.
    pub(super) fn is_the_way_of(&self, other: &Self) -> bool {
        let spoken = |speaks: &Speaks| match speaks {
            Speaks::Socks => (true, false),
            Speaks::Http(tls) => (false, tls.is_some()),
        };
        self.target == other.target
            && self.ask_for == other.ask_for
            && spoken(&self.speaks) == spoken(&other.speaks)
    }

    /// Ask for one of the judged addresses after another, until the proxy has one or says no.
    pub(super) async fn open(
        &self,
        egress: &Egress,
        target: &Target,
        permits: &[AddressPermit],
    ) -> Result<(Upstream, SocketAddr), DialError> {
        let mut last = failed("no address");
        for permit in permits {
            let asked = match self.ask_for {
                AskFor::Name => target.clone(),
                AskFor::Address => {
                    let address = permit.address();
                    let host = Host::Ip(address.ip());
                    Target::new(host, address.port()).ok_or_else(|| failed("port 0"))?
                }
            };
            match self.ask(egress, &asked).await {
                Ok(upstream) => return Ok((upstream, permit.address())),
                // Asked for the name, it has tried every address it knows.
                Err(error) if self.ask_for == AskFor::Name => return Err(error),
                Err(error) => match error.denial {
                    Denial::ConnectRefused | Denial::ConnectUnreachable => last = error,
                    _ => return Err(error),
                },
            }
        }
        Err(last)
    }

    async fn ask(&self, egress: &Egress, asked: &Target) -> Result<Upstream, DialError> {
        let permit = decide(&self.grant, &self.target).map_err(|refusal| {
            failed(&format!("may not be dialled: {}", refusal.denial.reason()))
        })?;
        let tcp = egress.dial(&self.grant, &permit).await;
        let tcp = tcp.map_err(|detail| failed(&detail))?;
        let login = self.login.as_ref();
        match &self.speaks {
            Speaks::Socks => ask::by_socks(Carrier::Tcp(tcp), asked, login).await,
            Speaks::Http(None) => ask::by_connect(Carrier::Tcp(tcp), asked, login).await,
            Speaks::Http(Some(config)) => {
                let tls = self.handshake(tcp, config.clone()).await?;
                ask::by_connect(tls, asked, login).await
            }
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<Carrier, DialError> {
        let name = match self.target.host() {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|error| failed(&error.to_string()))?,
        };
        let connecting = TlsConnector::from(config).connect(name, tcp);
        let tls = connecting
            .await
            .map_err(|error| failed(&error.to_string()))?;
        Ok(Carrier::Tls(Box::new(tls)))
    }
}

/// The proxy itself cannot be used.
fn failed(why: &str) -> DialError {
    DialError {
        denial: Denial::UpstreamProxyFailed,
        detail: format!("upstream proxy: {why}"),
    }
}
