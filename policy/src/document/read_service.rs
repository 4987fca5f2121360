//! Services, limits and HTTP bounds, read.

use super::{LimitsDocument, ServiceDocument, model::Ignored, read_egress::names, strings};
use crate::{
    Health, HttpRule, Limits, MethodPrefix, ProxyProtocol, ServiceHttp, ServiceName, ServiceUrl,
    path,
    text::{Faults, Fields, Node},
};
use std::collections::BTreeMap;

/// `{NAME: URL | {url, …}}`, or a list of names whose URLs a document below knows.
pub(super) fn read_services(
    node: &Node,
    faults: &mut Faults,
) -> BTreeMap<ServiceName, ServiceDocument> {
    let mut services = BTreeMap::new();
    let mut add =
        |text: &str, key: crate::text::Place, service: ServiceDocument, faults: &mut Faults| {
            match ServiceName::parse(text) {
                Ok(name) => {
                    if services.insert(name, service).is_some() {
                        faults.error(&key, format!("{text:?} is written twice"));
                    }
                }
                Err(_) => faults.error_hint(
                    &key,
                    format!("{text:?} is not a service name"),
                    "lower-case letters, digits, . _ -; one :binding at most",
                ),
            }
        };
    if node.is_list() {
        for item in node.list(faults) {
            if let Some(text) = item.string(faults) {
                let place = Ignored(item.place().clone());
                let service = ServiceDocument {
                    place,
                    ..ServiceDocument::default()
                };
                add(text, item.place().clone(), service, faults);
            }
        }
        return services;
    }
    for (key, value) in node.entries(faults) {
        let service = ServiceDocument::read(value, faults);
        add(key, value.key_place(), service, faults);
    }
    services
}

impl ServiceDocument {
    /// Read a list of names whose URLs a document below knows.
    pub fn read_names(node: &Node, faults: &mut Faults) -> BTreeMap<ServiceName, ServiceDocument> {
        if node.is_list() {
            return read_services(node, faults);
        }
        node.expected::<()>("a list of names of host services", faults);
        BTreeMap::new()
    }

    /// Read one service: its URL, or a mapping.
    pub fn read(node: &Node, faults: &mut Faults) -> Self {
        let place = Ignored(node.place().clone());
        if !node.is_map() {
            let url = url(node, faults);
            return Self {
                url,
                place,
                ..Self::default()
            };
        }
        let mut fields = node.fields(faults);
        let service = Self {
            url: fields.take("url").and_then(|node| url(node, faults)),
            health: fields.take("health").and_then(|node| {
                let text = node.string(faults)?;
                Health::parse(text).or_else(|| {
                    node.expected(
                        "connect, none, grpc, grpc:SERVICE, redis, postgres, or the path of an HTTP GET",
                        faults,
                    )
                })
            }),
            half_close_timeout: fields
                .take("halfCloseTimeout")
                .and_then(|node| node.duration(faults)),
            idle_timeout: fields
                .take("idleTimeout")
                .and_then(|node| node.duration(faults)),
            peer_uid: fields.take("peerUid").and_then(|node| {
                let uid = node.integer(0..=u64::from(u32::MAX), faults)?;
                u32::try_from(uid).ok()
            }),
            proxy_protocol: fields
                .take("proxyProtocol")
                .and_then(|node| node.choice(&[("v2", ProxyProtocol::V2)], faults)),
            http: fields.take("http").map(|node| read_http(node, faults)),
            grpc_method_prefix: fields.take("grpc").and_then(|node| read_grpc(node, faults)),
            place,
        };
        fields.finish(faults);
        let unix = matches!(service.url, Some(ServiceUrl::Unix(_)) | None);
        if service.peer_uid.is_some() && !unix {
            faults.error(node.place(), "peerUid is known of unix sockets only");
        }
        service
    }
}

fn url(node: &Node, faults: &mut Faults) -> Option<ServiceUrl> {
    let text = node.string(faults)?;
    ServiceUrl::parse(text)
        .map_err(|error| {
            faults.error_hint(
                node.place(),
                error,
                "unix:///path, tcp://127.0.0.1:port or tls://host:port",
            )
        })
        .ok()
}

fn read_http(node: &Node, faults: &mut Faults) -> ServiceHttp {
    let mut fields = node.fields(faults);
    let hosts = fields.take("hosts").map(|node| names(node, faults));
    let origins = fields.take("origins").map(|node| {
        strings(
            node,
            "an origin such as https://app.example.com",
            is_origin,
            faults,
        )
    });
    let rule = read_http_rule(&mut fields, faults);
    let set_headers = fields
        .take("setHeaders")
        .map(|node| read_set_headers(node, faults));
    fields.finish(faults);
    ServiceHttp {
        set_headers: set_headers.unwrap_or_default(),
        hosts: hosts.unwrap_or_default(),
        origins: origins.unwrap_or_default(),
        rule,
    }
}

/// Fields that frame or route a message, or hold between neighbours only: the gateway's own to write.
const OWN_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

fn read_set_headers(node: &Node, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (key, value) in node.entries(faults) {
        let name = key.to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let own = OWN_FIELDS.contains(&name.as_str()) || name.starts_with("proxy-");
        if name.is_empty() || !name.bytes().all(token) {
            faults.error(&value.key_place(), format!("{key:?} is not a field's name"));
        } else if own {
            faults.error(
                &value.key_place(),
                format!("{key:?} is the gateway's own to write"),
            );
        }
        let Some(text) = value.string(faults) else {
            continue;
        };
        // RFC 9110 §5.5, without obs-text and without white space at the ends.
        let visible = |b: u8| matches!(b, b' '..=b'~');
        if !text.bytes().all(visible) || text.trim() != text {
            value.expected::<()>("a field's value in visible ASCII", faults);
        } else if fields.insert(name, text.to_owned()).is_some() {
            faults.error(&value.key_place(), format!("{key:?} is written twice"));
        }
    }
    fields
}

/// `methods` and `pathPrefixes`, out of a larger mapping.
pub(super) fn read_http_rule(fields: &mut Fields<'_>, faults: &mut Faults) -> HttpRule {
    let mut list = |key, what: &str, accept: fn(&str) -> bool, faults: &mut Faults| {
        let node: Option<&Node> = fields.take(key);
        let read = node.map(|node| {
            let list = strings(node, what, accept, faults);
            // An empty list would read as "nothing" to a person and as "anything" to the type.
            if node.is_list() && node.list(faults).is_empty() {
                faults.error_hint(node.place(), "an empty list", "leave the key out for any");
            }
            list
        });
        read.unwrap_or_default()
    };
    HttpRule {
        methods: list("methods", "a method in capitals", is_method, faults),
        path_prefixes: list(
            "pathPrefixes",
            "a path prefix such as /v1/",
            is_path_prefix,
            faults,
        ),
    }
}

fn read_grpc(node: &Node, faults: &mut Faults) -> Option<MethodPrefix> {
    let mut fields = node.fields(faults);
    let prefix = fields.take("methodPrefix").and_then(|node| {
        let text = node.string(faults)?;
        MethodPrefix::parse(text)
            .or_else(|| node.expected("a method prefix such as /package.Service", faults))
    });
    fields.finish(faults);
    prefix
}

/// A token (RFC 9110 §5.6.2) without lower-case letters: methods are case-sensitive, and `get` would match nothing.
pub(crate) fn is_method(text: &str) -> bool {
    let token =
        |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}

fn is_path_prefix(text: &str) -> bool {
    text == path::ROOT || path::is_prefix(text)
}

/// Scheme, host and port, as a browser writes it (RFC 6454 §6.2).
fn is_origin(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|authority| {
        crate::Target::from_uri_authority(authority, 80)
            .is_ok_and(|t| !authority.ends_with('.') && t.port() > 0)
    })
}

pub(super) fn read_limits(node: &Node, faults: &mut Faults) -> LimitsDocument {
    let mut fields = node.fields(faults);
    let mut count = |key, faults: &mut Faults| {
        let node: Option<&Node> = fields.take(key);
        let value = node.and_then(|node| node.integer(0..=u64::from(u32::MAX), faults))?;
        u32::try_from(value).ok()
    };
    let tunnels = count("tunnels", faults);
    let tunnels_per_destination = count("tunnelsPerDestination", faults);
    let opens_per_second = count("opensPerSecond", faults);
    let bytes = fields.take("bytes").and_then(|node| node.bytes(faults));
    let bandwidth = fields.take("bandwidth").and_then(|node| node.bytes(faults));
    fields.finish(faults);
    LimitsDocument {
        limits: Limits {
            tunnels,
            tunnels_per_destination,
            opens_per_second,
            bytes,
            bandwidth,
        },
    }
}
