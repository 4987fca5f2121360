//! From a session's own grant to what it may really do under this configuration.

use std::{net::IpAddr, path::Path, sync::Arc, time::SystemTime};

use sluicegate_policy::{
    Author, Ceiling, Grant, GrantDocument, Host, Origin, ServiceName, ServiceUrl,
    text::{self, Faults, Place},
};

use super::RegistryError;
use crate::session::{AskedGrant, Binding, PolicyGeneration, Record, RegistryConfig};

/// The record's grant, compiled under its policy generation's number.
pub(super) fn policy(
    config: &RegistryConfig,
    record: &Record,
) -> Result<Arc<PolicyGeneration>, RegistryError> {
    let (_, grant) = grant(
        config,
        &record.provider,
        &record.capabilities,
        (&own(record)?, record.author()),
    )
    .map_err(|error| match error {
        // The session is there: what is wrong with it is that its grant cannot be had.
        RegistryError::UnknownProvider(name) => {
            let mut faults = Faults::default();
            let message = format!("the configuration has no provider {name:?} any more");
            faults.error(&Place::default(), message);
            RegistryError::Faults(faults)
        }
        other => other,
    })?;
    Ok(Arc::new(PolicyGeneration {
        number: record.policy_generation,
        grant: Arc::new(grant),
        narrowed: 0,
    }))
}

/// A policy that allows nothing, for a session whose own does not compile.
pub(super) fn nothing(record: &Record) -> Result<Arc<PolicyGeneration>, RegistryError> {
    let mut faults = Faults::default();
    let grant = GrantDocument::default().compile(&Ceiling::default(), &mut faults);
    Ok(Arc::new(PolicyGeneration {
        number: record.policy_generation,
        grant: Arc::new(grant.ok_or(RegistryError::Faults(faults))?),
        narrowed: 0,
    }))
}

/// The session's own document, from its record.
pub(super) fn own(record: &Record) -> Result<GrantDocument, RegistryError> {
    read(&record.document)
}

/// The same without these keys, which are to be said anew: an earlier version may have taken what this one does not read.
pub(super) fn own_without(record: &Record, keys: &[&str]) -> Result<GrantDocument, RegistryError> {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&record.document) {
        Ok(mut document) => {
            document.retain(|key, _| !keys.contains(&key.as_str()));
            read(&serde_json::Value::from(document).to_string())
        }
        Err(_) => own(record),
    }
}

fn read(document: &str) -> Result<GrantDocument, RegistryError> {
    let mut faults = Faults::default();
    let root = text::parse(document, &mut faults);
    let document = GrantDocument::read(&root, &mut faults);
    if faults.is_clean() {
        Ok(document)
    } else {
        Err(RegistryError::Faults(faults))
    }
}

/// What a session that asks for this is bound to, and what it may do: one function for admission, for explanations, and for
/// tools that know of no gateway.
pub(in crate::session) fn asked(
    config: &RegistryConfig,
    provider: &str,
    (asked, author): (&AskedGrant, Author),
    now: SystemTime,
) -> Result<(Vec<Binding>, Grant), RegistryError> {
    let capabilities = asked.capabilities.iter();
    let capabilities: Vec<Binding> = capabilities
        .map(|binding| binding.over(None, config, now))
        .collect::<Result<_, _>>()?;
    let (_, grant) = grant(config, provider, &capabilities, (&asked.document, author))?;
    Ok((capabilities, grant))
}

/// Provider defaults, capabilities, catalogue and own document with its author merged, and compiled within the
/// provider's ceiling.
pub(super) fn grant(
    config: &RegistryConfig,
    provider: &str,
    capabilities: &[Binding],
    (own, author): (&GrantDocument, Author),
) -> Result<(GrantDocument, Grant), RegistryError> {
    let below = below(config, provider, capabilities)?;
    let held = match author {
        Author::Bounded => known(config, &only_named(&below, own)),
        Author::Operator => GrantDocument::default(),
    };
    let merged = known(config, &below.lay(own, Origin::Session));
    let ceiling = &config
        .providers
        .get(provider)
        .ok_or_else(|| unknown(provider))?
        .ceiling;
    let mut faults = Faults::default();
    let mut compiled = merged.compile(ceiling, &mut faults);
    for (name, url) in compiled.iter().flat_map(Grant::services) {
        if is_own(config, url) {
            let place = Place {
                path: text::Path::default().key("services").key(name.as_str()),
                ..Place::default()
            };
            faults.error_hint(
                &place,
                format!("{url} is the gateway itself"),
                "name the service's own address",
            );
        }
    }
    // What the operator's own configuration names is the operator's word; what a session brings is bounded.
    let brought = own
        .services
        .iter()
        .filter_map(|(name, service)| Some((name, service.url.as_ref()?)));
    for (name, url) in brought {
        if let Err((outside, key)) = ceiling.admits_service(url, author) {
            let place = Place {
                path: text::Path::default().key("services").key(name.as_str()),
                ..Place::default()
            };
            faults.error_hint(
                &place,
                format!("{url}: {outside}"),
                format!("the operator would have to name the service in the configuration, or add this address to runtime.providers.{provider}.egress.{key}"),
            );
        }
        if let Some(grant) = &mut compiled {
            grant.bound_service(name, ceiling.within_for(author));
        }
    }
    hold_services(&held, own, &mut faults);
    hold_exposed(config, &merged, own, &mut faults);
    match compiled {
        Some(grant) if faults.is_clean() => Ok((merged, grant)),
        Some(_) | None => Err(RegistryError::Faults(faults)),
    }
}

/// Of what stands before a session's own document, the services that it names and brings no address of.
fn only_named(below: &GrantDocument, own: &GrantDocument) -> GrantDocument {
    let named = own.services.iter().filter(|(_, one)| one.url.is_none());
    let services = named.map(|(name, _)| {
        let said = below.services.get(name).cloned();
        (name.clone(), said.unwrap_or_default())
    });
    GrantDocument {
        services: services.collect(),
        ..GrantDocument::default()
    }
}

/// What the operator says of a service binds whoever only names it and is bounded.
fn hold_services(held: &GrantDocument, own: &GrantDocument, faults: &mut Faults) {
    for (name, held) in &held.services {
        let Some(asked) = own.services.get(name) else {
            continue;
        };
        let said = [
            (
                "http",
                held.http.is_some() && asked.http.is_some() && asked.http != held.http,
            ),
            (
                "grpc",
                held.grpc_method_prefix.is_some()
                    && asked.grpc_method_prefix.is_some()
                    && asked.grpc_method_prefix != held.grpc_method_prefix,
            ),
            (
                "peerUid",
                held.peer_uid.is_some()
                    && asked.peer_uid.is_some()
                    && asked.peer_uid != held.peer_uid,
            ),
        ];
        for (key, _) in said.iter().filter(|(_, differs)| *differs) {
            let place = Place {
                path: text::Path::default().key("services").key(name.as_str()),
                ..Place::default()
            };
            let message =
                format!("service \"{name}\": the operator says {key} of it, which binds it");
            faults.error_hint(&place, message, format!("leave {key} out"));
        }
    }
}

/// Every exposed listener can have its place, and no session picks a port of the host's for itself.
fn hold_exposed(
    config: &RegistryConfig,
    merged: &GrantDocument,
    own: &GrantDocument,
    faults: &mut Faults,
) {
    let place = |name: &ServiceName| Place {
        path: text::Path::default().key("expose").key(name.as_str()),
        ..Place::default()
    };
    for (name, listener) in &merged.expose {
        if let Err((what, hint)) = config.dial.admits(name, listener.dial) {
            faults.error_hint(&place(name), format!("listener \"{name}\": {what}"), hint);
        }
    }
    for (name, _) in own.expose.iter().filter(|(_, one)| one.port.is_some()) {
        faults.error_hint(
            &place(name),
            format!("listener \"{name}\": a fixed port is the operator's to give"),
            "leave port out and take the one the answer shows, or have it written in the provider",
        );
    }
}

/// What the session asks for with everything it did not have to write.
pub(in crate::session) fn merged(
    config: &RegistryConfig,
    provider: &str,
    capabilities: &[Binding],
    own: &GrantDocument,
) -> Result<GrantDocument, RegistryError> {
    let below = below(config, provider, capabilities)?;
    Ok(known(config, &below.lay(own, Origin::Session)))
}

/// What stands before its own document: its provider's defaults, and its capabilities.
fn below(
    config: &RegistryConfig,
    provider: &str,
    capabilities: &[Binding],
) -> Result<GrantDocument, RegistryError> {
    let provider = config
        .providers
        .get(provider)
        .ok_or_else(|| unknown(provider))?;
    let mut below = provider.defaults.clone();
    for binding in capabilities.iter().filter(|binding| binding.enabled) {
        below = below.lay(&binding.layer(config)?, Origin::Capability);
    }
    Ok(below)
}

/// With what the catalogue says of services that have no address.
fn known(config: &RegistryConfig, asked: &GrantDocument) -> GrantDocument {
    let listed = |name: &ServiceName| {
        config
            .catalogue
            .get(name)
            .map(|service| (name.clone(), service.clone()))
    };
    let nameless = asked
        .services
        .iter()
        .filter(|(_, service)| service.url.is_none());
    let services = nameless.filter_map(|(name, _)| listed(name)).collect();
    GrantDocument {
        services,
        ..GrantDocument::default()
    }
    .merge(asked)
}

fn unknown(provider: &str) -> RegistryError {
    RegistryError::UnknownProvider(provider.into())
}

/// The gateway's own listeners are never a service: that way leads around every check.
pub(super) fn is_own(config: &RegistryConfig, url: &ServiceUrl) -> bool {
    let listens = |ip: IpAddr, port: u16| {
        config.own_listeners.iter().any(|own| {
            let everywhere = own.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
            own.port() == port
                && (own.ip().to_canonical() == ip.to_canonical()
                    || everywhere
                    || ip.is_unspecified())
        })
    };
    match url {
        ServiceUrl::Unix(path) => {
            // A dial target of another session's sandbox, or of this one's.
            let dialled = config.dial.directory.as_ref();
            dialled.is_some_and(|directory| lies_below(directory, path))
                || config.own_sockets.iter().any(|own| same_file(own, path))
        }
        ServiceUrl::Tcp(ip, port) => listens(*ip, *port),
        ServiceUrl::Tls {
            host: Host::Ip(ip),
            port,
        } => listens(*ip, *port),
        // A name is judged when it is resolved, before the dial.
        ServiceUrl::Tls {
            host: Host::Name(_),
            ..
        } => false,
    }
}

fn lies_below(directory: &Path, path: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    // The socket may not be there yet, its directory may.
    let parent = real(sluicegate_certs::directory_of(path));
    path.starts_with(directory) || parent.starts_with(real(directory))
}

fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
    a == b || real(a) == real(b)
}

#[cfg(test)]
mod tests;
