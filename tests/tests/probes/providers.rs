//! Whose effective profile a host service touches.

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::servers;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::door::Door;
use crate::lab::Lab;

/// `test` with further lines, and `other`.
fn of_two(lines: &str) -> String {
    format!(
        "{LOOPBACK_PROVIDER}      default: true\n{lines}    other:\n      hostServiceAccess: relay\n      egressMode: hostname\n      canHostPlugins: true\n"
    )
}

#[tokio::test]
async fn a_service_of_one_provider_is_asked_for_and_takes_nothing_from_another() {
    let redis = servers::redis().await;
    let door = Door::to(redis.address).await;
    let own = format!(
        "      services: {{cache: {{url: \"tcp://{}\", health: redis}}}}\n",
        door.address
    );
    let lab = Lab::of(&of_two(&own), "", "").await;
    lab.is_well().await;
    lab.becomes_of("other", "relay", "hostname", &[]).await;
    let works = Some("works".to_owned());
    assert_eq!(lab.state_of("test", "service:cache").await, works);
    assert_eq!(lab.state_of("other", "service:cache").await, None);
    door.leads(None);
    let setting = "runtime.providers.test.services.cache";
    lab.loses_a_service(setting, "cache of provider test is not well")
        .await;
    lab.becomes_of("other", "relay", "hostname", &[]).await;
    let reason = "cannot provide host service access required by this provider";
    assert_eq!(lab.placement("test", "{}").await, json!(reason));
    let brings = r#"{"services": {"db": "tls://db.example.com:5432"}}"#;
    assert_eq!(lab.placement("other", brings).await, Value::Null);
    door.leads(Some(redis.address));
    lab.is_well().await;
    assert_eq!(lab.state_of("test", "service:cache").await, works);
}

#[tokio::test]
async fn a_service_of_a_capability_is_asked_for_where_the_capability_can_be_bound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let front = path.display();
    let capability =
        format!("capabilities: {{web: {{services: {{front: \"unix://{front}\"}}}}}}\n");
    // No session of the other may have a socket but of this directory.
    let runtime = of_two("") + "      egress: {ceiling: {sockets: [/run/none/]}}\n";
    let lab = Lab::of(&runtime, "", &capability).await;
    lab.is_well().await;
    let name = "service:front@web";
    assert_eq!(lab.state_of("test", name).await, Some("works".to_owned()));
    assert_eq!(lab.state_of("other", name).await, None);
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    let setting = "capabilities.web.services.front";
    lab.loses_a_service(setting, "front of capability web is not well")
        .await;
    lab.becomes_of("other", "relay", "hostname", &[]).await;
    let _again = UnixListener::bind(&path).unwrap();
    lab.is_well().await;
}

#[tokio::test]
async fn a_shared_service_touches_all_that_can_be_granted_it() {
    let redis = servers::redis().await;
    let door = Door::to(redis.address).await;
    let shared = format!(
        "services: {{cache: {{url: \"tcp://{}\", health: redis}}}}\n",
        door.address
    );
    let lab = Lab::of(&of_two(""), "", &shared).await;
    lab.is_well().await;
    lab.becomes_of("other", "relay", "hostname", &[]).await;
    door.leads(None);
    let shortfall = ("hostServiceAccess", "services.cache", "cache is not well");
    lab.becomes("none", "hostname", &[shortfall]).await;
    lab.becomes_of("other", "none", "hostname", &[shortfall])
        .await;
    door.leads(Some(redis.address));
    lab.is_well().await;
    lab.becomes_of("other", "relay", "hostname", &[]).await;
}
