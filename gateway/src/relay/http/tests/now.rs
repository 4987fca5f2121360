//! What the session may do when a request comes, not when its stream was opened.

use super::{Stage, get, head, refusal, say};
use crate::session::{lifecycle::Action, testing::patch};

/// An answer without a body, after which the service keeps its connection.
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// And one after which it does not.
const CLOSES: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// A stream that a pause holds is held open, and no more.
#[tokio::test]
async fn a_pause_that_holds_keeps_the_stream_and_takes_no_requests() {
    let stage = Stage::of("", "", ", onPause: hold").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/one", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    // With a connection to the service, and where there would have to be a new one.
    for (answer, again) in [(DONE, "/two"), (CLOSES, "/three")] {
        say(&mut far, answer).await;
        assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
        stage.act(Action::Pause).await;
        say(&mut near, &get("/paused", "")).await;
        let (refused, body) = refusal(&mut near).await;
        assert!(refused.starts_with("http/1.1 403"), "{refused}");
        assert!(body.contains("session_paused"), "{body}");
        stage.act(Action::Resume).await;
        say(&mut near, &get(again, "")).await;
        if answer == CLOSES {
            far = stage.accept().await;
        }
        let seen = head(&mut far).await;
        assert!(seen.contains(again), "{seen}");
    }
    let record = stage.requests("/paused").await;
    assert_eq!(record["reason"], "session_paused");
}

/// At a rate that the stream alone uses up.
#[tokio::test]
async fn a_stream_and_its_first_request_are_one_open() {
    let stage = Stage::of("", "", ", limits: {opensPerSecond: 1}").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = tokio::select! {
        far = stage.accept() => far,
        (refused, body) = refusal(&mut near) => panic!("{refused}{body}"),
    };
    // The service is connected to before the request is judged.
    tokio::select! {
        _ = head(&mut far) => {}
        (refused, body) = refusal(&mut near) => panic!("{refused}{body}"),
    }
    say(&mut far, DONE).await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
}

#[tokio::test]
async fn each_further_request_is_an_open() {
    let stage = Stage::new("", "").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    say(&mut far, DONE).await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
    let fixture = &stage.world.fixture;
    let limits = patch("{limits: {opensPerSecond: 1}}");
    let patched = fixture.registry.patch(fixture.key("one"), limits);
    patched.await.unwrap();
    let mut served = 0;
    // Two that are less than a second apart are enough.
    let refused = loop {
        say(&mut near, &get("/", "")).await;
        tokio::select! {
            // Nothing comes to be lost before the service has said something.
            (_, refused) = refusal(&mut near) => break refused,
            _ = head(&mut far) => {}
        }
        say(&mut far, DONE).await;
        assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
        served += 1;
        assert!(served < 100, "its rate is one a second");
    };
    assert!(refused.contains("too_many_opens"), "{refused}");
    assert!(served > 0, "the first of a second");
}

#[tokio::test]
async fn a_service_that_is_dialled_again_is_an_open_under_way() {
    let stage = Stage::new("", "").await;
    let mut near = stage.dial().await;
    say(&mut near, &get("/one", "")).await;
    let mut far = stage.accept().await;
    head(&mut far).await;
    say(&mut far, CLOSES).await;
    assert!(head(&mut near).await.starts_with("HTTP/1.1 204"));
    let fixture = &stage.world.fixture;
    let live = fixture.registry.index().session(&fixture.key("one"));
    let budget = live.unwrap().session.budget().clone();
    // As many as the world allows.
    let under_way: Vec<_> = std::iter::from_fn(|| budget.dial(1024).ok()).collect();
    say(&mut near, &get("/two", "")).await;
    let (refused, body) = refusal(&mut near).await;
    assert!(refused.starts_with("http/1.1 429"), "{refused}");
    assert!(body.contains("too_many_pending"), "{body}");
    drop(under_way);
    say(&mut near, &get("/three", "")).await;
    let mut far = stage.accept().await;
    assert!(head(&mut far).await.contains("/three"));
}
