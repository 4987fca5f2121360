//! One connection, whatever carries it.

use std::{str::FromStr, sync::Arc};

use rustls::ClientConfig;
use sluicegate_certs::{CertError, TrustBundle, tls};
use sluicegate_relay_protocol::{ALPN_H2, ALPN_RELAY, Handshake};
use tokio_util::task::TaskTracker;

use super::{ConnectError, Endpoint, OpenError, h2, life::Life, quic};
use crate::flow::Flow;

/// What carries streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// QUIC, a stream for a stream.
    Quic,
    /// HTTP/2: extended CONNECT, capsules.
    H2,
}

impl Transport {
    /// The word for it, in flags, events and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::H2 => "h2",
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// Which transports may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// Whichever answers; QUIC is preferred.
    #[default]
    Auto,
    /// This one, or none.
    Only(Transport),
}

/// Not the name of a transport.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a transport: auto, quic or h2")]
pub struct ChoiceError(String);

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Only(Transport::Quic)),
            "h2" => Ok(Self::Only(Transport::H2)),
            other => Err(ChoiceError(other.to_owned())),
        }
    }
}

/// The TLS configurations of a client, one per transport.
#[derive(Clone, Debug)]
pub struct Tls {
    h2: Arc<ClientConfig>,
    quic: Arc<ClientConfig>,
}

impl Tls {
    /// For gateways under `trust`.
    ///
    /// # Errors
    /// As `sluicegate_certs::tls::client`.
    pub fn new(trust: &TrustBundle) -> Result<Self, CertError> {
        Ok(Self {
            h2: tls::client(trust, &[ALPN_H2], None)?,
            quic: tls::quic_client(trust, &[ALPN_RELAY])?,
        })
    }
}

/// A connection to the gateway. Cheap to clone; clones open streams on the same connection.
#[derive(Clone, Debug)]
pub enum Connection {
    /// QUIC.
    Quic(quic::Connection),
    /// HTTP/2.
    H2(h2::Connection),
}

impl Connection {
    /// Connect. What the connection needs to live runs in `tasks` until it ends.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        transport: Transport,
        endpoint: &Endpoint,
        tls: &Tls,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        match transport {
            Transport::Quic => quic::Connection::connect(endpoint, &tls.quic, tasks)
                .await
                .map(Self::Quic),
            Transport::H2 => h2::Connection::connect(endpoint, &tls.h2, tasks)
                .await
                .map(Self::H2),
        }
    }

    /// Show the credential: the gateway's verdict on it. Every stream shows it again.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know it, or does not serve its session now.
    pub async fn prove(&self, token: &str) -> Result<(), OpenError> {
        match self {
            Self::Quic(connection) => connection.prove(token).await,
            Self::H2(connection) => connection.prove(token).await,
        }
    }

    /// Ask a path of the gateway's, by HTTP/2.
    ///
    /// # Errors
    /// See [`OpenError`]; on QUIC [`OpenError::NotCarried`].
    pub async fn get(&self, path: &str, token: &str) -> Result<(), OpenError> {
        match self {
            Self::Quic(_) => Err(OpenError::NotCarried(Transport::Quic)),
            Self::H2(connection) => connection.get(path, token).await,
        }
    }

    /// Open a stream.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, target: &Handshake, token: &str) -> Result<Box<dyn Flow>, OpenError> {
        let opened: Result<Box<dyn Flow>, OpenError> = match self {
            Self::Quic(connection) => match connection.open(target, token).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
            Self::H2(connection) => match connection.open(target, token).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
        };
        self.judged(opened)
    }

    /// Open an accept stream for a listener: answered only once there is a dial, however long that takes.
    ///
    /// # Errors
    /// See [`OpenError`]; on QUIC [`OpenError::NotCarried`].
    pub async fn accept(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Box<dyn Flow>, OpenError> {
        let opened: Result<Box<dyn Flow>, OpenError> = match self {
            Self::Quic(_) => Err(OpenError::NotCarried(Transport::Quic)),
            Self::H2(connection) => match connection.accept(target, token).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
        };
        self.judged(opened)
    }

    fn judged(&self, opened: Result<Box<dyn Flow>, OpenError>) -> Result<Box<dyn Flow>, OpenError> {
        match opened {
            // Told by its refusal before GOAWAY or "drain soon" came: nothing was opened.
            Err(OpenError::Refused(refused)) if refused.is_draining() => {
                self.life().retire("the gateway goes down");
                Err(OpenError::Retired)
            }
            opened => opened,
        }
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::H2(_) => Transport::H2,
        }
    }

    /// Completes when no new stream should be opened here any more; streams that are open may go on.
    pub async fn retired(&self) {
        self.life().retired().await;
    }

    /// Is it of no use for a new stream?
    pub fn is_retired(&self) -> bool {
        self.life().is_retired()
    }

    /// Take no new streams; those that are open go on.
    pub fn retire(&self, why: &str) {
        self.life().retire(why);
    }

    /// Did it fall silent, as opposed to being told to go?
    pub fn fell_silent(&self) -> bool {
        self.life().why() == quic::SILENT
    }

    /// Why it was retired.
    pub fn why_retired(&self) -> String {
        self.life().why()
    }

    fn life(&self) -> &Life {
        match self {
            Self::Quic(connection) => connection.life(),
            Self::H2(connection) => connection.life(),
        }
    }
}
