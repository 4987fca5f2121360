//! A gateway in front of every reader, and the comparison of what they read.

use e2e::raw::End;
use e2e::{Ask, Session, Wire, World, until};

use crate::readers::Reader;
use crate::streams::{Client, Request, Version};
use crate::strict::Reading;

/// How plain HTTP comes: in absolute-form, or in origin form inside a CONNECT tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Absolute,
    Tunnel,
}

/// Bytes for one connection, with `{U}` before a path, `{T}` for the target and `{A}` for the credential's field.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    way: Way,
    /// The methods of the requests, each of which is answered; `None` when anything may come of it.
    methods: Option<Vec<String>>,
}

impl Input {
    /// Requests that are all served, and nothing besides.
    pub(crate) fn served(bytes: Vec<u8>, way: Way, methods: Vec<String>) -> Self {
        Self {
            bytes,
            way,
            methods: Some(methods),
        }
    }

    /// Bytes of which the gateway may think what it likes.
    pub(crate) fn any(bytes: Vec<u8>, way: Way) -> Self {
        Self {
            bytes,
            way,
            methods: None,
        }
    }

    fn addressed(&self, target: &str, authorization: &str) -> Vec<u8> {
        let (origin, credential) = match self.way {
            Way::Absolute => (format!("http://{target}"), authorization),
            Way::Tunnel => (String::new(), ""),
        };
        let bytes = replace(&self.bytes, b"{U}", origin.as_bytes());
        let bytes = replace(&bytes, b"{T}", target.as_bytes());
        replace(&bytes, b"{A}", credential.as_bytes())
    }
}

fn replace(mut bytes: &[u8], mark: &[u8], with: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    while let Some(at) = bytes.windows(mark.len()).position(|part| part == mark) {
        replaced.extend_from_slice(&bytes[..at]);
        replaced.extend_from_slice(with);
        bytes = &bytes[at + mark.len()..];
    }
    replaced.extend_from_slice(bytes);
    replaced
}

/// One gateway, one session, four readers.
pub(crate) struct Stage {
    pub(crate) reference: Reader,
    others: [Reader; 3],
    session: Session,
    world: World,
}

fn target_of(reader: &Reader) -> String {
    format!("{}.allowed.test:{}", reader.name, reader.address.port())
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let reference = Reader::strict().await;
        let others = [
            Reader::nginx().await,
            Reader::haproxy().await,
            Reader::node().await,
        ];
        let mut targets = vec![target_of(&reference)];
        targets.extend(others.iter().map(target_of));
        for target in &targets {
            world.dns.point(target.split(':').next().unwrap());
        }
        let allow: Vec<&str> = targets.iter().map(String::as_str).collect();
        let ask = Ask {
            allow: &allow,
            ..Ask::default()
        };
        Self {
            session: world.session_for(ask).await,
            reference,
            others,
            world,
        }
    }

    /// Sends every input to `reader`, and one plain request after them; the first status of each.
    pub(crate) async fn run(&self, reader: &Reader, inputs: &[Input]) -> Vec<u16> {
        let mut statuses = Vec::new();
        for input in inputs {
            statuses.push(self.send(reader, input).await);
        }
        let last = b"GET {U}/last HTTP/1.1\r\nHost: {T}\r\n{A}\r\n".to_vec();
        let last = Input::served(last, Way::Absolute, vec!["GET".into()]);
        assert_eq!(self.send(reader, &last).await, 200, "{}", reader.name);
        statuses
    }

    /// Sends every request of a stream to `reader`, and one plain request after them; the status of each.
    pub(crate) async fn run_streams(
        &self,
        reader: &Reader,
        version: Version,
        requests: &[Request],
    ) -> Vec<u16> {
        let target = target_of(reader);
        let mut client = Client::new(&self.world, &self.session, version);
        let mut statuses = Vec::new();
        for request in requests {
            statuses.push(client.send(&target, request).await);
        }
        self.run(reader, &[]).await;
        statuses
    }

    async fn send(&self, reader: &Reader, input: &Input) -> u16 {
        let target = target_of(reader);
        let mut wire = match input.way {
            Way::Absolute => self.session.dial().await,
            Way::Tunnel => self.session.tunnel(&target).await,
        };
        let bytes = input.addressed(&target, &self.session.authorization());
        wire.send(&bytes).await;
        let Some(methods) = &input.methods else {
            wire.finish().await;
            return first_status(&wire.rest().await.0);
        };
        let mut statuses = Vec::new();
        for method in methods {
            statuses.push(final_status(&mut wire, method).await);
        }
        let served = statuses.iter().all(|status| *status == 200);
        let shown = input.bytes.escape_ascii();
        // The others may refuse what they do not like.
        assert!(served || reader.name != "strict", "{statuses:?}: {shown}");
        wire.finish().await;
        let (rest, end) = wire.rest().await;
        let name = reader.name;
        assert!(!served || end == End::Fin, "{name}, after {shown}: {end:?}");
        assert!(
            rest.is_empty(),
            "{name}, after {shown}: {}",
            rest.escape_ascii()
        );
        statuses[0]
    }

    /// Sends the inputs to the other readers, and compares what they read with the reference, whose log holds these
    /// inputs alone. Answers what was refused, and by whom.
    pub(crate) async fn others_read_alike(&self, inputs: &[Input]) -> Vec<(&'static str, Reading)> {
        let [nginx, haproxy, node] = &self.others;
        tokio::join!(
            self.run(nginx, inputs),
            self.run(haproxy, inputs),
            self.run(node, inputs)
        );
        self.compare().await
    }

    /// The same of requests of streams, which the gateway let pass to the reference.
    pub(crate) async fn others_read_streams_alike(
        &self,
        version: Version,
        requests: &[Request],
    ) -> Vec<(&'static str, Reading)> {
        let [nginx, haproxy, node] = &self.others;
        tokio::join!(
            self.run_streams(nginx, version, requests),
            self.run_streams(haproxy, version, requests),
            self.run_streams(node, version, requests)
        );
        self.compare().await
    }

    async fn compare(&self) -> Vec<(&'static str, Reading)> {
        // What the gateway gave up half-way was cut off, and nothing else was unreadable.
        let mut unread = self.reference.unread();
        unread.retain(|why| !why.starts_with("cut off"));
        assert_eq!(unread, Vec::<String>::new());
        let forwarded = canonical(&self.reference);
        let mut refused = Vec::new();
        for reader in &self.others {
            // A reader logs after it has answered.
            let what = format!("{} to log {} requests", reader.name, forwarded.len());
            let statuses = until(&what, || {
                let statuses = reader.statuses();
                (statuses.len() >= forwarded.len()).then_some(statuses)
            })
            .await;
            let pairs = forwarded.iter().zip(&statuses);
            let (read, not): (Vec<_>, Vec<_>) = pairs.partition(|(_, status)| **status == 200);
            same(
                reader,
                &read
                    .into_iter()
                    .map(|(reading, _)| reading.clone())
                    .collect::<Vec<_>>(),
            );
            assert_eq!(
                statuses.len(),
                forwarded.len(),
                "{}: more requests than were sent",
                reader.name
            );
            assert_eq!(
                reader.unread(),
                Vec::<String>::new(),
                "behind {}",
                reader.name
            );
            let name = reader.name;
            eprintln!(
                "{name} read {} requests as they were meant, refused {}",
                forwarded.len() - not.len(),
                not.len()
            );
            refused.extend(not.into_iter().map(|(reading, _)| (name, reading.clone())));
        }
        refused
    }
}

/// What a reader read, with a Host that is the same for all where it was this reader's own name.
fn canonical(reader: &Reader) -> Vec<Reading> {
    let target = target_of(reader);
    let mut readings = reader.readings();
    for host in readings.iter_mut().flat_map(|reading| &mut reading.hosts) {
        if *host == target {
            "TARGET".clone_into(host);
        }
    }
    readings
}

fn same(reader: &Reader, meant: &[Reading]) {
    let readings = canonical(reader);
    for (reading, meant) in readings.iter().zip(meant) {
        assert_eq!(reading, meant, "{} reads otherwise", reader.name);
        assert_eq!(reading.hosts, ["TARGET"], "{}", reader.name);
        assert!(
            reading.target != "/smuggled",
            "{}: {reading:?}",
            reader.name
        );
    }
    assert_eq!(readings.len(), meant.len(), "{}", reader.name);
}

/// The status of the next answer that is not interim, its body read.
async fn final_status(wire: &mut Wire, method: &str) -> u16 {
    loop {
        let status = if method == "HEAD" {
            wire.head().await.status
        } else {
            wire.reply().await.status()
        };
        if status >= 200 {
            return status;
        }
    }
}

/// The first status in `bytes` that is not interim; 0 where nothing was answered.
fn first_status(bytes: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(bytes);
    let statuses = text.split("\r\n\r\n").map(|head| {
        let after = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
        after.and_then(|code| code.parse().ok()).unwrap_or(0)
    });
    let mut finals = statuses.filter(|status| !(100..200).contains(status));
    finals.next().unwrap_or(0)
}
