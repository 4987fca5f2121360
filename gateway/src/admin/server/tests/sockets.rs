//! Unix sockets of the host: who may name which.
use super::*;
use crate::session::testing::{ceiling, config};

const DOCKER: &str = r#"{"id": "mine", "services": {"db": "unix:///run/docker.sock"}}"#;

#[tokio::test]
async fn a_bounded_credential_names_no_socket_that_is_not_listed() {
    let g = gateway();
    for name in ["team", "two", "ann"] {
        let path = format!("namespaces/team/{SESSIONS}");
        let refused = g.by(name, "POST", &path, DOCKER).await;
        assert_eq!(refused.status, 422, "{name}: {}", refused.body);
        let fault = &refused.body["errors"][0];
        assert_eq!(fault["path"], "services.db");
        let hint = fault["hint"].as_str().unwrap();
        let key = "runtime.providers.local.egress.ceiling.sockets";
        assert!(hint.contains(key), "{hint}");
    }
    for name in ["operator", "team"] {
        let body = DOCKER.replace("mine", name);
        let tcp = body.replace("unix:///run/docker.sock", "tcp://127.0.0.1:1");
        let (body, expected) = match name {
            "operator" => (body, 201),
            _ => (tcp, 201),
        };
        let asked = g.by(name, "POST", SESSIONS, &body).await;
        assert_eq!(asked.status, expected, "{name}: {}", asked.body);
    }
    // What is asked for is explained as it would be judged.
    let question = r#"{"target": "a.test", "services": {"db": "unix:///run/docker.sock"}}"#;
    let asked = g.by("team", "POST", "policy:explain", question).await;
    assert_eq!(asked.status, 422, "{}", asked.body);
    let asked = g.by("reader", "POST", "policy:explain", question).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
}

#[tokio::test]
async fn whose_word_a_socket_is_goes_with_the_session() {
    let g = gateway();
    let one = format!("namespaces/team/{SESSIONS}/mine");
    let path = format!("namespaces/team/{SESSIONS}");
    let made = g.call("POST", &path, DOCKER).await;
    assert_eq!(made.status, 201, "{}", made.body);
    // What the operator gave stays while the tenant changes something else.
    let limits = r#"{"limits": {"tunnels": 3}}"#;
    let changed = g.by("team", "PATCH", &one, limits).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let same = r#"{"services": {"db": "unix:///run/docker.sock"}}"#;
    let changed = g.by("team", "PATCH", &one, same).await;
    assert_eq!(changed.status, 422, "{}", changed.body);
    let mut other = config();
    other.own_sockets.clear();
    g.fixture.registry.replace_config(other).await.unwrap();
    let shown = g.by("team", "GET", &one, "").await;
    assert_eq!(shown.body["session"]["state"], "running", "{}", shown.body);
}

#[tokio::test]
async fn a_list_holds_for_everybody_and_a_shorter_one_pauses() {
    let mut listed = config();
    let provider = listed.providers.get_mut("local").unwrap();
    provider.ceiling = ceiling("{sockets: [/run/app/, /run/docker.sock]}");
    let g = gateway_of(Fixture::with(listed.clone()));
    let made = g.by("team", "POST", SESSIONS, DOCKER).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let other = DOCKER.replace("docker", "other").replace("mine", "other");
    let refused = g.call("POST", SESSIONS, &other).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.to_string().contains("ceiling.sockets"));

    for (list, state, mended) in [
        ("{sockets: [/run/app/]}", "paused", 422),
        // Without a list there is none for a tenant.
        ("{}", "paused", 422),
        ("{sockets: [/run/docker.sock]}", "paused", 200),
    ] {
        listed.providers.get_mut("local").unwrap().ceiling = ceiling(list);
        let registry = &g.fixture.registry;
        registry.replace_config(listed.clone()).await.unwrap();
        let one = format!("{SESSIONS}/mine");
        let shown = g.by("team", "GET", &one, "").await;
        assert_eq!(shown.body["session"]["state"], state, "{list}");
        let resume = g.by("team", "POST", &format!("{one}:resume"), "").await;
        assert_eq!(resume.status, mended, "{list}: {}", resume.body);
    }
}
