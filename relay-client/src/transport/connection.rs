//! One connection, whatever carries it.

use std::{net::IpAddr, str::FromStr, sync::Arc};

use bytes::Bytes;
use rustls::ClientConfig;
use sluicegate_certs::{CertError, ClientKey, TrustBundle, tls};
use sluicegate_relay_protocol::{ALPN_H2, ALPN_HTTP1, ALPN_RELAY, Handshake, Instance, name_path};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    ConnectError, Endpoint, OpenError, h1, h2, hearing,
    life::Life,
    places::Places,
    quic, tuning,
    windows::{LARGE_STREAM, LARGE_STREAMS, STREAM, STREAMS},
};
use crate::{
    flow::{Early, Flow, Load},
    session::bound_to,
};

/// What carries streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// QUIC, a stream for a stream.
    Quic,
    /// HTTP/2: extended CONNECT, capsules.
    H2,
    /// HTTP/1.1: an upgraded connection for each stream, capsules.
    H1,
}

impl Transport {
    /// The word for it, in flags, events and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::H2 => "h2",
            Self::H1 => "h1",
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
    /// Whichever answers; QUIC is preferred, HTTP/1.1 the last resort.
    #[default]
    Auto,
    /// This one, or none.
    Only(Transport),
}

/// Not the name of a transport.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a transport: auto, quic, h2 or h1")]
pub struct ChoiceError(String);

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Only(Transport::Quic)),
            "h2" => Ok(Self::Only(Transport::H2)),
            "h1" => Ok(Self::Only(Transport::H1)),
            other => Err(ChoiceError(other.to_owned())),
        }
    }
}

/// The TLS configurations of a client, one per transport, and its own key.
#[derive(Clone, Debug)]
pub struct Tls {
    h2: Arc<ClientConfig>,
    h1: Arc<ClientConfig>,
    quic: Arc<ClientConfig>,
    key: Option<Arc<ClientKey>>,
}

impl Tls {
    /// For gateways under `trust`.
    ///
    /// # Errors
    /// As `sluicegate_certs::tls::client`.
    pub fn new(trust: &TrustBundle) -> Result<Self, CertError> {
        Ok(Self {
            h2: tls::client(trust, &[ALPN_H2], None)?,
            h1: tls::client(trust, &[ALPN_HTTP1], None)?,
            quic: tls::quic_client(trust, &[ALPN_RELAY])?,
            key: None,
        })
    }

    /// Prove with this key what credentials are bound to it.
    #[must_use]
    pub fn with_key(self, key: ClientKey) -> Self {
        let key = Some(Arc::new(key));
        Self { key, ..self }
    }

    /// What to change where the gateway refuses this token and the token says that it is bound to a key: the gateway itself tells
    /// nobody that a key was what was missing.
    pub fn advice(&self, token: &str) -> Option<String> {
        let wanted = bound_to(token)?;
        Some(match &self.key {
            None => format!("the token is bound to the key {wanted}: pass that key with --key"),
            Some(key) if key.thumbprint().to_string() != wanted => format!(
                "the token is bound to the key {wanted}, and --key holds {}",
                key.thumbprint()
            ),
            Some(_) => "if the token is good, its key cannot be proved on this connection: TLS 1.3 has to reach the gateway \
                        untouched"
                .to_owned(),
        })
    }
}

/// A connection to the gateway. Cheap to clone; clones open streams on the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    by: By,
    places: Places,
    /// Bytes that a stream may have unread where that does not change.
    window: u32,
    load: Load,
}

/// By what.
#[derive(Clone, Debug)]
enum By {
    Quic(quic::Connection),
    H2(h2::Connection),
    H1(h1::Connection),
}

impl Connection {
    /// Connect. What the connection needs to live runs in `tasks` until it ends. On QUIC its windows are for few and fast streams.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(
        transport: Transport,
        endpoint: &Endpoint,
        tls: &Tls,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let quic = (tuning::first_client(), LARGE_STREAM, LARGE_STREAMS);
        Self::made(transport, endpoint, tls, tasks, quic).await
    }

    /// Connect once more, for more streams than the first connection has places: on QUIC there are more of them here, and smaller windows.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect_further(
        transport: Transport,
        endpoint: &Endpoint,
        tls: &Tls,
        tasks: &TaskTracker,
    ) -> Result<Self, ConnectError> {
        let quic = (tuning::client(), STREAM, STREAMS);
        Self::made(transport, endpoint, tls, tasks, quic).await
    }

    /// What is QUIC's: its windows, that of each stream, and how many streams go with them.
    async fn made(
        transport: Transport,
        endpoint: &Endpoint,
        tls: &Tls,
        tasks: &TaskTracker,
        (tuned, window, streams): (tuning::Client, u32, usize),
    ) -> Result<Self, ConnectError> {
        let by = match transport {
            Transport::Quic => quic::Connection::connect(endpoint, &tls.quic, tasks, tuned)
                .await
                .map(|connection| By::Quic(connection.with_key(tls.key.clone()))),
            Transport::H2 => h2::Connection::connect(endpoint, &tls.h2, tasks)
                .await
                .map(|connection| By::H2(connection.with_key(tls.key.clone()))),
            Transport::H1 => {
                let key = tls.key.clone();
                let connected = h1::Connection::connect(endpoint, &tls.h1, key, tasks);
                connected.await.map(By::H1)
            }
        }?;
        let places = match &by {
            By::H2(connection) => Places::within(connection.most_streams()),
            By::Quic(_) => Places::of(streams),
            By::H1(_) => Places::default(),
        };
        Ok(Self {
            by,
            places,
            window,
            load: Load::default(),
        })
    }

    /// A place for one more stream, to be held while it lives; `None` where there is none.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.stream()
    }

    /// A place for one more accept stream, of those that other streams do not take.
    pub fn offer_place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.offer()
    }

    /// Bytes that one stream may have in flight to here and unread, now; `None` where each has a connection of its own, and TCP's window.
    pub fn stream_window(&self) -> Option<u32> {
        match &self.by {
            By::Quic(_) => Some(self.window),
            By::H2(connection) => Some(connection.window()),
            By::H1(_) => None,
        }
    }

    /// How many places for streams are free.
    pub fn free(&self) -> usize {
        self.places.free()
    }

    /// What streams that are opened here are part of.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// Bytes that its streams have carried in the last one to two seconds, both ways; 0 where each has a connection of its own.
    pub fn carries(&self, now: Instant) -> u64 {
        match &self.by {
            By::Quic(_) | By::H2(_) => self.load.at(now),
            By::H1(_) => 0,
        }
    }

    /// Are these clones of one connection?
    pub fn is(&self, other: &Self) -> bool {
        self.places.are(&other.places)
    }

    /// Does no stream hold a place, and has none since this was asked before?
    pub fn has_rested(&self) -> bool {
        self.places.has_rested()
    }

    /// Show the credential: the gateway's verdict on it. Every stream shows it again.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where the gateway does not know it, or does not serve its session now.
    pub async fn prove(&self, token: &str) -> Result<(), OpenError> {
        match &self.by {
            By::Quic(connection) => connection.prove(token).await,
            By::H2(connection) => connection.prove(token).await,
            By::H1(connection) => connection.prove(token).await,
        }
    }

    /// A fresh token for this one: the gateway's JSON.
    ///
    /// # Errors
    /// [`OpenError::Refused`] where it gives none.
    pub async fn refresh(&self, token: &str) -> Result<Bytes, OpenError> {
        match &self.by {
            By::Quic(connection) => connection.refresh(token).await,
            By::H2(connection) => connection.refresh(token).await,
            By::H1(connection) => connection.refresh(token).await,
        }
    }

    /// May the session whose egress credential this is reach `name`, on any port?
    ///
    /// # Errors
    /// [`OpenError::Refused`] where it may not.
    pub async fn may_reach(&self, name: &str, token: &str) -> Result<(), OpenError> {
        match &self.by {
            By::Quic(connection) => connection.may_reach(name, token).await,
            By::H2(connection) => connection.get(&name_path(name), token).await,
            By::H1(connection) => connection.get(&name_path(name), token).await,
        }
    }

    /// Open a stream. What goes ahead of the answer is `early`'s.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        target: &Handshake,
        token: &str,
        early: &mut Early<'_>,
    ) -> Result<Box<dyn Flow>, OpenError> {
        let opened: Result<Box<dyn Flow>, OpenError> = match &self.by {
            By::Quic(connection) => match connection.open(target, token, early).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
            By::H2(connection) => match connection.open(target, token, early).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
            By::H1(connection) => connection.open(target, token, early).await,
        };
        if matches!(opened, Err(OpenError::Refused(_))) {
            // What is refused has reached nobody.
            early.unseen();
        }
        self.judged(opened)
    }

    /// Open an accept stream for a listener: answered only once there is a dial, however long that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn accept(
        &self,
        target: &Handshake,
        token: &str,
    ) -> Result<Box<dyn Flow>, OpenError> {
        let opened: Result<Box<dyn Flow>, OpenError> = match &self.by {
            By::Quic(connection) => match connection.accept(target, token).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
            By::H2(connection) => match connection.accept(target, token).await {
                Ok(flow) => Ok(Box::new(flow)),
                Err(error) => Err(error),
            },
            By::H1(connection) => connection.accept(target, token).await,
        };
        self.judged(opened)
    }

    fn judged(&self, opened: Result<Box<dyn Flow>, OpenError>) -> Result<Box<dyn Flow>, OpenError> {
        match opened {
            // Told by its refusal before GOAWAY or "drain soon" came: nothing was opened.
            Err(OpenError::Refused(refused)) if refused.is_draining() => {
                self.life().leave();
                Err(OpenError::Retired)
            }
            opened => opened,
        }
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        match &self.by {
            By::Quic(_) => Transport::Quic,
            By::H2(_) => Transport::H2,
            By::H1(_) => Transport::H1,
        }
    }

    /// The address of the gateway at the other end, where there is one connection that has it.
    pub fn peer(&self) -> Option<IpAddr> {
        match &self.by {
            By::Quic(connection) => Some(connection.peer()),
            By::H2(connection) => connection.peer(),
            By::H1(_) => None,
        }
    }

    /// The process at the other end, where all streams go to one and it remembers which opens it has taken.
    pub fn instance(&self) -> Option<Instance> {
        match &self.by {
            By::Quic(connection) => connection.instance(),
            By::H2(connection) => connection.instance(),
            By::H1(_) => None,
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

    /// Take no new streams: the gateway has said that it goes down.
    pub fn leave(&self) {
        self.life().leave();
    }

    /// Was it retired because the gateway said so?
    pub fn goes_down(&self) -> bool {
        self.life().goes_down()
    }

    /// Did it fall silent, as opposed to being told to go?
    pub fn fell_silent(&self) -> bool {
        self.life().why() == hearing::SILENT
    }

    /// Why it was retired.
    pub fn why_retired(&self) -> String {
        self.life().why()
    }

    fn life(&self) -> &Life {
        match &self.by {
            By::Quic(connection) => connection.life(),
            By::H2(connection) => connection.life(),
            By::H1(connection) => connection.life(),
        }
    }
}
