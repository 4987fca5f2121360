#![allow(clippy::unwrap_used)]
use sluicegate_policy::{
    Ceiling, Direction, Grant, GrantDocument, MethodPrefix, ServiceBound, ServiceName,
    text::{self, Faults},
};

use super::service;

fn grant(services: &str) -> Grant {
    let mut faults = Faults::default();
    let node = text::parse(&format!("{{services: {services}}}"), &mut faults);
    let grant = GrantDocument::read(&node, &mut faults).compile(&Ceiling::local(), &mut faults);
    assert!(faults.is_clean(), "{faults}");
    grant.unwrap()
}

fn bound(name: &str, prefix: Option<&str>) -> ServiceBound {
    ServiceBound {
        name: ServiceName::parse(name).unwrap(),
        method_prefix: prefix.map(|prefix| MethodPrefix::parse(prefix).unwrap()),
        direction: Direction::In,
    }
}

const CACHE: &str = "/gestalt.provider.v1.Cache/Get";
const TWO: &str = "{cache: 'unix:///run/c', s3: 'unix:///run/s'}";
const BINDINGS: &str =
    "{'cache:main': 'unix:///run/a', 'cache:spare': 'unix:///run/b', s3: 'unix:///run/s'}";

fn chosen(
    services: &str,
    bound: Option<&[ServiceBound]>,
    path: &str,
    binding: Option<&str>,
) -> Option<String> {
    service(&grant(services), bound, path, binding).map(|name| name.to_string())
}

#[test]
fn the_path_names_the_service() {
    assert_eq!(chosen(TWO, None, CACHE, None).as_deref(), Some("cache"));
    assert_eq!(chosen(TWO, None, "/S3/Get", None).as_deref(), Some("s3"));
    assert_eq!(
        chosen(TWO, None, "/gestalt.provider.v1.Mail/Send", None),
        None,
        "two services, and neither is meant"
    );
    assert_eq!(chosen(TWO, None, "not a path", None), None);
}

#[test]
fn the_only_service_needs_no_name() {
    assert_eq!(
        chosen("{db: 'unix:///run/d'}", None, CACHE, None).as_deref(),
        Some("db")
    );
    assert_eq!(
        chosen(TWO, Some(&[bound("s3", None)]), CACHE, None).as_deref(),
        Some("s3"),
        "the token's list has one"
    );
    assert_eq!(
        chosen(TWO, Some(&[]), CACHE, None),
        None,
        "the token's list is empty"
    );
}

#[test]
fn a_binding_picks_among_bindings() {
    assert_eq!(
        chosen(BINDINGS, None, CACHE, Some("main")).as_deref(),
        Some("cache:main")
    );
    assert_eq!(
        chosen(BINDINGS, None, CACHE, Some("spare")).as_deref(),
        Some("cache:spare")
    );
    assert_eq!(chosen(BINDINGS, None, CACHE, Some("other")), None);
    assert_eq!(
        chosen(BINDINGS, None, CACHE, None),
        None,
        "two bindings, and none is said"
    );
    assert_eq!(
        chosen(TWO, None, CACHE, Some("main")),
        None,
        "a binding that is not there"
    );
}

#[test]
fn prefixes_come_before_names() {
    let services = "{store: {url: 'unix:///run/a', grpc: {methodPrefix: /gestalt.provider.v1.Cache}}, cache: 'unix:///run/b'}";
    assert_eq!(
        chosen(services, None, CACHE, None).as_deref(),
        Some("store")
    );
    let bounds = [
        bound("s3", Some("/gestalt.provider.v1.Cache")),
        bound("cache", Some("/other.Service")),
    ];
    assert_eq!(
        chosen(TWO, Some(&bounds), CACHE, None).as_deref(),
        Some("s3")
    );
}
