//! An HTTP/3 client: aioquic in a process of its own, driven line by line.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::program::{clients, present, tools};
use crate::session::Session;
use crate::tasks::within;
use crate::world::World;

/// One HTTP/3 connection to the public listener.
pub struct Http3 {
    pub(crate) child: Child,
    pub(crate) commands: ChildStdin,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
    /// Read while something else was waited for.
    waiting: VecDeque<Value>,
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The other fields, in order.
    pub fields: Vec<(String, String)>,
    /// Nothing follows.
    pub end: bool,
}

impl Head {
    /// Of an event.
    pub(crate) fn of(event: &Value) -> Self {
        let fields: Vec<(String, String)> =
            serde_json::from_value(event["fields"].clone()).unwrap();
        let (status, fields) = fields.split_first().unwrap();
        assert_eq!(status.0, ":status");
        Self {
            status: status.1.parse().unwrap(),
            fields: fields.to_vec(),
            end: event["end"] == true,
        }
    }

    /// How many fields have this name?
    pub fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(n, _)| n == name).count()
    }
}

/// How a stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// FIN.
    Fin,
    /// RESET_STREAM with this code.
    Reset(u64),
}

impl Http3 {
    /// Connects; the handshake is through when this answers.
    pub async fn connect(world: &World, session: &Session) -> Self {
        Self::dial(world.gateway.ports.public, &session.bundle()).await
    }

    /// The same to any address, trusting the authorities in this file.
    pub async fn dial(public: SocketAddr, trusted: &Path) -> Self {
        let python = present(&tools().join("venv/bin/python"));
        let mut child = Command::new(python)
            .arg(clients().join("python/h3_driver.py"))
            .args([public.ip().to_string(), public.port().to_string()])
            .arg(trusted)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut http = Self {
            commands: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            waiting: VecDeque::new(),
        };
        http.event("a connection", |e| e["event"] == "connected")
            .await;
        http
    }

    /// Gives one command.
    pub async fn tell(&mut self, command: Value) {
        let line = format!("{command}\n");
        within("a command", self.commands.write_all(line.as_bytes()))
            .await
            .unwrap();
    }

    /// The first event, of those not taken yet, that `wanted` accepts; the others stay.
    pub async fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.waiting.iter().position(&wanted) {
            return self.waiting.remove(place).unwrap();
        }
        loop {
            let line = within(what, self.lines.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the client ended: no {what}"));
            let event: Value = serde_json::from_str(&line).unwrap();
            if wanted(&event) {
                return event;
            }
            self.waiting.push_back(event);
        }
    }

    /// Sends a request; its stream.
    pub async fn request(&mut self, fields: &[(&str, &str)], end: bool) -> u64 {
        self.tell(json!({"op": "request", "fields": fields, "end": end}))
            .await;
        self.opened().await
    }

    /// Opens a stream with bytes of the test's own.
    pub async fn raw(&mut self, uni: bool, bytes: &[u8], end: bool) -> u64 {
        self.tell(json!({"op": "raw", "uni": uni, "bytes": hex(bytes), "end": end}))
            .await;
        self.opened().await
    }

    async fn opened(&mut self) -> u64 {
        let opened = self.event("a stream", |e| e["event"] == "opened").await;
        opened["stream"].as_u64().unwrap()
    }

    /// Sends DATA.
    pub async fn data(&mut self, stream: u64, bytes: &[u8], end: bool) {
        self.tell(json!({"op": "data", "stream": stream, "bytes": hex(bytes), "end": end}))
            .await;
    }

    /// RESET_STREAM or STOP_SENDING.
    pub async fn give_up(&mut self, op: &str, stream: u64, code: u64) {
        self.tell(json!({"op": op, "stream": stream, "code": code}))
            .await;
    }

    /// The head of an answer.
    pub async fn head(&mut self, stream: u64) -> Head {
        let event = self
            .event("an answer", |e| {
                e["event"] == "headers" && e["stream"] == stream
            })
            .await;
        Head::of(&event)
    }

    /// Everything that comes on a stream, and how it ends.
    pub async fn rest(&mut self, stream: u64) -> (Vec<u8>, Ending) {
        let mut bytes = Vec::new();
        loop {
            let event = self
                .event("the end of a stream", |e| {
                    e["stream"] == stream && (e["event"] == "data" || e["event"] == "reset")
                })
                .await;
            if let Some(code) = event["code"].as_u64() {
                return (bytes, Ending::Reset(code));
            }
            bytes.extend(unhex(event["bytes"].as_str().unwrap()));
            if event["end"] == true {
                return (bytes, Ending::Fin);
            }
        }
    }

    /// Bytes of a stream until there are this many.
    pub async fn take(&mut self, stream: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let event = self
                .event("data", |e| e["stream"] == stream && e["event"] == "data")
                .await;
            bytes.extend(unhex(event["bytes"].as_str().unwrap()));
        }
        bytes
    }

    /// A request that is answered whole: its head and its body.
    pub async fn fetch(&mut self, fields: &[(&str, &str)]) -> (Head, Vec<u8>) {
        let stream = self.request(fields, true).await;
        self.answer(stream).await
    }

    /// The whole answer on a stream.
    pub async fn answer(&mut self, stream: u64) -> (Head, Vec<u8>) {
        let head = self.head(stream).await;
        if head.end {
            return (head, Vec::new());
        }
        let (body, ending) = self.rest(stream).await;
        assert_eq!(ending, Ending::Fin);
        (head, body)
    }

    /// The code the connection was closed with.
    pub async fn closed(&mut self) -> u64 {
        let closed = self
            .event("the end of the connection", |e| e["event"] == "closed")
            .await;
        closed["code"].as_u64().unwrap()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
