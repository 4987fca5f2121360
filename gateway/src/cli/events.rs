//! Lifecycle events and access records, as they are stored and as they happen.

use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, UNREACHABLE},
    output::{is_closed, printable, text},
};

/// `events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Go on as things happen, access records included. Without it: the lifecycle events stored.
    #[arg(long, short)]
    follow: bool,
    /// Begin after this cursor.
    #[arg(long, value_name = "CURSOR")]
    after: Option<u64>,
}

/// One message of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: String,
    id: Option<String>,
    data: String,
}

/// Bytes to messages, however they are cut (WHATWG HTML §9.2.6, as far as our own server uses it).
#[derive(Debug, Default)]
struct Reader {
    rest: Vec<u8>,
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.rest.drain(..end + 2).collect();
            let mut message = Message::default();
            for line in String::from_utf8_lossy(&block).lines() {
                match line.split_once(": ") {
                    Some(("event", value)) => message.event = value.into(),
                    Some(("id", value)) => message.id = Some(value.into()),
                    Some(("data", value)) => message.data.push_str(value),
                    Some(_) | None => {}
                }
            }
            if !message.data.is_empty() {
                found.push(message);
            }
        }
        found
    }
}

pub(super) async fn run(args: EventsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut path = format!("/admin/api/v1/events?follow={}", args.follow);
    if let Some(after) = args.after {
        path.push_str(&format!("&after={after}"));
    }
    follow(&client, &path, args.client.json, |_| true).await
}

/// Show what a stream of events brings and `wanted` wants, until it ends.
pub(super) async fn follow(
    client: &Client,
    path: &str,
    json: bool,
    wanted: impl Fn(&Value) -> bool,
) -> Result<(), Failure> {
    let mut driver = JoinSet::new();
    let mut body = client.open(&mut driver, path).await?;
    let mut reader = Reader::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::new(UNREACHABLE, format!("the gateway went away: {error}"))
        })?;
        for message in frame
            .data_ref()
            .map(|data| reader.feed(data))
            .unwrap_or_default()
        {
            let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
            if wanted(&data) {
                show(&message, &data, json);
                if is_closed() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn show(message: &Message, body: &Value, json: bool) {
    if json {
        say!("{}", message.data);
        return;
    }
    let session = body.get("session").cloned().unwrap_or_default();
    let who = format!("{}/{}", text(&session, "provider"), text(&session, "id"));
    let some = |key: &str| {
        Some(text(body, key))
            .filter(|t| t != "-")
            .map(|t| format!("{key}={t}"))
    };
    let more: Vec<String> = match message.event.as_str() {
        "session" => {
            let state = format!(
                "state={} generation={}",
                text(&session, "state"),
                text(&session, "generation")
            );
            [Some(state), some("reason")]
                .into_iter()
                .flatten()
                .collect()
        }
        "access" => [
            "kind",
            "method",
            "target",
            "service",
            "status",
            "outcome",
            "reason",
            "rule",
            "bytesUp",
            "bytesDown",
        ]
        .iter()
        .filter_map(|key| some(key))
        .collect(),
        _ => vec![printable(&message.data)],
    };
    let name = if message.event == "session" {
        text(body, "type")
    } else {
        message.event.clone()
    };
    let cursor = message.id.as_deref().unwrap_or("-");
    say!(
        "{} {cursor} {name} {who} {}",
        text(body, "time"),
        more.join(" ")
    );
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    #[test]
    fn messages_are_read_at_every_split() {
        let stream = b": ready\n\nevent: session\nid: 7\ndata: {\"a\":1}\n\nevent: access\ndata: {\"b\":\"x: y\"}\n\n";
        let whole = Reader::default().feed(stream);
        assert_eq!(whole.len(), 2);
        assert_eq!(
            (whole[0].event.as_str(), whole[0].id.as_deref()),
            ("session", Some("7"))
        );
        assert_eq!(whole[1].data, "{\"b\":\"x: y\"}");
        for at in 0..stream.len() {
            let mut reader = Reader::default();
            let mut found = reader.feed(&stream[..at]);
            found.extend(reader.feed(&stream[at..]));
            assert_eq!(found, whole, "split at {at}");
        }
    }
}
