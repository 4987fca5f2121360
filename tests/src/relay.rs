//! `sluicegate-relay up` as a child process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::program::{Program, Running, binary};
use crate::session::Session;
use crate::tasks::until;

/// A running relay client with its listeners open. It is killed when dropped.
pub struct RelayClient {
    /// The process.
    pub process: Running,
    listening: BTreeMap<String, String>,
}

impl RelayClient {
    /// Starts `sluicegate-relay up --json` with the session's bundle, one `--listen` per entry, and waits
    /// until it has said of every listener that it is open.
    pub async fn up(session: &Session, listen: &[String]) -> Self {
        Self::start(session, &[], listen, &[]).await
    }

    /// As [`RelayClient::up`], by one transport alone.
    pub async fn up_over(session: &Session, transport: &str, listen: &[String]) -> Self {
        Self::up_with(session, &["--transport", transport], listen).await
    }

    /// As [`RelayClient::up`], with more arguments.
    pub async fn up_with(session: &Session, more: &[&str], listen: &[String]) -> Self {
        Self::start(session, more, listen, &[]).await
    }

    /// The same with one `--expose` per entry and no listener.
    pub async fn exposing(session: &Session, expose: &[String]) -> Self {
        Self::start(session, &[], &[], expose).await
    }

    async fn start(session: &Session, more: &[&str], listen: &[String], expose: &[String]) -> Self {
        // Several clients of one session: each has a log of its own.
        let number = std::fs::read_dir(session.directory()).unwrap().count();
        let log = session.directory().join(format!("relay-{number}.log"));
        let mut program = session.program(Program::new(binary("sluicegate-relay")));
        program = program.args(["up", "--json"]).args(more);
        for listener in listen {
            program = program.args(["--listen", listener]);
        }
        for exposed in expose {
            program = program.args(["--expose", exposed]);
        }
        let mut process = program.start(&log);
        let listening = until("the relay client's listeners", || {
            let ended = process.ended();
            assert_eq!(ended, None, "sluicegate-relay ended: {}", process.said());
            let listening = listeners(&process.said());
            (listening.len() == listen.len()).then_some(listening)
        })
        .await;
        Self { process, listening }
    }

    /// Waits until the client has said `event`, and answers what it said last of it.
    pub async fn event(&self, event: &str) -> Value {
        until(&format!("the client's event {event}"), || {
            events(&self.process.said()).rfind(|said| said["event"] == event)
        })
        .await
    }

    /// A path for a unix listener.
    pub fn socket(session: &Session, name: &str) -> PathBuf {
        session.directory().join(format!("{name}.sock"))
    }

    /// `NAME=unix://PATH`.
    pub fn unix(session: &Session, name: &str) -> String {
        format!("{name}=unix://{}", Self::socket(session, name).display())
    }

    /// `NAME=tcp://127.0.0.1:0`: the system chooses, [`RelayClient::entry`] tells.
    pub fn tcp(name: &str) -> String {
        format!("{name}=tcp://127.0.0.1:0")
    }

    /// Where the client listens on TCP for `name`.
    pub fn entry(&self, name: &str) -> SocketAddr {
        let address = self.listening[name].strip_prefix("tcp://");
        address.expect("a TCP listener").parse().unwrap()
    }
}

/// What the client has told machines so far.
fn events(said: &str) -> impl DoubleEndedIterator<Item = Value> {
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
}

/// Service to address, from the `listening` lines so far.
fn listeners(said: &str) -> BTreeMap<String, String> {
    let listening = events(said).filter(|event| event["event"] == "listening");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    listening
        .map(|event| (text(&event["service"]), text(&event["address"])))
        .collect()
}
