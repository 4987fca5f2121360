//! A prober that never runs by itself, and one whose findings a test gives.

#![allow(clippy::expect_used)]
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use sluicegate_certs::{TrustBundle, tls};
use sluicegate_policy::{
    Ceiling, Denial, Grant, GrantDocument, OwnAddresses, ServiceName, Target, text::Faults,
};

use super::{Asked, Maker, Plan, Prober, Road, Way};
use crate::{
    egress::Resolver,
    relay::{Services, ServicesConfig},
    session::{Granted, HostService, Registry},
    telemetry::Telemetry,
};

fn empty_grant() -> Arc<Grant> {
    let mut faults = Faults::default();
    let grant = GrantDocument::default().compile(&Ceiling::default(), &mut faults);
    Arc::new(grant.expect("an empty grant compiles"))
}

/// A service of the catalogue.
pub(crate) fn service(name: &ServiceName) -> HostService {
    HostService {
        name: name.clone(),
        capability: None,
        provider: None,
    }
}

/// Sessions of these providers can be granted these services of the catalogue. Nothing that is asked of them is answered.
pub(crate) fn asked(providers: &[&str], names: &[ServiceName]) -> Asked {
    let granted = |name: &ServiceName| Granted {
        service: service(name),
        setting: format!("services.{name}"),
        called: format!("host service {name}"),
        grant: empty_grant(),
    };
    let all: BTreeSet<HostService> = names.iter().map(service).collect();
    let by_provider = providers
        .iter()
        .map(|name| ((*name).to_owned(), all.clone()));
    Asked {
        services: names.iter().map(granted).collect(),
        by_provider: BTreeMap::from_iter(by_provider),
    }
}

/// A plan for the provider `local` with these services and this public URL (`https`), that only runs when asked.
pub(crate) fn plan(public: Option<Target>, names: Vec<ServiceName>) -> Plan {
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
        maker: Maker::Own,
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
        grant: empty_grant(),
        name: None,
        asked: asked(&["local"], &names),
    }
}

/// A prober that knows nothing and never runs by itself.
pub(crate) fn idle(registry: &Arc<Registry>, telemetry: &Telemetry) -> Arc<Prober> {
    let target = Target::from_authority("gateway.test:443").expect("a target");
    let config = registry.config();
    let providers: Vec<&str> = config.providers.keys().map(String::as_str).collect();
    let plan = Plan {
        asked: asked(&providers, &[]),
        ..plan(Some(target), Vec::new())
    };
    Prober::new(registry.clone(), telemetry.clone(), Arc::default(), plan)
}
