//! Where a connection's requests go, and whose they are.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use sluicegate_policy::{Refusal, Target};

use crate::{auth::Identity, front::pool::Adopted, session::Requests, telemetry::Front};

/// Where a connection's requests go.
#[derive(Clone, Debug)]
pub(in crate::front) enum Scope {
    /// Wherever each request says, in absolute-form.
    Proxy,
    /// To the target of the CONNECT this connection came out of, in origin form. The tunnel's place is the connection's.
    Inside {
        /// The CONNECT's target.
        target: Target,
        /// Who opened it.
        identity: Identity,
        /// What was dialled for it.
        adopted: Adopted,
        /// Those there were in it.
        requests: Arc<Requests>,
    },
    /// To the Host of each, on the port the connection was meant for: its client knows of no proxy.
    Captured {
        /// Whose connection it is, or what every request is answered with.
        login: Result<Identity, Refusal>,
        /// The port.
        port: u16,
        /// The address it was meant for, where one is known.
        literal: Option<IpAddr>,
        /// For records.
        front: Front,
    },
}

impl Scope {
    /// Whose its requests are, where that is known before they are read.
    pub(in crate::front) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Proxy => None,
            Self::Inside { identity, .. } => Some(identity),
            Self::Captured { login, .. } => login.as_ref().ok(),
        }
    }

    /// Where all its requests go, where that is known before they are read.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Inside { target, .. } => Some(target),
            Self::Proxy | Self::Captured { .. } => None,
        }
    }

    /// A refusal before its session is asked for: where it is known, it counts.
    pub(in crate::front) fn refused(&self, refusal: Refusal) -> Refusal {
        match self.identity() {
            Some(identity) => identity.session.refused(refusal, SystemTime::now()),
            None => refusal,
        }
    }

    /// How its requests come in, for records.
    pub(in crate::front) fn front(&self) -> Front {
        match self {
            Self::Proxy | Self::Inside { .. } => Front::forward,
            Self::Captured { front, .. } => *front,
        }
    }
}
