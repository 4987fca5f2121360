//! What is over counts until it is gone.

use super::*;
use crate::session::{Quota, RegistryConfig, testing::config};

#[tokio::test]
async fn who_leaves_too_much_behind_is_told_what() {
    let g = gateway_of(Fixture::with(RegistryConfig {
        owner_quota: Quota {
            sessions: Some(1),
            records: Some(2),
            logs: Some(4000),
            ..Quota::default()
        },
        ..config()
    }));
    let create = async |id: &str, owner: &str| {
        let body = json!({ "id": id, "owner": owner }).to_string();
        g.call("POST", SESSIONS, &body).await
    };
    let append = async |id: &str, bytes: usize| {
        let record = json!({ "stream": "stdout", "text": "x".repeat(bytes) });
        let body = json!({ "records": [record] }).to_string();
        g.call("POST", &format!("{SESSIONS}/{id}/logs"), &body)
            .await
    };
    let refused = |answer: &Answer, what: &str| {
        assert_eq!(answer.status, 429, "{}", answer.body);
        assert_eq!(answer.body["type"], "urn:sluicegate:problem:quota");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains(what) && detail.contains("\"ann\""),
            "{detail}"
        );
    };
    for id in ["one", "two"] {
        assert_eq!(create(id, "ann").await.status, 201);
        assert_eq!(append(id, 1500).await.status, 200);
        let stopped = g.call("POST", &format!("{SESSIONS}/{id}:stop"), "").await;
        assert_eq!(stopped.status, 200);
    }
    let third = create("three", "ann").await;
    refused(&third, "records of sessions");
    assert_eq!(
        (&third.body["inUse"], &third.body["limit"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(create("three", "bob").await.status, 201);
    // A last word of a stopped one pushes out its own first; more than that is not there to be pushed out.
    assert_eq!(append("two", 1500).await.status, 200);
    let more = append("two", 3000).await;
    refused(&more, "bytes in logs");
    assert_eq!(more.body["limit"], 4000);
    let used = g.call("GET", "owners/ann", "").await.body["owner"].clone();
    assert_eq!(used["records"], json!({ "inUse": 2, "limit": 2 }));
    assert_eq!(used["logs"]["inUse"], more.body["inUse"]);
    assert_eq!(used["sessions"]["inUse"], 0);
}
