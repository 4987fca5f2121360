//! What is left of a provider that a reload has taken away.
use super::*;
use crate::session::testing::config;

#[tokio::test]
async fn sessions_of_a_provider_that_is_gone_are_there_to_be_ended() {
    let g = gateway();
    let made = g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let mut without = config();
    without.providers.clear();
    g.fixture.registry.replace_config(without).await.unwrap();
    for path in [SESSIONS, "sessions?provider=local"] {
        let list = g.call("GET", path, "").await;
        assert_eq!(list.status, 200, "{path}: {}", list.body);
        assert_eq!(list.body["sessions"][0]["id"], "one", "{path}");
        assert_eq!(list.body["sessions"][0]["state"], "paused", "{path}");
    }
    let resume = g.call("POST", &format!("{SESSIONS}/one:resume"), "").await;
    assert_eq!(resume.status, 422, "{}", resume.body);
    let why = "the configuration has no provider \"local\" any more";
    assert_eq!(resume.body["errors"][0]["message"], why);
    assert_eq!(g.call("POST", SESSIONS, "{}").await.status, 404);
    let stop = g.call("POST", &format!("{SESSIONS}/one:stop"), "").await;
    assert_eq!(stop.status, 200, "{}", stop.body);
    let other = "sessions?provider=never";
    assert_eq!(g.call("GET", other, "").await.status, 404);
}
