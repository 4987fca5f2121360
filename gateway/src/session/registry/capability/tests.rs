#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use sluicegate_policy::{
    Target,
    text::{self, Faults},
};

use super::*;
use crate::session::{
    Capability, Session,
    lifecycle::Action,
    testing::{Fixture, config, patch, request},
};

fn grant(source: &str) -> sluicegate_policy::GrantDocument {
    let mut faults = Faults::default();
    let node = text::parse(source, &mut faults);
    let document = sluicegate_policy::GrantDocument::read(&node, &mut faults);
    assert!(faults.is_clean(), "{faults}");
    document
}

fn capability(source: &str) -> Capability {
    Capability {
        grant: grant(source),
        ..Capability::default()
    }
}

/// A catalogue of two.
fn catalogue() -> RegistryConfig {
    let github = Capability {
        secrets: vec!["github-token".into()],
        ..capability("{egress: {allowedHosts: [api.github.com]}, limits: {tunnels: 50}}")
    };
    let data = capability(
        "{egress: {allowedHosts: ['*.data.example.com']}, services: {db: 'tcp://127.0.0.1:5432', cache: 'unix:///run/c'}}",
    );
    RegistryConfig {
        capabilities: BTreeMap::from([("github".into(), github), ("data".into(), data)]),
        ..config()
    }
}

fn allows(session: &Session, target: &str) -> bool {
    let policy = session.policy().unwrap();
    sluicegate_policy::decide(&policy.grant, &Target::from_authority(target).unwrap()).is_ok()
}

fn living(f: &Fixture, id: &str) -> Arc<Session> {
    let live = f.registry.index().session(&f.key(id)).unwrap();
    live.session.clone()
}

async fn bind(f: &Fixture, name: &str, how: Bind) -> Result<Issued, RegistryError> {
    let (key, name) = (f.key("one"), name.to_owned());
    f.registry
        .change(&Behalf::nobody(), move |all, by, now| {
            all.bind_at(by, &key, &name, how, now)
        })
        .await
}

fn asked(name: &str, source: &str) -> BindingRequest {
    BindingRequest::read(name, source).unwrap()
}

fn messages(error: RegistryError) -> String {
    match error {
        RegistryError::Faults(faults) => faults.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_change_of_a_binding_is_one_policy_generation_that_living_tunnels_see() {
    let f = Fixture::with(catalogue());
    let create = request("{id: one, allow: [own.example.com]}");
    f.registry.create("local".into(), create).await.unwrap();
    let session = living(&f, "one");
    let steps = [
        (Bind::Install(asked("github", "")), true),
        (Bind::Enable(false), false),
        (Bind::Enable(true), true),
        (Bind::Uninstall, false),
    ];
    for (number, (how, reaches)) in (2..).zip(steps) {
        let mut watch = session.subscribe();
        watch.mark_unchanged();
        let issued = bind(&f, "github", how.clone()).await.unwrap();
        assert_eq!(issued.view["policyGeneration"], number, "{how:?}");
        assert!(watch.has_changed().unwrap(), "{how:?}");
        assert_eq!(session.policy().unwrap().number, number);
        assert_eq!(allows(&session, "api.github.com:443"), reaches, "{how:?}");
        assert!(allows(&session, "own.example.com:443"), "{how:?}");
    }
    let events = f.events().await;
    assert_eq!(
        events
            .iter()
            .filter(|e| *e == "session.policyChanged")
            .count(),
        4
    );
}

#[tokio::test]
async fn bindings_survive_pause_reset_generations_and_restarts() {
    let f = Fixture::with(catalogue());
    let create = request("{id: one, capabilities: [github, {name: data, services: [db]}]}");
    f.registry.create("local".into(), create).await.unwrap();
    let check = |f: &Fixture| {
        let session = living(f, "one");
        assert!(allows(&session, "api.github.com:443"));
        let policy = session.policy().unwrap();
        let services: Vec<String> = policy
            .grant
            .services()
            .map(|(n, _)| n.to_string())
            .collect();
        assert_eq!(services, ["db"], "narrowed to one of its two services");
        assert_eq!(policy.grant.limits().tunnels, Some(50));
    };
    check(&f);
    for actions in [
        &[Action::Pause, Action::Resume][..],
        &[Action::Reset, Action::Start],
    ] {
        for action in actions {
            f.registry.act(f.key("one"), *action, None).await.unwrap();
        }
        check(&f);
    }
    let f = f.restarted_with(catalogue());
    check(&f);
    let names: Vec<_> = f.registry.bindings(&f.key("one")).unwrap();
    assert_eq!(names[0]["name"], "github");
    assert_eq!(names[0]["secrets"], json!(["github-token"]));
    assert_eq!(names[1]["services"], json!(["db"]));
}

#[tokio::test]
async fn start_tells_which_bindings_changed_since_the_generation_began() {
    let f = Fixture::with(catalogue());
    f.registry
        .create("local".into(), request("{id: one, capabilities: [github]}"))
        .await
        .unwrap();
    let start = async || {
        let issued = f.registry.act(f.key("one"), Action::Start, None).await;
        issued.unwrap().stale
    };
    assert_eq!(start().await, Vec::<String>::new());
    bind(
        &f,
        "data",
        Bind::Install(asked("data", "{services: [cache]}")),
    )
    .await
    .unwrap();
    bind(&f, "github", Bind::Enable(false)).await.unwrap();
    let changed = ["service:cache", "capability:github", "capability:data"];
    assert_eq!(start().await, changed);
    assert_eq!(
        start().await,
        changed,
        "the first answer may have been lost"
    );
    let key = f.key("one");
    f.registry.act(key, Action::Reset, None).await.unwrap();
    assert_eq!(start().await, Vec::<String>::new(), "a new generation");
    assert_eq!(start().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_the_catalogue_does_not_have_is_refused_by_name() {
    let f = Fixture::with(catalogue());
    f.registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap();
    for (name, source, said) in [
        ("gitlab", "", "no capability \"gitlab\""),
        ("gitlab", "{enabled: false}", "no capability \"gitlab\""),
        ("data", "{services: [queue]}", "no service queue"),
    ] {
        let how = Bind::Install(asked(name, source));
        let text = messages(bind(&f, name, how).await.unwrap_err());
        assert!(text.contains(said), "{name} {source}: {text}");
    }
    for how in [
        Bind::Enable(true),
        Bind::Uninstall,
        Bind::Update(asked("github", "")),
    ] {
        let error = bind(&f, "github", how.clone()).await.unwrap_err();
        assert!(matches!(error, RegistryError::UnknownBinding(_)), "{how:?}");
    }
    for (source, said) in [
        ("{egress: {allowedHosts: [a.test]}}", "taken whole"),
        ("{services: {db: 'tcp://127.0.0.1:1'}}", "names services"),
        ("{surprise: 1}", "surprise"),
    ] {
        let text = BindingRequest::read("data", source)
            .unwrap_err()
            .to_string();
        assert!(text.contains(said), "{source}: {text}");
    }
    let view = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(
        view["policyGeneration"], 1,
        "nothing of that changed anything"
    );
}

#[tokio::test]
async fn update_narrows_anew_and_install_again_changes_nothing() {
    let f = Fixture::with(catalogue());
    f.registry
        .create("local".into(), request("{id: one, capabilities: [data]}"))
        .await
        .unwrap();
    let limit = |f: &Fixture| living(f, "one").policy().unwrap().grant.limits().tunnels;
    let again = bind(&f, "data", Bind::Install(asked("data", "")))
        .await
        .unwrap();
    assert!(!again.created);
    assert_eq!(again.view["policyGeneration"], 1);
    let how = Bind::Update(asked("data", "{limits: {tunnels: 3}}"));
    bind(&f, "data", how).await.unwrap();
    assert_eq!(limit(&f), Some(3));
    // What is not said stays.
    bind(&f, "data", Bind::Update(asked("data", "{enabled: true}")))
        .await
        .unwrap();
    assert_eq!(limit(&f), Some(3));
    f.registry
        .patch(f.key("one"), patch("{capabilities: [github]}"))
        .await
        .unwrap();
    assert_eq!(limit(&f), Some(50), "a patch replaces the list whole");
    f.registry
        .patch(f.key("one"), patch("{limits: {bytes: 1000}}"))
        .await
        .unwrap();
    assert_eq!(limit(&f), Some(50), "and leaves it where it is not named");
}

#[tokio::test]
async fn a_reload_takes_the_new_bundle_or_pauses_the_session() {
    let f = Fixture::with(catalogue());
    for source in ["{id: one, capabilities: [github]}", "{id: two}"] {
        f.registry
            .create("local".into(), request(source))
            .await
            .unwrap();
    }
    let mut next = catalogue();
    let other = capability("{egress: {allowedHosts: [api.gitlab.com]}}");
    next.capabilities.insert("github".into(), other);
    f.registry.replace_config(next.clone()).await.unwrap();
    let session = living(&f, "one");
    assert!(allows(&session, "api.gitlab.com:443") && !allows(&session, "api.github.com:443"));
    let view = f.registry.show(&f.key("two")).unwrap();
    assert_eq!(
        view["policyGeneration"], 1,
        "who is not bound is not touched"
    );

    next.capabilities.remove("github");
    let notes = f.registry.replace_config(next.clone()).await.unwrap();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("session one was paused")),
        "{notes:?}"
    );
    assert_eq!(
        (f.state("one"), f.state("two")),
        ("paused".into(), "running".into())
    );
    let resumed = f.registry.act(f.key("one"), Action::Resume, None).await;
    assert!(messages(resumed.unwrap_err()).contains("github"));
    // It can be looked at, with what is wrong of it marked.
    let resolved = f.registry.resolved(&f.key("one")).unwrap();
    assert_eq!(resolved["state"], "paused");
    let fault = resolved["fault"].as_str().unwrap();
    assert!(fault.contains("github"), "{fault}");
    let bound = &resolved["capabilities"][0];
    assert_eq!(
        (&bound["known"], &bound["enabled"]),
        (&json!(false), &json!(true))
    );
    assert!(bound["fault"].as_str().unwrap().contains("github"));
    let hosts = resolved["egress"]["allowedHosts"].as_array();
    assert!(
        hosts.is_none_or(Vec::is_empty),
        "it gives nothing: {hosts:?}"
    );
    let two = f.registry.resolved(&f.key("two")).unwrap();
    assert!(two["fault"].is_null());
    // Started while it is paused it stays so, as the table has it; what is wrong is named.
    for _ in 0..2 {
        let started = f.registry.act(f.key("one"), Action::Start, None).await;
        let started = started.unwrap();
        assert_eq!(started.view["state"], "paused");
        assert!(started.view["reason"].as_str().unwrap().contains("github"));
        assert_eq!(started.stale, ["capability:github"]);
        assert!(started.bundle.is_some());
    }
    bind(&f, "github", Bind::Uninstall).await.unwrap();
    f.registry
        .act(f.key("one"), Action::Resume, None)
        .await
        .unwrap();
    assert!(!allows(&living(&f, "one"), "api.gitlab.com:443"));
}

/// What a provider's own settings give must be allowed by themselves: else no session can be made of it.
#[tokio::test]
async fn a_provider_of_which_no_session_can_be_made_says_why() {
    let mut config = catalogue();
    let provider = config.providers["local"].clone();
    let broken = crate::session::ProviderConfig {
        defaults: grant("{services: {self: 'tcp://127.0.0.1:3128'}}"),
        ..provider
    };
    config.providers.insert("broken".into(), broken);
    let f = Fixture::with(config);
    assert_eq!(f.registry.provider_fault("local"), None);
    let fault = f.registry.provider_fault("broken").unwrap();
    assert!(fault.contains("is the gateway itself"), "{fault}");
    let refused = f.registry.create("broken".into(), request("{}")).await;
    assert!(messages(refused.unwrap_err()).contains(&fault));
}

#[tokio::test]
async fn the_resolved_grant_names_the_origin_of_every_entry() {
    let mut config = catalogue();
    config.base = grant("{egress: {deniedHosts: [bad.example.com]}}");
    let provider = config.providers.get_mut("local").unwrap();
    provider.defaults = grant(
        "{egress: {deniedHosts: [bad.example.com], allowedHosts: [p.example.com]}, limits: {tunnels: 80}, expose: [plugin]}",
    );
    let ide = capability("{expose: {plugin: tcp, shell: {dial: unix, patience: 2s}}}");
    config.capabilities.insert("ide".into(), ide);
    config.catalogue.insert(
        sluicegate_policy::ServiceName::parse("queue").unwrap(),
        grant("{services: {queue: 'tcp://127.0.0.1:9'}}")
            .services
            .into_values()
            .next()
            .unwrap(),
    );
    let f = Fixture::with(config);
    let create = request(
        "{id: one, allow: [api.github.com], services: [queue], limits: {bytes: 9}, expose: [own], capabilities: [github, data, ide]}",
    );
    f.registry.create("local".into(), create).await.unwrap();
    bind(&f, "data", Bind::Enable(false)).await.unwrap();
    let resolved = f.registry.resolved(&f.key("one")).unwrap();
    assert_eq!(
        resolved["egress"],
        json!({
            "allowedHosts": [
                {"value": "p.example.com", "from": ["provider"]},
                {"value": "api.github.com", "from": ["capability:github", "session"]},
            ],
            "deniedHosts": [{"value": "bad.example.com", "from": ["configuration"]}],
        })
    );
    assert_eq!(
        resolved["services"]["queue"],
        json!({
            "value": {"url": "tcp://127.0.0.1:9"}, "from": ["session"], "addressFrom": "catalogue"
        })
    );
    assert_eq!(
        resolved["expose"],
        json!({
            "own": {"value": {"dial": "unix"}, "from": ["session"]},
            "plugin": {"value": {"dial": "tcp"}, "from": ["provider", "capability:ide"]},
            "shell": {"value": {"dial": "unix", "patience": "2000ms"}, "from": ["capability:ide"]},
        })
    );
    let catalogue = f.registry.capabilities();
    let ide = catalogue.iter().find(|one| one["name"] == "ide").unwrap();
    assert_eq!(ide["expose"]["plugin"], json!({"dial": "tcp"}));
    assert_eq!(catalogue[0]["expose"], Value::Null);
    assert_eq!(
        resolved["limits"],
        json!({
            "tunnels": {"value": 50, "from": ["capability:github"]},
            "bytes": {"value": 9, "from": ["session"]},
        })
    );
    assert_eq!(
        resolved["secrets"],
        json!([{"name": "github-token", "from": ["capability:github"]}])
    );
    assert_eq!(resolved["capabilities"][1]["enabled"], false);
}

/// None is not the same as no word about them.
#[tokio::test]
async fn a_binding_that_takes_no_service_gives_none() {
    let f = Fixture::with(catalogue());
    f.registry
        .create("local".into(), request("{id: one}"))
        .await
        .unwrap();
    let services = |f: &Fixture| {
        let policy = living(f, "one").policy().unwrap();
        policy
            .grant
            .services()
            .map(|(name, _)| name.to_string())
            .collect::<Vec<_>>()
    };
    for (source, expected) in [
        ("{}", vec!["cache", "db"]),
        ("{services: [db]}", vec!["db"]),
        ("{services: []}", vec![]),
        ("{limits: {tunnels: 3}}", vec![]),
        ("{services: [db]}", vec!["db"]),
    ] {
        bind(&f, "data", Bind::Install(asked("data", source)))
            .await
            .unwrap();
        assert_eq!(services(&f), expected, "{source}");
        let view = f.registry.show(&f.key("one")).unwrap();
        let shown = &view["capabilities"][0]["services"];
        let all = expected.len() == 2;
        assert_eq!(
            *shown,
            if all {
                serde_json::Value::Null
            } else {
                json!(expected)
            }
        );
    }
    let config = catalogue();
    bind(&f, "data", Bind::Install(asked("data", "{services: []}")))
        .await
        .unwrap();
    bind(&f, "data", Bind::Enable(false)).await.unwrap();
    bind(&f, "data", Bind::Enable(true)).await.unwrap();
    let f = f.restarted_with(config);
    assert_eq!(services(&f), Vec::<String>::new());
}
