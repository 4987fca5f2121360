//! Lifecycle events and access records, as they are stored and as they happen.

use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    client::{Client, ClientArgs},
    failure::{Failure, UNREACHABLE},
    output::{is_closed, printable, text},
};

/// Between two attempts to come back: doubled from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

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
            // One without data says where the stream begins.
            if !message.data.is_empty() || message.id.is_some() {
                found.push(message);
            }
        }
        found
    }
}

pub(super) async fn run(args: EventsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let stream = Stream {
        follow: args.follow,
        after: args.after,
    };
    stream.show(&client, args.client.json, |_| true).await
}

/// A stream of events, and how far it was read.
pub(super) struct Stream {
    /// Goes on as things happen: where the gateway goes away, from there on once it is back.
    pub(super) follow: bool,
    /// The last cursor that was shown.
    pub(super) after: Option<u64>,
}

/// Why reading stopped.
enum End {
    /// Nobody reads what is shown.
    Closed,
    /// The gateway ended the stream.
    Ended,
    /// The connection was lost.
    Lost(Failure),
}

impl Stream {
    /// Show what it brings and `wanted` wants, until it ends.
    pub(super) async fn show(
        mut self,
        client: &Client,
        json: bool,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<(), Failure> {
        let (mut begun, mut pause) = (false, PAUSE.0);
        loop {
            let mut driver = JoinSet::new();
            let why = match client.open(&mut driver, &self.path()).await {
                Ok(body) => {
                    (begun, pause) = (true, PAUSE.0);
                    match self.read(body, json, &wanted).await {
                        End::Closed => return Ok(()),
                        End::Ended if !self.follow => return Ok(()),
                        End::Lost(failure) if !self.follow => return Err(failure),
                        End::Ended => "the gateway ended the stream".to_owned(),
                        End::Lost(failure) => failure.to_string(),
                    }
                }
                // Not at the first attempt: that is a wrong address.
                Err(failure) if begun && failure.code() == UNREACHABLE => failure.to_string(),
                Err(failure) => return Err(failure),
            };
            note!("{}", again(&why));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn path(&self) -> String {
        let after = self.after.map(|after| format!("&after={after}"));
        let follow = self.follow;
        format!(
            "/admin/api/v1/events?follow={follow}{}",
            after.unwrap_or_default()
        )
    }

    async fn read(
        &mut self,
        mut body: Incoming,
        json: bool,
        wanted: &impl Fn(&Value) -> bool,
    ) -> End {
        let mut reader = Reader::default();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    let why = format!("the gateway went away: {error}");
                    return End::Lost(Failure::new(UNREACHABLE, why));
                }
            };
            let data = frame.data_ref().map(|data| reader.feed(data));
            for message in data.unwrap_or_default() {
                self.passed(&message);
                if message.data.is_empty() {
                    continue;
                }
                let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
                if wanted(&data) {
                    show(&message, &data, json);
                    if is_closed() {
                        return End::Closed;
                    }
                }
            }
        }
        End::Ended
    }

    /// Shown or not, it is behind us.
    fn passed(&mut self, message: &Message) {
        let cursor = message.id.as_deref().and_then(|id| id.parse().ok());
        self.after = match message.event.as_str() {
            // Another store, which counts from its own beginning.
            "reset" => Some(0),
            _ => cursor.or(self.after),
        };
    }
}

/// Of what to do about it only what is done.
fn again(why: &str) -> String {
    let first = why.lines().next().unwrap_or_default();
    format!("sluicegate: {}; asking again", printable(first))
}

fn show(message: &Message, body: &Value, json: bool) {
    if json {
        say!("{}", message.data);
        return;
    }
    let session = body.get("session").cloned();
    // What is of a namespace and of no session has that name alone.
    let session = session.unwrap_or_else(|| json!({ "namespace": body.get("namespace") }));
    // Whole: sessions of two tenants may have provider and id in common.
    let who = ["namespace", "provider", "id"].map(|key| text(&session, key));
    let who = who.join("/");
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
    fn it_goes_on_where_it_was() {
        let mut stream = Stream {
            follow: true,
            after: None,
        };
        assert_eq!(stream.path(), "/admin/api/v1/events?follow=true");
        let told = b"event: session\nid: 7\ndata: {}\n\nevent: access\ndata: {}\n\n";
        for message in Reader::default().feed(told) {
            stream.passed(&message);
        }
        assert_eq!(stream.path(), "/admin/api/v1/events?follow=true&after=7");
        for message in Reader::default().feed(b"event: reset\ndata: {}\n\n") {
            stream.passed(&message);
        }
        assert_eq!(stream.after, Some(0));
    }

    #[test]
    fn it_goes_on_where_it_began_when_nothing_happened_since() {
        let mut stream = Stream {
            follow: true,
            after: None,
        };
        for message in Reader::default().feed(b": ready\nid: 41\n\n: alive\n\n") {
            assert_eq!(message.data, "");
            stream.passed(&message);
        }
        assert_eq!(stream.after, Some(41));
    }

    #[test]
    fn why_it_asks_again_is_one_line() {
        let why = "cannot reach the gateway\nIs it running?";
        assert_eq!(
            again(why),
            "sluicegate: cannot reach the gateway; asking again"
        );
    }

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
