//! Which host services sessions of a provider can be granted, as far as the configuration says it. What a session brings
//! with an address of its own is that session's, and known only then.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use sluicegate_policy::{
    Author, Ceiling, Grant, GrantDocument, Health, Service, ServiceDocument, ServiceName,
    ServiceUrl, text::Faults,
};

use super::compile;
use crate::session::{Binding, ProviderConfig, RegistryConfig};

/// A host service as it is written in one place. Shown as `NAME`, or `NAME@CAPABILITY` where a capability has one of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostService {
    /// What sessions call it.
    pub name: ServiceName,
    /// The capability that brings it; absent where a session has it by its name alone.
    pub capability: Option<Box<str>>,
    /// The provider whose sessions alone have it so; absent where it is the same for all of them.
    pub provider: Option<Box<str>>,
}

impl fmt::Display for HostService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.capability {
            Some(capability) => write!(f, "{}@{capability}", self.name),
            None => write!(f, "{}", self.name),
        }
    }
}

/// A host service that sessions of a provider can be granted.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Which one.
    pub service: HostService,
    /// Where it is written, e.g. `services.cache`.
    pub setting: String,
    /// Its name in a sentence.
    pub called: String,
    /// It, and nothing else: no session has this grant.
    pub grant: Arc<Grant>,
}

impl Granted {
    /// It, compiled.
    pub fn compiled(&self) -> Option<&Service> {
        self.grant.service(&self.service.name)
    }
}

impl RegistryConfig {
    /// The host services that sessions of this provider can be granted by the configuration: those of its own, the
    /// catalogue's, and those of each capability, within its ceiling. One whose health is not asked for is not told, nor is
    /// one that is twice the same. None where no session can be made of it.
    pub fn services_of(&self, provider: &str) -> Vec<Granted> {
        let Some(settings) = self.providers.get(provider) else {
            return Vec::new();
        };
        let Some(own) = self.with_capabilities(provider, &[]) else {
            return Vec::new();
        };
        let of = Of {
            config: self,
            provider,
            settings,
        };
        let mut found: Vec<Granted> = Vec::new();
        for (name, service) in &own {
            let written = settings.defaults.services.get(name);
            // Only named there: it is the catalogue's.
            let shared = written.is_some_and(|written| written.url.is_none())
                && self.catalogue.get(name) == Some(service);
            found.extend(if shared {
                of.shared(name, service)
            } else {
                of.own(name, service)
            });
        }
        for (name, service) in &self.catalogue {
            if !own.contains_key(name) {
                found.extend(of.shared(name, service));
            }
        }
        for capability in self.capabilities.keys() {
            for (name, service) in self.brought(provider, capability) {
                let below = own.get(&name).or_else(|| self.catalogue.get(&name));
                if below != Some(&service) {
                    found.extend(of.brought(&name, &service, capability));
                }
            }
        }
        found
    }

    /// The services of a capability as a session of the provider has them: of one that cannot be bound whole, those that
    /// can be taken alone.
    fn brought(&self, provider: &str, name: &str) -> BTreeMap<ServiceName, ServiceDocument> {
        let Some(capability) = self.capabilities.get(name) else {
            return BTreeMap::new();
        };
        let services = &capability.grant.services;
        if services.is_empty() {
            return BTreeMap::new();
        }
        let taken = |narrowed: &GrantDocument| Binding {
            name: name.to_owned(),
            enabled: true,
            narrowed: narrowed.to_json(),
            no_services: false,
            installed_at: SystemTime::UNIX_EPOCH,
        };
        let mut all = match self.with_capabilities(provider, &[taken(&GrantDocument::default())]) {
            Some(merged) => merged,
            None => {
                let one = |service: &ServiceName| {
                    let one = alone(service, ServiceDocument::default());
                    let mut merged = self.with_capabilities(provider, &[taken(&one)])?;
                    merged.remove_entry(service)
                };
                services.keys().filter_map(one).collect()
            }
        };
        all.retain(|service, _| services.contains_key(service));
        all
    }

    /// The services of a session that asks for these capabilities and no more; `None` where it cannot be made.
    fn with_capabilities(
        &self,
        provider: &str,
        capabilities: &[Binding],
    ) -> Option<BTreeMap<ServiceName, ServiceDocument>> {
        let asked = (&GrantDocument::default(), Author::Operator);
        let made = compile::grant(self, provider, capabilities, asked);
        made.ok().map(|(merged, _)| merged.services)
    }
}

/// Whose sessions they would be.
struct Of<'a> {
    config: &'a RegistryConfig,
    provider: &'a str,
    settings: &'a ProviderConfig,
}

impl Of<'_> {
    fn shared(&self, name: &ServiceName, service: &ServiceDocument) -> Option<Granted> {
        self.granted(name, service, None, false)
    }

    fn own(&self, name: &ServiceName, service: &ServiceDocument) -> Option<Granted> {
        self.granted(name, service, None, true)
    }

    fn brought(
        &self,
        name: &ServiceName,
        service: &ServiceDocument,
        capability: &str,
    ) -> Option<Granted> {
        // One that is not whole by itself is laid over what the provider says of it.
        let bundles = self.config.capabilities.get(capability);
        let written = bundles.and_then(|bundle| bundle.grant.services.get(name));
        let laid = written.is_none_or(|written| written.url.is_none())
            && self.settings.defaults.services.contains_key(name);
        self.granted(name, service, Some(capability), laid)
    }

    /// `None` where it is outside the provider's ceiling, is the gateway itself, or is not asked for its health.
    fn granted(
        &self,
        name: &ServiceName,
        service: &ServiceDocument,
        capability: Option<&str>,
        own: bool,
    ) -> Option<Granted> {
        let url = service.url.as_ref()?;
        if compile::is_own(self.config, url) || service.health == Some(Health::None) {
            return None;
        }
        // Of the ceiling nothing but its sockets bounds what the operator's own configuration names.
        let (ceiling, bounded) = match url {
            ServiceUrl::Unix(_) => (
                self.settings.ceiling.of_sockets(),
                self.settings.ceiling.bounds_sockets(),
            ),
            ServiceUrl::Tcp(..) | ServiceUrl::Tls { .. } => (Ceiling::default(), false),
        };
        let document = alone(name, service.clone());
        let grant = document.compile(&ceiling, &mut Faults::default())?;
        let provider = self.provider;
        let (setting, called) = match (capability, own) {
            (Some(capability), _) => (
                format!("capabilities.{capability}.services.{name}"),
                format!("host service {name} of capability {capability}"),
            ),
            (None, true) => (
                format!("runtime.providers.{provider}.services.{name}"),
                format!("host service {name} of provider {provider}"),
            ),
            (None, false) => (format!("services.{name}"), format!("host service {name}")),
        };
        Some(Granted {
            service: HostService {
                name: name.clone(),
                capability: capability.map(Into::into),
                provider: (own || bounded).then(|| provider.into()),
            },
            setting,
            called,
            grant: Arc::new(grant),
        })
    }
}

fn alone(name: &ServiceName, service: ServiceDocument) -> GrantDocument {
    GrantDocument {
        services: BTreeMap::from([(name.clone(), service)]),
        ..GrantDocument::default()
    }
}

#[cfg(test)]
mod tests;
