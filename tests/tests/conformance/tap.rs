//! An upstream that logs every byte, and reads requests with a parser of its own that accepts one spelling only.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use e2e::{Tasks, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An answer that stops in the middle.
pub(crate) const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";

/// What the upstream does with what it reads.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Answers each request with 200.
    Http,
    /// Says nothing.
    Silent,
    /// Speaks first.
    Greet(Vec<u8>),
    /// Answers the first bytes with these.
    Answer(Vec<u8>),
}

/// One connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visit {
    /// Everything that came, in order.
    pub(crate) bytes: Vec<u8>,
    /// FIN or RST has come.
    pub(crate) ended: bool,
}

impl Drop for Tap {
    fn drop(&mut self) {
        *self.mode.lock().unwrap() = self.usual.clone();
    }
}

/// A request as this upstream reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The request line.
    pub(crate) line: String,
    /// Fields in order, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    /// The content, chunked coding undone.
    pub(crate) body: Vec<u8>,
    /// The trailer fields.
    pub(crate) trailers: Vec<(String, String)>,
}

impl Request {
    /// Every value of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }
}

/// A running upstream. It stops when its last handle is dropped.
pub(crate) struct Tap {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Visit>>>,
    /// What it does with connections from now on.
    mode: Arc<Mutex<Mode>>,
    usual: Mode,
    /// Connections that came before this handle was made, and are nothing to it.
    earlier: usize,
    tasks: Arc<Tasks>,
}

impl Tap {
    /// Listen on a free loopback port.
    pub(crate) async fn start(mode: Mode) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(loopback, mode).await.unwrap()
    }

    /// Listen on `address`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(crate) async fn start_on(address: SocketAddr, mode: Mode) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Vec<Visit>>> = Arc::default();
        let tasks = Arc::new(Tasks::default());
        let (weak, shared) = (Arc::downgrade(&tasks), Arc::clone(&log));
        let current = Arc::new(Mutex::new(mode.clone()));
        let modes = Arc::clone(&current);
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(tasks) = weak.upgrade() else { return };
                let number = {
                    let mut visits = shared.lock().unwrap();
                    visits.push(Visit::default());
                    visits.len() - 1
                };
                let mode = modes.lock().unwrap().clone();
                tasks.spawn(serve(stream, Arc::clone(&shared), number, mode));
            }
        });
        Ok(Self {
            address,
            log,
            mode: current,
            usual: mode,
            earlier: 0,
            tasks,
        })
    }

    /// The same upstream, seen from now on, and behaving so until this handle is dropped.
    pub(crate) fn afresh(&self, mode: Mode) -> Self {
        *self.mode.lock().unwrap() = mode;
        Self {
            address: self.address,
            log: Arc::clone(&self.log),
            mode: Arc::clone(&self.mode),
            usual: self.usual.clone(),
            earlier: self.log.lock().unwrap().len(),
            tasks: Arc::clone(&self.tasks),
        }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every connection so far.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.log.lock().unwrap().split_at(self.earlier).1.to_vec()
    }

    /// Every byte of every connection so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let visits = self.visits();
        visits
            .iter()
            .flat_map(|visit| visit.bytes.clone())
            .collect()
    }

    /// Waits until everything `wanted` has come, and nothing else.
    pub(crate) async fn receives(&self, wanted: &[u8], what: &str) {
        until(what, || (self.bytes().len() >= wanted.len()).then_some(())).await;
        let bytes = self.bytes();
        assert!(bytes == wanted, "{what}: {}", bytes.escape_ascii());
    }

    /// Waits until every connection has ended, and asserts that none of them carried a byte.
    pub(crate) async fn got_nothing(&self, what: &str) {
        let ended = || self.visits().iter().all(|visit| visit.ended).then_some(());
        until(&format!("{what}: the upstream to be let go"), ended).await;
        let bytes = self.bytes();
        assert!(
            bytes.is_empty(),
            "{what}: went up: {}",
            bytes.escape_ascii()
        );
    }

    /// Every request so far; what this parser does not read as requests fails the test.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let visits = self.visits();
        visits
            .iter()
            .flat_map(|visit| read_all(&visit.bytes))
            .collect()
    }

    /// The requests whose line has `part` in it.
    pub(crate) fn requests_for(&self, part: &str) -> Vec<Request> {
        let mut all = self.requests();
        all.retain(|request| request.line.contains(part));
        all
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Vec<Visit>>>, number: usize, mode: Mode) {
    let _ = stream.set_nodelay(true);
    if let Mode::Greet(greeting) = &mode {
        let _ = stream.write_all(greeting).await;
    }
    let (mut answered, mut answer_due) = (0, matches!(mode, Mode::Answer(_)));
    let mut chunk = vec![0; 65_536];
    loop {
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        let bytes = {
            let mut visits = log.lock().unwrap();
            visits[number].ended = read == 0;
            visits[number].bytes.extend_from_slice(&chunk[..read]);
            visits[number].bytes.clone()
        };
        if read == 0 {
            return;
        }
        match &mode {
            Mode::Answer(answer) if answer_due => {
                answer_due = false;
                let _ = stream.write_all(answer).await;
            }
            Mode::Http => {
                while let Some((_, length)) = read_one(&bytes[answered..]) {
                    answered += length;
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer).await;
                }
            }
            Mode::Silent | Mode::Greet(_) | Mode::Answer(_) => {}
        }
    }
}

/// The requests of a connection, each whole.
pub(crate) fn read_all(mut bytes: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        let Some((request, length)) = read_one(bytes) else {
            panic!("not one whole plain request: {}", bytes.escape_ascii());
        };
        requests.push(request);
        bytes = &bytes[length..];
    }
    requests
}

fn fields_of(section: &str) -> Option<Vec<(String, String)>> {
    let lines = section.split_terminator("\r\n");
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b);
        let plain = value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 127));
        let sound = !name.is_empty() && name.bytes().all(token) && plain;
        sound.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    fields.collect()
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    Some(at + mark.len())
}

/// One request in the only form that every reader takes alike: one Host, at most one framing field, spelt exactly.
fn read_one(bytes: &[u8]) -> Option<(Request, usize)> {
    let end = find(bytes, b"\r\n\r\n")?;
    // Values may hold obs-text (RFC 9110 §5.5), one byte a character.
    let head: String = bytes[..end - 2].iter().copied().map(char::from).collect();
    let (line, section) = head.split_once("\r\n")?;
    let fields = fields_of(section)?;
    let mut request = Request {
        line: line.to_owned(),
        fields,
        body: Vec::new(),
        trailers: Vec::new(),
    };
    let sound = line.ends_with(" HTTP/1.1") && line.split(' ').count() == 3;
    if !sound || request.values("host").len() != 1 {
        return None;
    }
    let lengths: Vec<String> = request
        .values("content-length")
        .iter()
        .map(ToString::to_string)
        .collect();
    let codings: Vec<String> = request
        .values("transfer-encoding")
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut at = end;
    match (&lengths[..], &codings[..]) {
        ([], []) => {}
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: usize = length.parse().ok()?;
            request.body = bytes.get(end..end + length)?.to_vec();
            at += length;
        }
        ([], [coding]) if coding == "chunked" => loop {
            let after = at + find(&bytes[at..], b"\r\n")?;
            let size = std::str::from_utf8(&bytes[at..after - 2]).ok()?;
            if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                let done = if bytes[after..].starts_with(b"\r\n") {
                    after + 2
                } else {
                    let done = after + find(&bytes[after..], b"\r\n\r\n")?;
                    let section = std::str::from_utf8(&bytes[after..done - 2]).ok()?;
                    request.trailers = fields_of(section)?;
                    done
                };
                return Some((request, done));
            }
            request
                .body
                .extend_from_slice(bytes.get(after..after + size)?);
            at = after + size;
            if bytes.get(at..at + 2)? != b"\r\n" {
                return None;
            }
            at += 2;
        },
        _ => return None,
    }
    Some((request, at))
}
