//! What is to be run and how, and what may come of it.

use std::{ffi::OsString, io, net::SocketAddr, path::PathBuf};

use crate::{
    proxy::Notice,
    session::{Credential, Session},
};

/// How much of a network the command gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// Loopback, and the host services that were asked for.
    None,
    /// And the HTTP proxy.
    Proxy,
    /// And names, and every TCP connection is carried to the gateway.
    #[default]
    Transparent,
}

/// What is to be run, and how.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// Its network.
    pub network: Network,
    /// Host services, and where they are to be found inside.
    pub services: Vec<Service>,
    /// More variables.
    pub env: Vec<(String, String)>,
    /// The file system is read-only …
    pub read_only: bool,
    /// … but for this.
    pub writable: Vec<PathBuf>,
    /// Devices it gets to see, beside those that every program needs.
    pub devices: Vec<PathBuf>,
    /// Files and directories it does not get to see.
    pub hide: Vec<PathBuf>,
    /// No namespaces at all: the variables are a request, and nothing keeps the command from ignoring them.
    pub unconfined: bool,
    /// How many descriptors it may have, where that is less than this process has by now.
    pub descriptors: Option<u64>,
}

/// One host service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// A loopback address in the sandbox; `None` for a unix socket.
    pub address: Option<SocketAddr>,
}

/// How to the gateway.
#[derive(Clone, Debug)]
pub struct Ways {
    /// What carries streams to services, and the way out.
    pub session: Session,
    /// The egress credential; empty where the network is none.
    pub token: Credential,
    /// Who hears of requests to the proxy that no gateway does.
    pub notice: Notice,
}

/// What confines the command failed.
#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    /// A step of the set-up.
    #[error("{0}: {1}")]
    Step(&'static str, #[source] io::Error),
    /// A path that was named and is none: it does not exist, or is hidden.
    #[error("{0}: {1}")]
    Path(PathBuf, #[source] io::Error),
    /// A listener outside, for a command that is not confined.
    #[error(transparent)]
    Listen(#[from] crate::listen::ListenError),
}

pub(super) fn step(what: &'static str) -> impl FnOnce(io::Error) -> IsolateError {
    move |error| IsolateError::Step(what, error)
}
