//! Dial targets by TLS name, on a private listener: the client's certificate says that it is a host, the name which
//! listener of which session it wants.

use sluicegate_policy::Denial;
use sluicegate_relay::flow::{Flow, TlsFlow};

use super::{Dial, Reverse, caller};
use crate::{
    listen::{Accepted, Carrying, Downstream},
    session::Registry,
    telemetry::{Front, Kind},
};

impl Reverse {
    /// Take a connection whose client has shown a certificate; that it is joined with what its name means is left to be
    /// awaited. `None`: the name is nobody's, and the connection is reset.
    pub fn private(&self, accepted: Accepted, registry: &Registry) -> Option<Carrying> {
        // Without TLS nobody has shown anything.
        let Downstream::Tls(stream) = accepted.stream else {
            return None;
        };
        let caller = caller(accepted.peer);
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let mut flow: Box<dyn Flow> = Box::new(TlsFlow::new(*stream));
        let found = name
            .as_deref()
            .and_then(|name| registry.dials().named(name));
        let Some((session, listener)) = found else {
            let mut recorder = self
                .telemetry()
                .begin(Kind::stream, Front::listener, caller);
            recorder.target(name.as_deref().unwrap_or("no name"));
            recorder.refused(&Denial::ListenerNotAllowed.into());
            flow.reset();
            return None;
        };
        let dial = Dial::begin(self, session, listener, flow, caller);
        Some(Box::pin(dial.run()))
    }
}
