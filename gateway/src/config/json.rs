//! The effective configuration in the document's own form, every default written out.
use super::{
    AccessLog, AdminConfig, CapabilityConfig, Config, CredentialConfig, DnsConfig, GestaltConfig,
    GestaltKeyConfig, IdentifyBy, KeyFiles, KeysConfig, LimitsConfig, ListenerConfig, ListenerKind,
    OnExpiry, OnPause, ProbeConfig, ProviderConfig, QuotaConfig, RefusalDetail, SessionConfig,
    SigningKey, StoreConfig, TelemetryConfig, TlsConfig, TokenConfig, UpstreamProxyConfig,
    WebhookConfig,
};
use super::{compat::VERIFY, probe::FROM};
use serde_json::{Map, Value, json};
use sluicegate_policy::{Confinement, HostnameEgress, MixedAnswers, ServiceDocument, ServiceName};
use std::{collections::BTreeMap, path::Path, time::Duration};

pub(super) fn config(config: &Config) -> Value {
    let known = services(&config.services);
    let capabilities: Map<_, _> = config
        .capabilities
        .iter()
        .map(|(name, capability)| (name.clone(), one_capability(capability)))
        .collect();
    let providers: Map<_, _> = config
        .providers
        .iter()
        .map(|(name, provider)| (name.clone(), one_provider(provider)))
        .collect();
    compact(json!({
        "publicUrl": config.public_url.as_ref().map(ToString::to_string),
        "listeners": config.listeners.iter().map(listener).collect::<Vec<_>>(),
        "tls": tls(&config.tls),
        "dns": dns(&config.dns),
        "upstreamProxy": config.upstream_proxy.as_ref().map(upstream_proxy),
        "store": store(&config.store),
        "keys": config.keys.as_ref().map(keys),
        "quotas": quotas(&config.quotas),
        "limits": limits(&config.limits),
        "egress": config.egress.to_value(),
        "services": known,
        "capabilities": capabilities,
        "runtime": {"providers": providers},
        "admin": admin(&config.admin),
        "probe": probe(&config.probe),
        "telemetry": telemetry(&config.telemetry),
        "compat": config.compat.gestalt.as_ref().map(|one| json!({"gestalt": gestalt(one)})),
    }))
}

fn store(config: &StoreConfig) -> Value {
    let retention = &config.retention;
    compact(json!({
        "path": config.path.as_deref().map(path),
        "verifyEvery": duration(config.verify_every.unwrap_or_default()),
        "retention": {
            "sessions": duration(retention.sessions),
            "events": retention.events,
            "revocations": duration(retention.revocations),
        },
    }))
}

fn gestalt(config: &GestaltConfig) -> Value {
    let (file, variable) = match &config.key {
        GestaltKeyConfig::File(file) => (Some(path(file)), None),
        GestaltKeyConfig::Env(name) => (None, Some(name)),
    };
    let word = VERIFY
        .iter()
        .find(|(_, verify)| *verify == config.verify_sessions);
    let services: Vec<String> = config.services.iter().map(ToString::to_string).collect();
    compact(json!({
        "keyFile": file,
        "keyEnv": variable,
        "ceiling": config.ceiling.written,
        "services": unless_empty(&services),
        "legacyDefaultAllow": config.legacy_default_allow,
        "verifySessions": word.map(|(word, _)| *word),
        "provider": config.provider,
        "namespace": config.namespace,
    }))
}

/// Drop what is absent: `null` in a document is a fault, never "absent".
fn compact(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .collect(),
        ),
        other => other,
    }
}

/// Lists that are empty by default are left out: an empty one in a document is a fault.
fn unless_empty<T: serde::Serialize>(list: &[T]) -> Option<&[T]> {
    (!list.is_empty()).then_some(list)
}

/// A duration in the largest unit that tells it exactly.
fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ] {
        if milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

/// `None` is written 0.
fn or_none(limit: Option<Duration>) -> String {
    duration(limit.unwrap_or_default())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn key_files(files: &KeyFiles) -> Value {
    json!({"certificate": path(&files.certificate), "key": path(&files.key)})
}

fn listener(listener: &ListenerConfig) -> Value {
    let captured = |kind| listener.capture.as_ref().filter(|_| listener.kind == kind);
    compact(json!({
        "kind": listener.kind.as_str(),
        "address": listener.address.to_string(),
        "privateNetwork": listener.private_network.then_some(true),
        "quic": (listener.kind == ListenerKind::Public).then_some(listener.quic),
        "tls": listener.tls.as_ref().map(|files| {
            let mut value = key_files(files);
            if let (Some(map), Some(ca)) = (value.as_object_mut(), &listener.client_ca) {
                map.insert("clientCa".to_owned(), json!(path(ca)));
            }
            value
        }),
        "clientCa": listener.tls.is_none().then_some(listener.client_ca.as_deref()).flatten().map(path),
        "domain": listener.domain.as_ref().map(ToString::to_string),
        "proxyProtocol": (!listener.trusted.is_empty()).then(|| json!({
            "trusted": listener.trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        "capture": captured(ListenerKind::Transparent).map(|c| c.mode.as_str()),
        "targetPort": captured(ListenerKind::Sni).map(|c| c.target_port),
        "identify": listener.capture.as_ref().map(|c| c.identify.as_str()),
        "namespaces": listener.capture.as_ref()
            .filter(|c| c.identify == IdentifyBy::Source)
            .map(|c| c.namespaces.clone()),
    }))
}

fn upstream_proxy(proxy: &UpstreamProxyConfig) -> Value {
    compact(json!({
        "url": proxy.url(),
        "credentialFile": proxy.credential_file.as_deref().map(path),
        "caFile": proxy.ca_file.as_deref().map(path),
        "ask": proxy.ask.as_str(),
        "bypass": proxy.bypass,
    }))
}

fn tls(tls: &TlsConfig) -> Value {
    compact(json!({
        "certificate": tls.files.as_ref().map(|files| path(&files.certificate)),
        "key": tls.files.as_ref().map(|files| path(&files.key)),
        "names": unless_empty(&tls.names),
    }))
}

fn dns(dns: &DnsConfig) -> Value {
    let hosts: Map<_, _> = dns
        .hosts
        .iter()
        .map(|(name, addresses)| (name.to_string(), json!(addresses)))
        .collect();
    let servers = dns
        .servers
        .as_ref()
        .map(|servers| servers.iter().map(ToString::to_string).collect::<Vec<_>>());
    compact(json!({
        "servers": servers,
        "caFile": dns.ca_file.as_deref().map(path),
        "hosts": hosts,
        "mixedAnswers": match dns.mixed_answers {
            MixedAnswers::Refuse => "refuse",
            MixedAnswers::Filter => "filter",
        },
        "timeout": duration(dns.timeout),
        "cacheSize": dns.cache_size,
        "minTtl": duration(dns.min_ttl),
        "maxTtl": duration(dns.max_ttl),
        "negativeTtl": duration(dns.negative_ttl),
        "nat64": unless_empty(&dns.nat64.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }))
}

fn keys(keys: &KeysConfig) -> Value {
    let (file, variable) = match &keys.signing {
        SigningKey::File(file) => (Some(path(file)), None),
        SigningKey::Env(name) => (None, Some(name)),
    };
    let verifying: Vec<String> = keys.verifying.iter().map(|file| path(file)).collect();
    compact(json!({
        "signingKeyFile": file,
        "signingKeyEnv": variable,
        "verifyingKeyFiles": unless_empty(&verifying),
    }))
}

fn quotas(quotas: &QuotaConfig) -> Value {
    let owner = &quotas.owner;
    let owner = compact(json!({
        "sessions": owner.sessions,
        "records": owner.records,
        "logs": owner.logs,
        "tunnels": owner.tunnels,
        "opensPerSecond": owner.opens_per_second,
        "bytes": owner.bytes,
        "bandwidth": owner.bandwidth,
    }));
    compact(json!({
        "sessions": quotas.sessions,
        "records": quotas.records,
        "logs": quotas.logs,
        "tunnels": quotas.tunnels,
        "opensPerSecond": quotas.opens_per_second,
        "bytes": quotas.bytes,
        "bandwidth": quotas.bandwidth,
        "owner": owner,
    }))
}

fn limits(limits: &LimitsConfig) -> Value {
    json!({
        "headTimeout": duration(limits.head_timeout),
        "firstBytesTimeout": duration(limits.first_bytes_timeout),
        "dialTimeout": duration(limits.dial_timeout),
        "idleTimeout": or_none(limits.idle_timeout),
        "responseTimeout": or_none(limits.response_timeout),
        "connections": limits.connections,
        "connectionsPerSource": limits.connections_per_source.unwrap_or(0),
        "pendingOpens": limits.pending_opens,
        "relayConnections": limits.relay_connections,
        "drainTimeout": duration(limits.drain_timeout),
        "maxHeadBytes": limits.max_head_bytes,
    })
}

fn admin(admin: &AdminConfig) -> Value {
    compact(json!({
        "tokenFile": admin.token_file.as_deref().map(path),
        "connections": admin.connections,
        "requestsPerCredential": admin.requests_per_credential,
        "allowedHosts": unless_empty(&admin.allowed_hosts),
        "allowedOrigins": unless_empty(&admin.allowed_origins),
        "webhooks": unless_empty(&admin.webhooks.iter().map(webhook).collect::<Vec<_>>()),
        "credentials": unless_empty(&admin.credentials.iter().map(credential).collect::<Vec<_>>()),
    }))
}

fn credential(credential: &CredentialConfig) -> Value {
    let (file, hash) = match &credential.token {
        TokenConfig::File(file) => (Some(path(file)), None),
        TokenConfig::Sha256(hash) => (None, Some(data_encoding::HEXLOWER.encode(hash))),
    };
    let scopes = credential.scopes.iter();
    compact(json!({
        "name": credential.name,
        "tokenFile": file,
        "tokenSha256": hash,
        "scopes": scopes.map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "namespaces": credential.namespaces,
        "owner": credential.owner,
    }))
}

fn probe(probe: &ProbeConfig) -> Value {
    compact(json!({
        "from": FROM.iter().find(|(_, from)| *from == probe.from).map(|(word, _)| *word),
        "interval": duration(probe.interval.unwrap_or_default()),
        "timeout": duration(probe.timeout),
        "resolve": unless_empty(&probe.resolve),
        "canary": probe.canary.as_ref().map(ToString::to_string),
        "name": probe.name.as_ref().map(ToString::to_string),
    }))
}

fn webhook(webhook: &WebhookConfig) -> Value {
    compact(json!({
        "name": webhook.name,
        "url": webhook.url,
        "secretFile": path(&webhook.secret_file),
        "caFile": webhook.ca_file.as_deref().map(path),
        "events": unless_empty(&webhook.events),
        "allowedAddresses": unless_empty(&webhook.allowed_addresses),
        "attempts": webhook.attempts,
    }))
}

fn telemetry(telemetry: &TelemetryConfig) -> Value {
    json!({
        "accessLog": match &telemetry.access_log {
            AccessLog::Stdout => "stdout".to_owned(),
            AccessLog::Stderr => "stderr".to_owned(),
            AccessLog::None => "none".to_owned(),
            AccessLog::File(file) => path(file),
        },
        "refusalDetail": match telemetry.refusal_detail {
            RefusalDetail::Full => "full",
            RefusalDetail::Minimal => "minimal",
        },
        "log": telemetry.log,
    })
}

fn services(services: &BTreeMap<ServiceName, ServiceDocument>) -> Value {
    let services = services
        .iter()
        .map(|(name, service)| (name.to_string(), service.to_value()));
    Value::Object(services.collect())
}

fn one_capability(capability: &CapabilityConfig) -> Value {
    let mut value = capability.grant.to_value();
    if let (Some(map), Some(description)) = (value.as_object_mut(), &capability.description) {
        map.insert("description".to_owned(), json!(description));
    }
    if let (Some(map), Some(secrets)) = (value.as_object_mut(), unless_empty(&capability.secrets)) {
        map.insert("secrets".to_owned(), json!(secrets));
    }
    value
}

fn one_provider(provider: &ProviderConfig) -> Value {
    let mut value = provider.grant.to_value();
    if let Some(map) = value.as_object_mut() {
        let egress = map.entry("egress").or_insert_with(|| json!({}));
        if let Some(egress) = egress.as_object_mut() {
            egress.insert("ceiling".to_owned(), provider.ceiling.written.clone());
        }
    }
    let own = compact(json!({
        "driver": provider.driver,
        "default": provider.default.then_some(true),
        "advertised": provider.advertised,
        "hostnameEgress": match provider.hostname_egress {
            HostnameEgress::Proxy => "proxy",
            HostnameEgress::Runtime => "runtime",
        },
        "confinement": match provider.confinement {
            Confinement::None => "none",
            Confinement::GatewayOnly => "gateway-only",
        },
        "session": session(&provider.session),
    }));
    if let (Some(map), Value::Object(own)) = (value.as_object_mut(), own) {
        map.extend(own);
    }
    value
}

fn session(session: &SessionConfig) -> Value {
    compact(json!({
        "ttl": session.ttl.map(duration),
        "idleTimeout": or_none(session.idle_timeout),
        "maxLifetime": duration(session.max_lifetime),
        "tokenTtl": session.token_ttl.map(duration),
        "onExpiry": match session.on_expiry {
            OnExpiry::Reset => "reset",
            OnExpiry::Pause => "pause",
            OnExpiry::Stop => "stop",
        },
        "onPause": match session.on_pause {
            OnPause::Close => "close",
            OnPause::Hold => "hold",
        },
        "scopes": session.scopes.map(|scopes| json!({
            "concurrency": scopes.concurrency,
            "queue": scopes.queue,
        })),
    }))
}
