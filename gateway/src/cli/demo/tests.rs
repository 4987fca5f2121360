#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use anyhow::anyhow;

use super::*;
use show::{Seen, Step};

#[tokio::test(flavor = "multi_thread")]
async fn every_step_does_what_it_says_and_nothing_is_left_behind() {
    let mut stage = Stage::build().await.unwrap();
    let mut show = Show::new(true);
    tour::walk(&stage, &mut show).await.unwrap();
    assert!(show.passed());
    let directory = stage.path("");
    assert!(directory.exists());
    stage.close().await;
    drop(stage);
    assert!(!directory.exists());
}

#[test]
fn one_failed_step_fails_the_tour() {
    let step = Step {
        word: "allowed",
        what: "something",
        expected: "200",
    };
    let mut show = Show::new(true);
    assert!(!show.passed(), "no step proves nothing");
    show.step(step, Ok(Seen::new("200")));
    assert!(show.passed());
    show.step(step, Err(anyhow!("403")));
    show.step(step, Ok(Seen::new("200")));
    assert!(!show.passed());
    assert_ne!(show.verdict(), ExitCode::SUCCESS);
}
