//! A real browser behind the `https://` proxy: headless Chromium, which speaks HTTP/2 to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::{Program, World};
use serde_json::Value;

#[tokio::test]
async fn allowed_pages_load_and_denied_ones_show_the_refusal() {
    let world = World::start().await;
    let session = world.session().await;
    let home = tempfile::tempdir().unwrap();
    let (user, password) = session.userinfo().split_once(':').unwrap();
    let (over_tls, plain) = (
        format!("https://{}/echo", world.api()),
        format!("http://{}/echo", world.plain()),
    );
    let chromium = Program::python("chromium.py")
        .arg(world.gateway.ports.public.to_string())
        .args([user, password])
        .arg(session.bundle())
        .arg(home.path())
        .args([&over_tls, &plain])
        .args(["https://evil.test/", "http://evil.test/"]);
    let said = chromium.run().await.succeeded();
    let pages: Vec<Value> = serde_json::from_str(&said).unwrap();
    let [tls, http, denied_tls, denied] = &pages[..] else {
        panic!("{said}");
    };
    // Allowed: the pages are there.
    for page in [tls, http] {
        assert_eq!(
            (&page["error"], &page["status"]),
            (&Value::Null, &200.into()),
            "{page}"
        );
        assert!(page["text"].as_str().unwrap().contains("request"), "{page}");
    }
    // Denied: a browser shows nothing of a refused CONNECT but that the tunnel failed; the plain page is ours.
    assert_eq!(denied_tls["error"], "net::ERR_TUNNEL_CONNECTION_FAILED");
    assert_eq!(denied["status"], 403, "{denied}");
    let text = denied["text"].as_str().unwrap();
    assert!(
        text.contains("host_not_allowed") && text.contains("evil.test"),
        "{text}"
    );
    let gateway = &world.gateway;
    for (front, status) in [
        ("connect", 200),
        ("forward", 200),
        ("connect", 403),
        ("forward", 403),
    ] {
        let wanted = |r: &e2e::Record| {
            let answered = r.number("status") == Some(status);
            r.text("front") == front && r.text("protocol") == "h2" && answered
        };
        gateway.record(&format!("{front}, {status}"), wanted).await;
    }
    let asked = format!("{:?}", world.dns.queries());
    assert!(
        !asked.contains("evil"),
        "a denied name was asked for: {asked}"
    );
}
