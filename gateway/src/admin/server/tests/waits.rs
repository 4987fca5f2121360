//! Requests that wait while the gateway goes down.
use std::time::Duration;

use super::*;

#[tokio::test]
async fn what_waits_is_answered_before_the_gateway_is_gone() {
    let g = gateway();
    let made = g.call("POST", SESSIONS, r#"{"id": "one"}"#).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("{SESSIONS}/one/logs?wait=60");
    // The first look at it begins the wait; then the gateway is asked to go.
    let waiting = g.call("GET", &path, "");
    let down = g.drain.run(Duration::ZERO, Duration::from_secs(30));
    let (answer, cut) = tokio::join!(waiting, down);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["records"], json!([]));
    assert_eq!(cut, 0, "it was waited for, and ended when it was asked");
}
