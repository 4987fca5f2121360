//! An HTTP/3 connection that many ask on at once, each on a stream of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::h3::{Head, Http3, hex, unhex};
use crate::pipe::{Far, Pipe, reset};
use crate::tasks::{Tasks, within};
use crate::wire::Wire;

/// Such a connection.
pub struct Http3Streams {
    shared: Arc<Shared>,
    _tasks: Tasks,
}

struct Shared {
    commands: UnboundedSender<Value>,
    /// Who has asked, and is told a stream's number next.
    asking: Mutex<VecDeque<UnboundedSender<Value>>>,
}

/// One request, and what comes of it.
pub struct Exchange {
    stream: u64,
    shared: Arc<Shared>,
    events: UnboundedReceiver<Value>,
}

impl Http3Streams {
    /// Over an open connection.
    pub fn over(connection: Http3) -> Self {
        let (commands, mut told) = unbounded_channel::<Value>();
        let shared = Arc::new(Shared {
            commands,
            asking: Mutex::default(),
        });
        let asking = Arc::clone(&shared);
        let tasks = Tasks::default();
        tasks.spawn(async move {
            // The process is ended before its pipes are.
            let Http3 {
                mut lines,
                commands: mut to,
                child: _child,
                ..
            } = connection;
            let telling = async {
                while let Some(command) = told.recv().await {
                    to.write_all(format!("{command}\n").as_bytes())
                        .await
                        .unwrap();
                }
            };
            let hearing = async {
                let mut streams: HashMap<u64, UnboundedSender<Value>> = HashMap::new();
                while let Ok(Some(line)) = lines.next_line().await {
                    let event: Value = serde_json::from_str(&line).unwrap();
                    if event["event"] == "closed" {
                        return;
                    }
                    let Some(stream) = event["stream"].as_u64() else {
                        continue;
                    };
                    if event["event"] == "opened" {
                        let asker = asking.asking.lock().unwrap().pop_front();
                        streams.insert(stream, asker.unwrap());
                    }
                    if let Some(to) = streams.get(&stream) {
                        let _ = to.send(event);
                    }
                }
            };
            tokio::select! {
                () = telling => {}
                () = hearing => {}
            }
        });
        Self {
            shared,
            _tasks: tasks,
        }
    }

    /// Can anything be asked yet?
    pub fn is_open(&self) -> bool {
        !self.shared.commands.is_closed()
    }

    /// Asks; bytes are characters up to U+00FF. The stream is left open.
    pub async fn ask(&self, fields: &[(String, String)], end: bool) -> Exchange {
        let (sender, mut events) = unbounded_channel();
        {
            let mut asking = self.shared.asking.lock().unwrap();
            asking.push_back(sender);
            let request = json!({"op": "request", "fields": fields, "end": end});
            self.shared.commands.send(request).unwrap();
        }
        let opened = within("a stream", events.recv()).await.unwrap();
        Exchange {
            stream: opened["stream"].as_u64().unwrap(),
            shared: Arc::clone(&self.shared),
            events,
        }
    }
}

impl Exchange {
    /// Sends DATA.
    pub fn send(&self, bytes: &[u8], end: bool) {
        let data = json!({"op": "data", "stream": self.stream, "bytes": hex(bytes), "end": end});
        let _ = self.shared.commands.send(data);
    }

    /// The answer's head; none where the stream is reset instead.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            let event = within("an answer", self.events.recv()).await?;
            match event["event"].as_str() {
                Some("headers") => return Some(Head::of(&event)),
                Some("reset") => return None,
                _ => {}
            }
        }
    }

    /// What follows the head, in both directions.
    pub fn tunnel(mut self) -> Wire<Pipe> {
        Wire::over(Pipe::carried(|far| async move {
            let Far { down, mut up } = far;
            let mut down = Some(down);
            loop {
                tokio::select! {
                    event = self.events.recv(), if down.is_some() => {
                        let arrived = arrived(event);
                        if let (Some(down), Some(arrived)) = (&down, arrived.0) {
                            let _ = down.send(arrived);
                        }
                        if arrived.1 {
                            down = None;
                        }
                    }
                    part = up.recv() => match part {
                        Some(Some(bytes)) => self.send(&bytes, false),
                        Some(None) => self.send(b"", true),
                        None => return,
                    },
                }
            }
        }))
    }
}

/// The bytes of an event, or its error; and whether nothing follows.
fn arrived(event: Option<Value>) -> (Option<std::io::Result<Bytes>>, bool) {
    let Some(event) = event else {
        return (Some(Err(reset())), true);
    };
    match event["event"].as_str() {
        Some("data") => {
            let bytes = unhex(event["bytes"].as_str().unwrap());
            (Some(Ok(bytes.into())), event["end"] == true)
        }
        Some("reset") => (Some(Err(reset())), true),
        _ => (None, false),
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let leave = json!({"op": "leave", "stream": self.stream});
        let _ = self.shared.commands.send(leave);
    }
}
