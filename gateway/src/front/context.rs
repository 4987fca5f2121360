//! What every front needs under one configuration, and which one is in force.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use sluicegate_certs::Channel;
use sluicegate_policy::{Denial, Refusal, Target};

use super::{Detail, Pool, captured::Identify, h2};
use crate::{
    auth::{Audience, Authenticator, Identity, Presented, proxy_credential, socks_credential},
    drain::DrainWatch,
    egress::{Egress, Ways},
    listen::Preface,
    message::{Asks, Manner, reject},
    secret::Secret,
    telemetry::{Recorder, Telemetry},
};

/// Shared by all that is asked for under one configuration.
#[derive(Debug)]
pub struct Context {
    /// Credentials to sessions.
    pub authenticator: Authenticator,
    /// The way out.
    pub egress: Arc<Egress>,
    /// The way out in force, for what outlives this.
    pub ways: Arc<Ways>,
    /// Idle upstream connections of absolute-form requests.
    pub pool: Arc<Pool>,
    /// Records and metrics.
    pub telemetry: Telemetry,
    /// How much a refusal tells.
    pub detail: Detail,
    /// This process's name in Via (RFC 9110 §7.6.3), random so that loops are seen.
    pub pseudonym: String,
    /// HTTP/2.
    pub h2: Arc<h2::Context>,
    /// Going down?
    pub drain: DrainWatch,
}

/// The context in force. Connections hold this, and ask anew for whatever is asked of them: each request, stream and tunnel is
/// served by the one of its moment.
#[derive(Debug)]
pub struct Current(ArcSwap<Context>);

impl Current {
    /// This one, until another takes its place.
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(context)))
    }

    /// The one in force.
    pub fn now(&self) -> Arc<Context> {
        self.0.load_full()
    }

    /// Another is in force; what is open has to be woken apart.
    pub fn replace(&self, context: Context) {
        // First what opens are judged by at their end: none that begins by the new one is held against the old.
        context.ways.replace(context.egress.clone());
        context.h2.relay.services.put_in_force();
        self.0.swap(Arc::new(context)).pool.close();
    }
}

impl Context {
    /// Who sends this classic proxy request? Recorded.
    ///
    /// # Errors
    /// The refusal: no credential, a bad one, a session that may not open anything now.
    pub fn identify_proxy<'a>(
        &self,
        fields: impl Iterator<Item = &'a [u8]>,
        channel: Option<&Channel>,
        recorder: &mut Recorder,
        source: std::net::IpAddr,
    ) -> Result<Identity, Refusal> {
        self.identify(|| proxy_credential(fields), channel, recorder, source)
    }

    /// Who presents this credential to the way out? Recorded. While we go down it is not looked at.
    ///
    /// # Errors
    /// As [`Context::identify_proxy`].
    pub fn identify(
        &self,
        credential: impl FnOnce() -> Result<Secret, Denial>,
        channel: Option<&Channel>,
        recorder: &mut Recorder,
        source: std::net::IpAddr,
    ) -> Result<Identity, Refusal> {
        if self.drain.refusing() {
            return Err(Denial::Draining.into());
        }
        let credential = credential()?;
        let now = SystemTime::now();
        let presented = Presented::on(&credential, channel);
        let identity = self
            .authenticator
            .identify(presented, Audience::Egress, source, now)?;
        let number = identity.stands_at(now)?;
        recorder.session(identity.session.label(), number);
        Ok(identity)
    }

    /// Whose captured connection is this?
    ///
    /// # Errors
    /// The refusal: nobody's, several sessions', or one's that may not open anything now.
    pub(super) fn identify_captured(
        &self,
        by: &Identify,
        preface: &Preface,
        source: std::net::IpAddr,
    ) -> Result<Identity, Refusal> {
        if self.drain.refusing() {
            return Err(Denial::Draining.into());
        }
        let now = SystemTime::now();
        let identity = match (by, preface) {
            (Identify::Source(namespaces), _) => self
                .authenticator
                .identify_source(source, namespaces, now)?,
            (Identify::Header, Preface::Header(header)) => {
                let given = header.credential.as_deref().unwrap_or_default();
                let credential = socks_credential(&[], given)?;
                self.authenticator
                    .identify(&credential, Audience::Egress, source, now)?
            }
            (Identify::Header, Preface::None | Preface::Malformed) => {
                return Err(Denial::CredentialMissing.into());
            }
        };
        identity.stands_at(now)?;
        Ok(identity)
    }

    /// The answer to a refusal, entered in the record; `asks` for a credential where one is missing.
    pub fn reject(
        &self,
        asks: Asks,
        refusal: &Refusal,
        target: Option<&Target>,
        recorder: &mut Recorder,
        html: bool,
    ) -> http::Response<bytes::Bytes> {
        let manner = Manner {
            detail: self.detail,
            asks,
            html,
        };
        let mut answer = reject(refusal, target, recorder, manner);
        if recorder.is_somebodys() {
            answer.extensions_mut().insert(Somebodys);
        }
        answer
    }
}

/// An extension of a refusal's answer: its request was a known session's.
#[derive(Clone, Copy, Debug)]
struct Somebodys;

/// Was what this refuses asked by a session that is known?
pub(super) fn is_somebodys(answer: &http::Response<bytes::Bytes>) -> bool {
    answer.extensions().get::<Somebodys>().is_some()
}
