//! Exposed listeners: read, merged, written, refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::{
    Denial, Dial, Direction, ServiceBound, ServiceName, decide_listener, testing,
    text::{self, Faults},
};
use std::time::Duration;

fn read(source: &str) -> (GrantDocument, Faults) {
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    (GrantDocument::read(&root, &mut faults), faults)
}

fn name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap()
}

#[test]
fn short_and_long_forms_say_the_same() {
    for source in [
        "expose: [plugin]",
        "expose: {plugin: unix}",
        "expose: {plugin: {}}",
        "expose: {plugin: {dial: unix}}",
    ] {
        let (document, faults) = read(source);
        assert!(faults.is_clean(), "{source}: {faults}");
        let grant = testing::compile(source, "{}").unwrap();
        let (found, expose) = grant.exposed().next().unwrap();
        assert_eq!((found.as_str(), expose.dial), ("plugin", Dial::Unix));
        assert_eq!(expose.patience, Duration::from_secs(1));
        let (again, faults) = read(&document.to_json());
        assert!(faults.is_clean());
        assert_eq!(again, document, "{source}");
    }
    let source = "expose: {db: {dial: tcp, port: 5432, patience: 250ms, halfCloseTimeout: 1m, idleTimeout: 1h}}";
    let (document, faults) = read(source);
    assert!(faults.is_clean(), "{faults}");
    assert_eq!(read(&document.to_json()).0, document);
    let db = &document.expose[&name("db")];
    assert_eq!(
        (db.dial, db.port, db.patience),
        (Dial::Tcp, Some(5432), Some(Duration::from_millis(250)))
    );
}

#[test]
fn what_cannot_be_is_a_fault_at_its_place() {
    for (source, message) in [
        ("expose: {'a:b': unix}", "is not a listener's name"),
        ("expose: {A: unix}", "is not a listener's name"),
        ("expose: {'../x': unix}", "is not a listener's name"),
        ("expose: {a.b: tls}", "cannot be dialled by tls"),
        ("expose: {plugin: udp}", "expected"),
        (
            "expose: {plugin: {dial: unix, port: 1}}",
            "port is for dial: tcp",
        ),
        ("expose: {plugin: {dial: tcp, port: 0}}", "expected"),
        (
            "expose: {plugin: {dial: tcp, peerUid: 0}}",
            "unix sockets only",
        ),
        ("expose: {plugin: {patience: 2m}}", "longer than 60s"),
        ("expose: {plugin: {to: unix}}", "unknown key"),
        ("expose: [a, a]", "is written twice"),
    ] {
        let (_, faults) = read(source);
        let found = faults.errors.iter().any(|f| f.message.contains(message));
        assert!(found, "{source}: {faults}");
    }
    let many: Vec<String> = (0..33).map(|n| format!("l{n}")).collect();
    let (_, faults) = read(&format!("expose: [{}]", many.join(", ")));
    assert!(faults.to_string().contains("more than 32"), "{faults}");
}

#[test]
fn later_documents_replace_a_listener_whole() {
    let (below, _) = read("expose: {a: {dial: tcp, port: 1}, b: unix}");
    let (over, _) = read("expose: {a: unix, c: unix}");
    let merged = below.merge(&over);
    let dials: Vec<_> = merged.expose.values().map(|e| (e.dial, e.port)).collect();
    assert_eq!(dials, [(Dial::Unix, None); 3]);
}

#[test]
fn a_listener_is_offered_within_grant_and_token() {
    let grant = testing::compile(
        "{expose: [plugin], services: {db: 'tcp://127.0.0.1:1'}}",
        "{}",
    )
    .unwrap();
    let bound = |text: &str, direction, prefix: Option<&str>| ServiceBound {
        name: name(text),
        method_prefix: prefix.map(|p| crate::MethodPrefix::parse(p).unwrap()),
        direction,
    };
    let denied = |name_: &str, bound: Option<&[ServiceBound]>| {
        decide_listener(&grant, bound, &name(name_))
            .err()
            .map(|r| r.denial)
    };
    assert_eq!(denied("plugin", None), None);
    assert_eq!(
        denied("db", None),
        Some(Denial::ListenerNotAllowed),
        "a service is no listener"
    );
    assert_eq!(denied("gone", None), Some(Denial::ListenerNotAllowed));
    assert_eq!(
        denied("plugin", Some(&[])),
        Some(Denial::ListenerNotAllowed)
    );
    let inward = [bound("plugin", Direction::In, None)];
    assert_eq!(
        denied("plugin", Some(&inward)),
        Some(Denial::ListenerNotAllowed)
    );
    let outward = [bound("plugin", Direction::Out, None)];
    assert_eq!(denied("plugin", Some(&outward)), None);
    let prefixed = [bound("plugin", Direction::Out, Some("/pkg.X"))];
    assert_eq!(
        denied("plugin", Some(&prefixed)),
        Some(Denial::ServiceMethodNotAllowed)
    );
}
