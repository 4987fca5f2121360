//! Bodies of requests that are refused.

use super::{RULES, Stage, get, head, refusal, say};

fn post(framing: &str) -> String {
    format!("POST /v2 HTTP/1.1\r\nHost: web.local\r\n{framing}\r\n\r\n")
}

/// RFC 9112 §9.3, §9.6.
#[tokio::test]
async fn a_refusal_that_leaves_a_body_unread_ends_the_stream_and_says_so() {
    let stage = Stage::new(RULES, "").await;
    // More than is read of what is refused, and what is not asked for.
    for framing in [
        "Content-Length: 100000",
        "Content-Length: 5\r\nExpect: 100-continue",
    ] {
        let mut near = stage.dial().await;
        // Each stream has a connection to the service from its beginning.
        drop(stage.accept().await);
        say(&mut near, &post(framing)).await;
        let (refused, body) = refusal(&mut near).await;
        assert!(body.contains("path_not_allowed"), "{framing}: {body}");
        assert!(refused.contains("connection: close\r\n"), "{refused}");
    }
    // What is little is read, and the next request served.
    let mut near = stage.dial().await;
    say(&mut near, &(post("Content-Length: 5") + "hello")).await;
    let (refused, body) = refusal(&mut near).await;
    assert!(body.contains("path_not_allowed"), "{body}");
    assert!(!refused.contains("connection: close"), "{refused}");
    say(&mut near, &get("/v1", "")).await;
    let mut far = stage.accept().await;
    assert!(head(&mut far).await.starts_with("GET /v1 "));
}
