//! A prober that never runs by itself, and one whose findings a test gives.

#![allow(clippy::expect_used)]
use std::{net::SocketAddr, sync::Arc};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{
    Ceiling, Denial, Grant, GrantDocument, OwnAddresses, ServiceName, Target, text::Faults,
};

use super::{Maker, Plan, Prober, Road, Way};
use crate::{
    egress::Resolver,
    relay::{Services, ServicesConfig},
    session::Registry,
    telemetry::Telemetry,
};

fn empty_grant() -> Arc<Grant> {
    let mut faults = Faults::default();
    let grant = GrantDocument::default().compile(&Ceiling::default(), &mut faults);
    Arc::new(grant.expect("an empty grant compiles"))
}

/// A plan with these services and this public URL (`https`), that only runs when asked.
pub(crate) fn plan(public: Option<Target>, asked: Vec<ServiceName>) -> Plan {
    let tls = tls::client(&TrustBundle::empty(), &[], None).expect("a TLS configuration");
    let services = Services::new(ServicesConfig {
        connect_timeout: std::time::Duration::from_secs(1),
        own: Arc::new(OwnAddresses::default()),
        resolve: Arc::new(|_| Box::pin(async { Err(Denial::DnsFailed) })),
        tls: tls.clone(),
        tls_h2: tls.clone(),
        idle_timeout: None,
    });
    let timeout = std::time::Duration::from_secs(1);
    let resolver = Resolver::new(&Default::default()).expect("a resolver");
    let way = |target| Way {
        road: Road {
            target,
            tls: true,
            resolve: Vec::new(),
            h2: tls.clone(),
            h1: tls.clone(),
            quic: None,
            certificate_setting: "tls.names",
        },
        timeout,
        resolver: resolver.clone(),
        own_canary: SocketAddr::from(([127, 0, 0, 1], 1)),
        canary: None,
    };
    Plan {
        from: Maker::Own,
        interval: None,
        timeout,
        way: public.map(way).map(Arc::new),
        ca_pem: None,
        resolver: resolver.clone(),
        services,
        catalogue: empty_grant(),
        grant: empty_grant(),
        name: None,
        asked,
    }
}

/// A prober that knows nothing and never runs by itself.
pub(crate) fn idle(registry: &Arc<Registry>, telemetry: &Telemetry) -> Arc<Prober> {
    let target = Target::from_authority("gateway.test:443").expect("a target");
    Prober::new(
        registry.clone(),
        telemetry.clone(),
        Arc::default(),
        plan(Some(target), Vec::new()),
    )
}
