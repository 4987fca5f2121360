//! Which addresses are the gateway's own.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use super::Interfaces;
use crate::address::canonical;

/// The gateway's own addresses: listeners are never a target; interface addresses need an exception.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Addresses listened on (an unspecified IP stands for every local one).
    pub listeners: Vec<SocketAddr>,
    /// Addresses of this host's interfaces.
    pub interfaces: Interfaces,
    /// Where hosts dial what sandboxes expose.
    pub dials: DialPorts,
}

/// Ports of 127.0.0.1 on which hosts dial what sandboxes expose. They come and go with sessions, so that whoever judges by
/// these addresses holds the set itself, and never a copy that a later session is missing from.
#[derive(Clone, Debug, Default)]
pub struct DialPorts(Arc<RwLock<BTreeSet<u16>>>);

impl DialPorts {
    /// Listened on from now on.
    pub fn add(&self, port: u16) {
        let mut ports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ports.insert(port);
    }

    /// Not any more.
    pub fn remove(&self, port: u16) {
        let mut ports = self.0.write().unwrap_or_else(PoisonError::into_inner);
        ports.remove(&port);
    }

    fn contains(&self, port: u16) -> bool {
        let ports = self.0.read().unwrap_or_else(PoisonError::into_inner);
        ports.contains(&port)
    }
}

impl OwnAddresses {
    /// Would a connection to `address` reach one of our listeners?
    #[must_use]
    pub fn listens_on(&self, address: IpAddr, port: u16) -> bool {
        let address = canonical(address);
        let mut on_port = self.listeners.iter().filter(|one| one.port() == port);
        let listens = on_port.any(|listener| {
            let bound = canonical(listener.ip());
            let reached = if bound.is_unspecified() {
                self.is_local(address)
            } else {
                bound == address
            };
            // Linux takes the unspecified address as a destination for loopback.
            let loopback =
                address.is_unspecified() && (bound.is_loopback() || bound.is_unspecified());
            reached || loopback
        });
        let loopback = address == Ipv4Addr::LOCALHOST || address.is_unspecified();
        listens || (loopback && self.dials.contains(port))
    }

    /// The same on a host that has this address, whatever its interfaces say: a route or a connection to it has shown that it has.
    #[must_use]
    pub fn with(&self, address: IpAddr) -> Self {
        Self {
            interfaces: vec![address].into(),
            ..self.clone()
        }
    }

    fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || address.is_unspecified() || self.is_interface(address)
    }

    pub(super) fn is_interface(&self, address: IpAddr) -> bool {
        self.interfaces.contains(address)
    }
}
