#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{net::TcpListener, os::unix::fs::PermissionsExt};

use serde_json::Value;

use super::*;
use crate::session::{
    lifecycle::Action,
    testing::{Fixture, config, patch, request},
};

async fn create(f: &Fixture, source: &str) -> Value {
    let issued = f.registry.create("local".into(), request(source)).await;
    issued.unwrap().view
}

async fn act(f: &Fixture, action: Action) -> Value {
    let issued = f.registry.act(f.key("one"), action, None).await;
    issued.unwrap().view
}

fn path(view: &Value, name: &str) -> PathBuf {
    let target = view["dialTargets"][name].as_str().unwrap();
    target.strip_prefix("unix://").unwrap().into()
}

fn private() -> Fixture {
    let mut config = config();
    config.dial.private = Some(("dial.test".into(), 9444));
    Fixture::with(config)
}

#[tokio::test]
async fn a_place_lives_as_long_as_its_generation() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: {plugin: unix, db: tcp}}").await;
    let socket = path(&view, "plugin");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
    let tcp = view["dialTargets"]["db"].as_str().unwrap();
    assert!(tcp.starts_with("tcp://127.0.0.1:"), "{tcp}");
    let paused = act(&f, Action::Pause).await;
    assert_eq!(paused["dialTargets"], view["dialTargets"]);
    let resumed = act(&f, Action::Resume).await;
    assert_eq!(resumed["dialTargets"], view["dialTargets"]);
    let idle = act(&f, Action::Reset).await;
    assert_eq!(idle.get("dialTargets"), None);
    assert!(!socket.exists() && !socket.parent().unwrap().exists());
    let again = act(&f, Action::Start).await;
    assert_eq!(path(&again, "plugin"), socket, "the session's own place");
    assert!(socket.exists());
    act(&f, Action::Stop).await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_patch_changes_only_what_it_names() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: [a, b]}").await;
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).unwrap().ino()
    };
    let before = inode(&path(&view, "a"));
    let patched = f
        .registry
        .patch(
            f.key("one"),
            patch("{expose: {a: {dial: unix, patience: 3s}, c: unix}}"),
        )
        .await
        .unwrap()
        .view;
    assert_eq!(inode(&path(&patched, "a")), before, "the same socket");
    assert!(path(&patched, "c").exists());
    assert!(!path(&view, "b").exists());
    assert_eq!(patched["dialTargets"].as_object().unwrap().len(), 2);
}

/// What is mounted over it hides what comes into it, and goes with it.
#[tokio::test]
async fn the_directory_of_its_sockets_is_the_generations() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: [a]}").await;
    let directory = path(&view, "a").parent().unwrap().to_owned();
    for expose in ["{expose: {}}", "{expose: [b]}", "{expose: {}}"] {
        let patched = f.registry.patch(f.key("one"), patch(expose)).await;
        patched.unwrap();
        assert!(directory.exists(), "{expose}");
    }
    act(&f, Action::Reset).await;
    assert!(!directory.exists());
}

#[tokio::test]
async fn sockets_come_back_with_the_process_and_leftovers_go() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: [plugin]}").await;
    let left = f.dir.path().join("listeners/dead");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("x.sock"), "").unwrap();
    let f = f.restarted();
    assert!(!left.exists());
    assert!(path(&view, "plugin").exists());
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(shown["dialTargets"], view["dialTargets"]);
}

#[tokio::test]
async fn names_on_the_private_listener_belong_to_one_generation() {
    let f = private();
    let view = create(&f, "{id: one, expose: {plugin: tls}}").await;
    let target = view["dialTargets"]["plugin"].as_str().unwrap();
    let name = target.strip_prefix("tls://").unwrap();
    let name = name.strip_suffix(":9444").unwrap();
    assert!(
        name.starts_with("plugin--") && name.ends_with(".dial.test"),
        "{name}"
    );
    let (session, listener) = f.registry.dials().named(name).unwrap();
    assert_eq!(
        (session.key(), listener.as_str()),
        (&f.key("one"), "plugin")
    );
    for other in [
        "plugin.dial.test",
        "dial.test",
        "",
        &format!("x.{name}"),
        &name.replace("dial", "else"),
    ] {
        assert!(f.registry.dials().named(other).is_none(), "{other}");
    }
    act(&f, Action::Reset).await;
    assert!(f.registry.dials().named(name).is_none());
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_name() {
    let long = "x".repeat(63);
    for (source, message) in [
        (
            "{expose: {plugin: tls}}".to_owned(),
            "no listener of kind private",
        ),
        (
            "{expose: {plugin: {dial: tcp, port: 5432}}}".to_owned(),
            "a fixed port is the operator's to give",
        ),
        (format!("{{expose: {{{long}: unix}}}}"), "Linux takes 107"),
    ] {
        let f = Fixture::new();
        let error = f.registry.create("local".into(), request(&source)).await;
        match error.unwrap_err() {
            crate::session::RegistryError::Faults(faults) => {
                assert!(faults.to_string().contains(message), "{source}: {faults}");
            }
            other => panic!("{source}: {other}"),
        }
    }
    let f = private();
    let source = format!("{{expose: {{{}: tls}}}}", "x".repeat(50));
    let error = f.registry.create("local".into(), request(&source)).await;
    assert!(matches!(
        error.unwrap_err(),
        crate::session::RegistryError::Faults(_)
    ));
}

#[tokio::test]
async fn a_dial_target_is_no_host_service() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: [plugin]}").await;
    let url = view["dialTargets"]["plugin"].as_str().unwrap();
    let source = format!("{{services: {{back: '{url}'}}}}");
    let error = f.registry.create("local".into(), request(&source)).await;
    assert!(matches!(
        error.unwrap_err(),
        crate::session::RegistryError::Faults(_)
    ));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_fails_nothing_else() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut config = config();
    let defaults = format!("{{expose: {{db: {{dial: tcp, port: {port}}}, plugin: unix}}}}");
    let defaults = request(&defaults).grant.document;
    config.providers.get_mut("local").unwrap().defaults = defaults;
    let f = Fixture::with(config);
    let view = create(&f, "{id: one}").await;
    let error = view["dialErrors"]["db"].as_str().unwrap();
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(path(&view, "plugin").exists());
    drop(taken);
    let again = act(&f, Action::Start).await;
    assert_eq!(
        again["dialTargets"]["db"],
        format!("tcp://127.0.0.1:{port}")
    );
    assert_eq!(again.get("dialErrors"), None);
}

fn tcp(view: &Value, name: &str) -> SocketAddr {
    let target = view["dialTargets"][name].as_str().unwrap();
    target.strip_prefix("tcp://").unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_chosen_port_is_the_generations_over_restarts_and_changes() {
    let f = Fixture::new();
    let before = create(&f, "{id: one, expose: {db: tcp}}").await;
    let f = f.restarted();
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(tcp(&shown, "db"), tcp(&before, "db"));
    // Whoever serves the socket has not let go of it yet.
    let mut offers = f.registry.dials().take_offers().unwrap();
    let served = offers.try_recv().unwrap().door.open().unwrap();
    let patched = patch("{expose: {db: {dial: tcp, patience: 3s}}}");
    let patched = f.registry.patch(f.key("one"), patched).await.unwrap().view;
    assert_eq!(tcp(&patched, "db"), tcp(&before, "db"), "on other terms");
    assert_eq!(patched.get("dialErrors"), None);
    // Nor does an offer nobody took outlive the process.
    drop((served, offers));
    let f = f.restarted();
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(tcp(&shown, "db"), tcp(&before, "db"));
}

#[tokio::test]
async fn the_port_of_a_session_that_cannot_go_on_is_nobody_elses() {
    let with_private = || {
        let mut config = config();
        config.dial.private = Some(("dial.test".into(), 9444));
        config
    };
    let f = Fixture::with(with_private());
    let view = create(&f, "{id: one, expose: {plugin: tls, db: tcp}}").await;
    let address = tcp(&view, "db");
    // Without the private listener its grant does not hold.
    let f = f.restarted();
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(shown["dialTargets"].get("db"), None, "{shown}");
    let taken = TcpListener::bind(address).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    // With it, it is where it was.
    let f = f.restarted_with(with_private());
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(tcp(&shown, "db"), address);
    // Nor does it keep anything when it is over.
    let f = f.restarted();
    act(&f, Action::Stop).await;
    TcpListener::bind(address).unwrap();
}

#[tokio::test]
async fn the_port_of_a_session_that_cannot_go_on_is_waited_for_where_somebody_took_it() {
    let f = private();
    let view = create(&f, "{id: one, expose: {plugin: tls, db: tcp}}").await;
    let address = tcp(&view, "db");
    let Fixture { dir, registry } = f;
    drop(registry);
    let stranger = TcpListener::bind(address).unwrap();
    // Without the private listener its grant does not hold.
    let registry = crate::session::testing::open(dir.path().into(), config());
    let f = Fixture { dir, registry };
    for _ in 0..2 {
        let shown = f.registry.show(&f.key("one")).unwrap();
        let error = shown["dialErrors"]["db"].as_str().unwrap();
        assert!(error.contains(&address.to_string()), "{error}");
        f.sweep(std::time::SystemTime::now());
        assert_eq!(f.registry.dials().missing(), 1);
    }
    let of = |events: &[String], kind: &str| events.iter().filter(|event| *event == kind).count();
    let events = f.events().await;
    assert_eq!(of(&events, "session.dialTargetMissing"), 1, "said once");
    drop(stranger);
    f.sweep(std::time::SystemTime::now());
    assert_eq!(f.registry.dials().missing(), 0);
    let taken = TcpListener::bind(address).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(of(&f.events().await, "session.dialTargetFound"), 1);
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(shown.get("dialErrors"), None);
}

#[tokio::test]
async fn a_chosen_port_that_somebody_took_is_waited_for_and_no_other_is_chosen() {
    let f = Fixture::new();
    let view = create(&f, "{id: one, expose: {db: tcp, plugin: unix}}").await;
    let address = tcp(&view, "db");
    let Fixture { dir, registry } = f;
    drop(registry);
    let stranger = TcpListener::bind(address).unwrap();
    let registry = crate::session::testing::open(dir.path().into(), config());
    let f = Fixture { dir, registry };
    let missing = |events: &[String]| {
        let kind = "session.dialTargetMissing";
        events.iter().filter(|event| *event == kind).count()
    };
    for _ in 0..3 {
        let shown = f.registry.show(&f.key("one")).unwrap();
        assert_eq!(shown["dialTargets"].get("db"), None);
        let error = shown["dialErrors"]["db"].as_str().unwrap();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(path(&shown, "plugin").exists());
        assert_eq!(missing(&f.events().await), 1, "said once");
        f.sweep(std::time::SystemTime::now());
    }
    // Nothing of it is forgotten meanwhile.
    let f = f.restarted();
    assert!(f.registry.show(&f.key("one")).unwrap()["dialErrors"]["db"].is_string());
    drop(stranger);
    f.sweep(std::time::SystemTime::now());
    let shown = f.registry.show(&f.key("one")).unwrap();
    assert_eq!(tcp(&shown, "db"), address);
    assert_eq!(shown.get("dialErrors"), None);
    let events = f.events().await;
    assert!(
        events.contains(&"session.dialTargetFound".to_owned()),
        "{events:?}"
    );
    // The next generation has places of its own.
    act(&f, Action::Reset).await;
    let again = act(&f, Action::Start).await;
    assert_ne!(tcp(&again, "db").port(), 0);
    assert_eq!(again.get("dialErrors"), None);
}
