//! `sluicegate-relay up` as a child process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::network::Network;
use crate::program::{Program, Running, binary};
use crate::record::Record;
use crate::session::{Ask, Session};
use crate::tasks::until;
use crate::world::World;

/// What holds on one transport holds on all.
pub const TRANSPORTS: [&str; 3] = ["quic", "h2", "h1"];

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
        Self::start(session, own(), &[], listen, &[]).await
    }

    /// As [`RelayClient::up`], by one transport alone.
    pub async fn up_over(session: &Session, transport: &str, listen: &[String]) -> Self {
        Self::up_with(session, &["--transport", transport], listen).await
    }

    /// As [`RelayClient::up`], with more arguments.
    pub async fn up_with(session: &Session, more: &[&str], listen: &[String]) -> Self {
        Self::start(session, own(), more, listen, &[]).await
    }

    /// As [`RelayClient::up_with`], in a network of its own.
    pub async fn up_inside(
        network: &Network,
        session: &Session,
        more: &[&str],
        listen: &[String],
    ) -> Self {
        let program = network.inside(&binary("sluicegate-relay"));
        Self::start(session, program, more, listen, &[]).await
    }

    /// The same with one `--expose` per entry and no listener.
    pub async fn exposing(session: &Session, expose: &[String]) -> Self {
        Self::start(session, own(), &[], &[], expose).await
    }

    async fn start(
        session: &Session,
        program: Program,
        more: &[&str],
        listen: &[String],
        expose: &[String],
    ) -> Self {
        // Several clients of one session: each has a log of its own.
        let number = std::fs::read_dir(session.directory()).unwrap().count();
        let log = session.directory().join(format!("relay-{number}.log"));
        let mut program = session.program(program);
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

    /// By which transports it has said to be connected, one after the other.
    pub fn connections(&self) -> Vec<String> {
        events(&self.process.said())
            .filter(|said| said["event"] == "connected")
            .map(|said| said["transport"].as_str().unwrap_or_default().to_owned())
            .collect()
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

/// A session for one service, and a relay client listening for it on a TCP port, over one transport.
pub async fn relayed(
    transport: &str,
    world: &World,
    name: &str,
    url: &str,
) -> (Session, RelayClient, String) {
    let service = format!("{name}={url}");
    let session = world
        .session_for(Ask {
            services: &[&service],
            ..Ask::default()
        })
        .await;
    let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp(name)]).await;
    let port = client.entry(name).port().to_string();
    (session, client, port)
}

/// Asserts a stream record of `service` with bytes both ways, ended by its ends and not by the gateway. (A
/// program that exits with bytes unread ends with RST, whatever it meant.)
pub async fn recorded(world: &World, session: &Session, service: &str) {
    let own = |record: &Record| {
        let ended = ["completed", "reset"].contains(&record.text("outcome"));
        let bytes = |way| record.number(way).is_some_and(|bytes| bytes > 0);
        let whole = bytes("bytesUp") && bytes("bytesDown");
        ended && whole && record.text("service") == service
    };
    let what = format!("a record of a stream to {service}");
    let record = world.gateway.record(&what, own).await;
    assert_eq!(record.text("kind"), "stream", "{record:?}");
    assert_ne!(record.text("closedBy"), "gateway", "{record:?}");
    assert_eq!(record.0["session"]["id"], session.json["id"], "{record:?}");
}

fn own() -> Program {
    Program::new(binary("sluicegate-relay"))
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
