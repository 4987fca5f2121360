#![allow(clippy::unwrap_used)]

use super::*;
use crate::session::lifecycle::Action;
use crate::session::testing::{Fixture, request};

async fn create(f: &Fixture, source: &str) {
    let created = f.registry.create("local".into(), request(source)).await;
    created.unwrap();
}

fn who(f: &Fixture, source: &str, namespaces: &[&str]) -> Result<String, Denial> {
    let namespaces: Vec<Arc<str>> = namespaces.iter().map(|name| (*name).into()).collect();
    let live =
        f.registry
            .index()
            .source(source.parse().unwrap(), &namespaces, SystemTime::now())?;
    Ok(live.session.key().id.to_string())
}

#[tokio::test]
async fn a_source_is_one_sessions_or_nobodys() {
    let f = Fixture::new();
    create(&f, "{id: one, sources: [\"192.0.2.1\", \"2001:db8::/64\"]}").await;
    create(
        &f,
        "{id: two, sources: [\"192.0.2.0/30\", \"198.51.100.0/24\"]}",
    )
    .await;
    create(&f, "{id: anywhere}").await;
    create(&f, "{id: idle, sources: [\"203.0.113.1\"], start: false}").await;
    let default = |source| who(&f, source, &["default"]);
    assert_eq!(default("198.51.100.7").as_deref(), Ok("two"));
    assert_eq!(default("192.0.2.2").as_deref(), Ok("two"));
    assert_eq!(default("::ffff:198.51.100.7").as_deref(), Ok("two"));
    assert_eq!(default("2001:db8::7").as_deref(), Ok("one"));
    // The narrower one is not preferred: whose it is must be certain.
    assert_eq!(default("192.0.2.1"), Err(Denial::SourceAmbiguous));
    for nobody in ["203.0.113.1", "192.0.2.4", "2001:db8:0:1::7", "::1"] {
        assert_eq!(default(nobody), Err(Denial::SourceUnknown), "{nobody}");
    }
    assert_eq!(
        who(&f, "198.51.100.7", &["other"]),
        Err(Denial::SourceUnknown)
    );
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let f = Fixture::new();
    create(&f, "{id: mine, namespace: a, sources: [\"192.0.2.1\"]}").await;
    create(
        &f,
        "{id: theirs, namespace: b, sources: [\"192.0.2.0/24\"]}",
    )
    .await;
    assert_eq!(who(&f, "192.0.2.1", &["a"]).as_deref(), Ok("mine"));
    assert_eq!(who(&f, "192.0.2.1", &["b"]).as_deref(), Ok("theirs"));
    assert_eq!(
        who(&f, "192.0.2.1", &["a", "b"]),
        Err(Denial::SourceAmbiguous)
    );
}

#[tokio::test]
async fn what_has_ended_has_no_sources() {
    let f = Fixture::new();
    create(&f, "{id: one, sources: [\"192.0.2.1\"]}").await;
    f.registry
        .act(f.key("one"), Action::Stop, None)
        .await
        .unwrap();
    assert_eq!(
        who(&f, "192.0.2.1", &["default"]),
        Err(Denial::SourceUnknown)
    );
    assert!(f.registry.index().read().sources.is_empty());
}

#[tokio::test]
async fn an_id_of_one_namespace_makes_nobody_look_in_another() {
    let f = Fixture::new();
    let index = f.registry.index();
    let mut watched = Vec::new();
    for namespace in ["a", "b"] {
        create(&f, &format!("{{id: one, namespace: {namespace}}}")).await;
        let key = SessionKey {
            namespace: namespace.into(),
            provider: "local".into(),
            id: "one".into(),
        };
        watched.push(index.session(&key).unwrap().session.subscribe());
    }
    let looked = |watched: &mut Vec<tokio::sync::watch::Receiver<Authority>>| {
        let each = watched.iter_mut();
        each.map(|one| {
            let looked = one.has_changed().unwrap();
            one.mark_unchanged();
            looked
        })
        .collect::<Vec<_>>()
    };
    index.revoke(within("a", "nightly"), None);
    assert_eq!(looked(&mut watched), [true, false]);
    // What is of no namespace may be anybody's.
    index.revoke("nightly".into(), None);
    assert_eq!(looked(&mut watched), [true, true]);
}

#[test]
fn who_changes_keys_says_last_what_is_last() {
    let index = Index::default();
    let [kept, gone] = ["kept", "gone"].map(str::to_owned);
    let credential = |key: &str| Credential::Token {
        namespace: "default".into(),
        id: "id".into(),
        family: None,
        key: key.into(),
    };
    let withdrawn = || [&kept, &gone].map(|key| index.is_withdrawn(&credential(key)));
    index.keys_changed(vec![kept.clone(), gone.clone()], || {
        // Nobody else says meanwhile what was before.
        assert!(index.tables.try_write().is_err());
        vec![kept.clone()]
    });
    assert_eq!(withdrawn(), [false, true]);
    index.keys_changed(vec![kept.clone()], || vec![kept.clone(), gone.clone()]);
    assert_eq!(withdrawn(), [false, false]);
}
