//! `status`, `reload`, `drain`.

use http::Method;
use serde_json::Value;

use super::{
    client::{Client, ClientArgs},
    failure::Failure,
    output::{printable, text},
    provider::summary,
};

pub(super) async fn status(args: &ClientArgs) -> Result<(), Failure> {
    let body = Client::new(args)?
        .call(Method::GET, "/admin/api/v1/status", None)
        .await?
        .body;
    if args.json {
        println!("{body:#}");
        return Ok(());
    }
    let ready = match body.get("notReady").and_then(Value::as_str) {
        None => "ready".to_owned(),
        Some(why) => format!("not ready: {why}"),
    };
    println!("sluicegate {}: {ready}", text(&body, "version"));
    let store = body
        .get("storeReadable")
        .and_then(Value::as_bool)
        .unwrap_or_default();
    println!(
        "store: {}",
        if store {
            "readable"
        } else {
            "UNREADABLE, new work is refused"
        }
    );
    for listener in body
        .get("listeners")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        println!(
            "listener: {} {}",
            text(listener, "kind"),
            text(listener, "address")
        );
    }
    let counts = body.get("sessions").and_then(Value::as_object);
    let counts: Vec<String> = counts
        .into_iter()
        .flatten()
        .map(|(state, n)| format!("{n} {state}"))
        .collect();
    println!(
        "sessions: {}",
        if counts.is_empty() {
            "none".into()
        } else {
            counts.join(", ")
        }
    );
    let providers = body.get("providers").and_then(Value::as_array);
    print!(
        "{}",
        summary(providers.map(Vec::as_slice).unwrap_or_default())
    );
    Ok(())
}

pub(super) async fn reload(args: &ClientArgs) -> Result<(), Failure> {
    let body = Client::new(args)?
        .call(Method::POST, "/admin/api/v1/reload", None)
        .await?
        .body;
    if args.json {
        println!("{body:#}");
    } else {
        let detail = body
            .get("detail")
            .and_then(Value::as_str)
            .unwrap_or_default();
        for line in detail.lines() {
            println!("reloaded: {}", printable(line));
        }
    }
    Ok(())
}

pub(super) async fn drain(args: &ClientArgs) -> Result<(), Failure> {
    let body = Client::new(args)?
        .call(Method::POST, "/admin/api/v1/drain", None)
        .await?
        .body;
    if args.json {
        println!("{body:#}");
    } else {
        println!("draining: new work is refused, tunnels have until the drain timeout");
    }
    Ok(())
}
