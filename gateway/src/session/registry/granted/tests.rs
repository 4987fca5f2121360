#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::Granted;
use crate::session::{
    Capability, ProviderConfig, RegistryConfig,
    testing::{ceiling, config, request},
};

/// The catalogue, two providers and three capabilities.
fn of_two() -> RegistryConfig {
    let document = |source: &str| request(source).grant.document;
    let mut config = config();
    let local = config.providers.remove("local").unwrap();
    let a = "{services: {own: 'tcp://127.0.0.1:3', db: 'tcp://127.0.0.1:9', cache: {}}}";
    let a = ProviderConfig {
        defaults: document(a),
        ..local.clone()
    };
    let b = ProviderConfig {
        ceiling: ceiling("sockets: [/run/app/]"),
        ..local
    };
    config.providers = BTreeMap::from([("a".into(), a), ("b".into(), b)]);
    let catalogue = "{services: {cache: 'tcp://127.0.0.1:1', db: 'tcp://127.0.0.1:2', quiet: {url: 'tcp://127.0.0.1:6', health: none}, sock: 'unix:///run/other/s', well: 'unix:///run/app/s'}}";
    config.catalogue = document(catalogue).services;
    let capability = |source: &str| Capability {
        grant: document(source),
        ..Capability::default()
    };
    config.capabilities = BTreeMap::from([
        (
            "files".into(),
            capability("{services: {disk: 'unix:///run/elsewhere/d', front: 'tcp://127.0.0.1:5'}}"),
        ),
        ("same".into(), capability("{services: [cache]}")),
        (
            "web".into(),
            capability("{services: {front: 'tcp://127.0.0.1:4', cache: {health: redis}}}"),
        ),
    ]);
    config
}

fn told(granted: &[Granted]) -> Vec<String> {
    let one = |one: &Granted| {
        let alone = one.service.provider.as_deref().unwrap_or("all");
        format!("{} for {alone}: {}", one.service, one.setting)
    };
    granted.iter().map(one).collect()
}

#[test]
fn a_provider_has_its_own_those_it_shares_and_those_of_capabilities() {
    let config = of_two();
    assert_eq!(
        told(&config.services_of("a")),
        [
            // Only named there: what is wrong with it is wrong where it is written.
            "cache for all: services.cache",
            "db for a: runtime.providers.a.services.db",
            "own for a: runtime.providers.a.services.own",
            "sock for all: services.sock",
            "well for all: services.well",
            "disk@files for all: capabilities.files.services.disk",
            "front@files for all: capabilities.files.services.front",
            // Laid over what the provider says of it.
            "cache@web for a: capabilities.web.services.cache",
            "front@web for all: capabilities.web.services.front",
        ]
    );
}

/// What no session of it can be granted takes nothing from a provider.
#[test]
fn what_is_outside_of_the_ceiling_is_nobodys() {
    let mut config = of_two();
    assert_eq!(
        told(&config.services_of("b")),
        [
            "cache for all: services.cache",
            "db for all: services.db",
            // Where it really leads must be within the list too.
            "well for b: services.well",
            // The capability cannot be bound whole, and this can be taken of it.
            "front@files for all: capabilities.files.services.front",
            "cache@web for all: capabilities.web.services.cache",
            "front@web for all: capabilities.web.services.front",
        ]
    );
    // Nor is there a session of one whose own settings are the gateway itself.
    let own = "{services: {self: 'tcp://127.0.0.1:3128'}}";
    config.providers.get_mut("b").unwrap().defaults = request(own).grant.document;
    assert!(config.services_of("b").is_empty());
    assert!(config.services_of("nobody").is_empty());
    // One that is the catalogue's own word is still nobody's.
    config
        .catalogue
        .extend(request(own).grant.document.services);
    let of_a = told(&config.services_of("a"));
    assert_eq!(of_a.len(), 9, "{of_a:?}");
}
