//! What is said on standard output: for people a line, for machines a JSON object.

use std::{io::Write, time::Duration};

use sluicegate_relay::session::Status;

/// How to say it.
#[derive(Clone, Copy)]
pub(super) struct Report {
    /// As JSON lines.
    pub(super) json: bool,
}

impl Report {
    /// One line on standard output.
    pub(super) fn tell(self, event: &str, fields: &[(&str, &str)]) {
        let line = if self.json {
            let mut object = serde_json::Map::new();
            object.insert("event".into(), event.into());
            object.extend(
                fields
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).into())),
            );
            serde_json::Value::Object(object).to_string()
        } else {
            fields
                .iter()
                .fold(event.to_owned(), |line, (_, value)| line + " " + value)
        };
        // Whoever read it may have gone: that is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Tells what the connection does, once per change, for as long as there is one to keep. Machines only: people have
    /// the log.
    pub(super) async fn follow(
        self,
        mut status: tokio::sync::watch::Receiver<Status>,
        gateway: String,
    ) {
        if !self.json {
            return std::future::pending().await;
        }
        while status.changed().await.is_ok() {
            let now = status.borrow_and_update().clone();
            self.status(&gateway, &now);
        }
    }

    fn status(self, gateway: &str, now: &Status) {
        match now {
            Status::Connecting => {}
            Status::Connected { transport, why } => self.tell(
                "connected",
                &[
                    ("gateway", gateway),
                    ("transport", transport.label()),
                    ("why", why),
                ],
            ),
            Status::Unauthorized { reason } => {
                self.tell("unauthorized", &[("gateway", gateway), ("reason", reason)]);
            }
            Status::Waiting { reason, wait } => {
                let wait =
                    humantime::format_duration(Duration::from_millis(wait.as_millis() as u64))
                        .to_string();
                self.tell("reconnecting", &[("reason", reason), ("wait", &wait)]);
            }
        }
    }
}
