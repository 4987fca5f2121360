#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use crate::session::{
    lifecycle::Action,
    testing::{Fixture, request},
};

fn lines(texts: std::ops::Range<u64>) -> Vec<LogLine> {
    let line = |n: u64| LogLine {
        time: None,
        stream: "stdout",
        text: format!("line {n}"),
    };
    texts.map(line).collect()
}

async fn append(f: &Fixture, id: &str, range: std::ops::Range<u64>) -> Result<u64, RegistryError> {
    let (key, lines) = (f.key(id), lines(range));
    f.registry
        .change(&Behalf::nobody(), move |all, by, now| {
            all.append_log_at(by, &key, lines, now)
        })
        .await
}

async fn read(f: &Fixture, after: u64, limit: usize) -> Value {
    let wait = Duration::ZERO;
    let by = Behalf::nobody();
    f.registry
        .log(&by, f.key("one"), after, limit, wait)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_oldest_records_are_dropped_and_counted_and_the_rest_survives() {
    let f = Fixture::new();
    let create = request("{id: one}");
    f.registry.create("local".into(), create).await.unwrap();
    assert_eq!(append(&f, "one", 1..4001).await.unwrap(), 4000);
    assert_eq!(read(&f, 0, 1).await["dropped"], 0);
    assert_eq!(append(&f, "one", 4001..4101).await.unwrap(), 4100);
    let f = f.restarted();
    let page = read(&f, 0, 3).await;
    assert_eq!((&page["first"], &page["last"]), (&json!(5), &json!(4100)));
    assert_eq!(page["dropped"], 4);
    assert_eq!(page["next"], 7);
    assert_eq!(page["records"][0]["text"], "line 5");
    assert_eq!(page["records"][0]["generation"], 1);
    let end = read(&f, 4100, 3).await;
    assert_eq!((&end["records"], &end["next"]), (&json!([]), &json!(4100)));
    // Its last words are taken after its end, and go with its record.
    f.registry
        .act(f.key("one"), Action::Stop, None)
        .await
        .unwrap();
    append(&f, "one", 1..2).await.unwrap();
    f.sweep(SystemTime::now() + Duration::from_secs(2 * 86_400));
    assert!(append(&f, "one", 1..2).await.is_err());
}

#[tokio::test]
async fn a_reader_that_waits_hears_the_next_line() {
    let f = Fixture::new();
    for id in ["one", "two"] {
        let create = request(&format!("{{id: {id}}}"));
        f.registry.create("local".into(), create).await.unwrap();
    }
    let patience = Duration::from_secs(60);
    let anybody = Behalf::nobody();
    let waiting = f.registry.log(&anybody, f.key("one"), 0, 10, patience);
    let speaking = async {
        // Another session's line wakes the reader and is not its own.
        append(&f, "two", 7..8).await.unwrap();
        append(&f, "one", 1..2).await.unwrap();
    };
    let (page, ()) = tokio::join!(waiting, speaking);
    assert_eq!(page.unwrap()["records"][0]["text"], "line 1");
}
