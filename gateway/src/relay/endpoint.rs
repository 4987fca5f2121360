//! A relay stream, whatever carries it: from its credential to its end.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, header};
use sluicegate_certs::Channel;
use sluicegate_policy::{CallsPermit, Denial, Refusal, ServiceName, StreamPermit};
use sluicegate_relay::flow::Flow;

use super::{HttpContext, Opens, Pool, Presence, Reverse, Services, Ticket, grpc, stream};
use crate::{
    auth::{Audience, Authenticator, Identity, Presented, bearer},
    http2::Limits,
    lost::Lost,
    secret::Secret,
    session::Pending,
    telemetry::{Recorder, WaitingGuard},
};

/// A stream whose request may be answered.
#[derive(Debug)]
pub enum Open {
    /// Its service is open, for any bytes.
    Bytes {
        /// The service's end; closed before its place is free.
        upstream: Box<dyn Flow>,
        /// The right to it.
        ticket: Box<Ticket>,
    },
    /// Calls may come on it.
    Calls(Box<Ticket<CallsPermit>>),
}

impl Open {
    /// Completes when it may not be open any more. Until it is carried nothing else watches that; whoever carries it sees each change again.
    pub async fn revoked(&mut self) -> Lost {
        match self {
            Self::Bytes { ticket, .. } => ticket.revoked().await,
            Self::Calls(ticket) => ticket.revoked().await,
        }
    }
}

/// Who may come in, and where it goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Who is asking.
    pub authenticator: Authenticator,
    /// Opens services.
    pub services: Services,
    /// Connections to gRPC services.
    pub pool: Pool,
    /// Sandboxes that came through.
    pub presence: Arc<Presence>,
    /// Which streams have been opened already.
    pub opens: Arc<Opens>,
    /// Where offered listeners and dials meet.
    pub reverse: Reverse,
    /// For services that are HTTP-aware.
    pub http: HttpContext,
    /// Bounds of HTTP/2 on streams that carry calls, but for how many.
    pub limits: Limits,
}

impl Endpoint {
    /// Decide for one stream to the service of this name (as sent, percent-decoded), by the credential presented. Every
    /// stream is decided anew, on the live session.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn admit(
        &self,
        presented: Presented<'_>,
        service: &str,
        downstream: SocketAddr,
        recorder: &mut Recorder,
    ) -> Result<Ticket<StreamPermit>, Refusal> {
        let now = SystemTime::now();
        let identity =
            self.authenticator
                .identify(presented, Audience::Relay, downstream.ip(), now)?;
        // A name that cannot exist is a name the session does not have: no more is said about names.
        let name = ServiceName::parse(service).map_err(|_| {
            let session = &identity.session;
            session.refused(Denial::ServiceNotAllowed.into(), now)
        })?;
        Ticket::stream(identity, name, recorder)
    }

    /// A stream was opened that came over TLS or QUIC of ours, as sandboxes come by the public URL: it shows that there is a
    /// way in, while it lasts.
    pub fn came(&self, open: &mut Open, downstream: SocketAddr) {
        let own = self.services.own_interfaces();
        let present = self.presence.came(downstream.ip(), &own);
        match open {
            Open::Bytes { ticket, .. } => ticket.present = present,
            Open::Calls(ticket) => ticket.present = present,
        }
    }

    /// Would this credential open streams now, on a connection that is `carried` within its session's limits? For clients that ask
    /// before they say that they are connected.
    ///
    /// # Errors
    /// The refusal that streams would be answered with.
    pub fn prove(
        &self,
        presented: Presented<'_>,
        downstream: SocketAddr,
        carried: impl FnOnce(&Identity) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let now = SystemTime::now();
        let identity =
            self.authenticator
                .identify(presented, Audience::Relay, downstream.ip(), now)?;
        identity.stands()?;
        carried(&identity)
    }

    /// As [`Endpoint::prove`], by the credential in `Authorization`.
    ///
    /// # Errors
    /// As [`Endpoint::prove`].
    pub fn prove_by(
        &self,
        headers: &HeaderMap,
        channel: Option<&Channel>,
        downstream: SocketAddr,
        carried: impl FnOnce(&Identity) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let shown = presented(headers)?;
        self.prove(Presented::on(&shown, channel), downstream, carried)
    }

    /// The dial of a stream that was admitted begins; what is given lives until it has ended.
    ///
    /// # Errors
    /// The session has enough of them under way.
    pub fn dial<P>(&self, ticket: &Ticket<P>) -> Result<(Pending, WaitingGuard), Refusal> {
        let budget = ticket.identity.session.budget();
        let dial = budget.dial(self.http.timeouts.pending_opens)?;
        Ok((dial, self.http.telemetry.metrics().pending()))
    }

    /// Open the service. The right to it may end meanwhile. For calls nothing is opened before there is one.
    ///
    /// # Errors
    /// The refusal to answer with; what only the operator may see is in the record.
    pub async fn open(
        &self,
        ticket: Ticket<StreamPermit>,
        recorder: &mut Recorder,
    ) -> Result<Open, Refusal> {
        let (permit, ticket) = ticket.with(());
        let ticket = match permit {
            StreamPermit::Bytes(permit) => Box::new(ticket.with(*permit).1),
            StreamPermit::Calls(permit) => {
                return Ok(Open::Calls(Box::new(ticket.with(permit).1)));
            }
        };
        let speaker = recorder.speaker();
        let opened = tokio::select! {
            opened = self.services.open(&ticket.permit, Some(&speaker)) => opened,
            lost = ticket.revoked() => return Err(lost.told(recorder).into()),
        };
        match opened {
            Ok((upstream, address)) => {
                address
                    .into_iter()
                    .for_each(|address| recorder.address(address));
                recorder.opened();
                Ok(Open::Bytes { ticket, upstream })
            }
            Err(failure) => {
                recorder.detail(&failure.detail);
                Err(failure.denial.into())
            }
        }
    }

    /// Carry it until both ends are done or the right to it ends; what is left is reset. A service with `http` is spoken to
    /// request by request, and one whose methods are bounded call by call, whatever carries the stream: there is no other way
    /// to it.
    ///
    /// `downstream` and `open` are taken only where they must be: idle streams are many, and what is handed over is held twice.
    #[allow(
        clippy::manual_async_fn,
        reason = "an async fn would hold twice what it is given"
    )]
    pub fn carry<F: Flow + 'static>(
        &self,
        downstream: &mut Option<F>,
        open: &mut Option<Open>,
        recorder: &mut Recorder,
    ) -> impl Future<Output = ()> {
        async move {
            if let Some(spoken) = self.spoken(downstream, open, recorder) {
                return spoken.await;
            }
            if let (Some(downstream), Some(Open::Bytes { ticket, upstream })) = (downstream, open)
                && ticket.permit.service().http.is_none()
            {
                let idle = self.services.idle_timeout();
                stream::carry(downstream, &mut **upstream, ticket, idle, recorder).await;
            }
        }
    }

    /// It is spoken to call by call or request by request, apart: that takes several times as much room as to carry bytes. `None`, and
    /// all is left where it is: bytes are what it carries.
    fn spoken<'c, F: Flow + 'static>(
        &'c self,
        downstream: &mut Option<F>,
        open: &mut Option<Open>,
        recorder: &'c mut Recorder,
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'c>>> {
        if let Some(Open::Bytes { ticket, .. }) = open
            && ticket.permit.service().http.is_none()
        {
            return None;
        }
        let downstream = downstream.take()?;
        Some(match open.take()? {
            Open::Calls(ticket) => Box::pin(grpc::carry(self, downstream, *ticket, recorder)),
            Open::Bytes { ticket, upstream } => {
                let carried = super::http::carry(self, downstream, upstream, ticket, recorder);
                Box::pin(carried)
            }
        })
    }
}

fn presented(headers: &HeaderMap) -> Result<Secret, Denial> {
    bearer(
        headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .map(HeaderValue::as_bytes),
    )
}

#[cfg(test)]
mod tests {
    use sluicegate_relay::flow::CapsuleFlow;

    use super::{Endpoint, Open, Recorder};

    type Carry<'a, F> =
        fn(&'a Endpoint, &'a mut Option<CapsuleFlow>, &'a mut Option<Open>, &'a mut Recorder) -> F;

    fn size<F: Future>(_: Carry<'_, F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_stream_holds_little() {
        let size = size(Endpoint::carry::<CapsuleFlow>);
        assert!(size <= 712, "{size}");
    }
}
