//! An upstream that reads requests in one spelling only, and keeps what it read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use e2e::Tasks;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as some reader understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Every Host.
    pub(crate) hosts: Vec<String>,
    /// Every `X-Mark`, one byte a character.
    pub(crate) marks: Vec<String>,
    /// Every Cookie, as one.
    pub(crate) cookie: String,
    /// Of the content, in bytes.
    pub(crate) length: usize,
    /// Of the content, hexadecimal.
    pub(crate) sha256: String,
}

/// SHA-256, hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

#[derive(Default)]
struct Log {
    readings: Vec<Reading>,
    /// What came and is no whole request of this spelling.
    unread: Vec<String>,
}

/// A running upstream. It stops when dropped.
pub(crate) struct Strict {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Log>>,
    _tasks: Arc<Tasks>,
}

impl Strict {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log: Arc<Mutex<Log>> = Arc::default();
        let tasks = Arc::new(Tasks::default());
        let (weak, shared) = (Arc::downgrade(&tasks), Arc::clone(&log));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(tasks) = weak.upgrade() else { return };
                tasks.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            log,
            _tasks: tasks,
        }
    }

    pub(crate) fn readings(&self) -> Vec<Reading> {
        self.log.lock().unwrap().readings.clone()
    }

    /// What could not be read, or was cut off.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.log.lock().unwrap().unread.clone()
    }
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Log>>) {
    let _ = stream.set_nodelay(true);
    let (mut bytes, mut open) = (Vec::new(), true);
    while open {
        open = stream.read_buf(&mut bytes).await.unwrap_or(0) > 0;
        loop {
            match read_one(&bytes) {
                Ok(Some((reading, length))) => {
                    bytes.drain(..length);
                    let body = if reading.method == "HEAD" { "" } else { "ok" };
                    log.lock().unwrap().readings.push(reading);
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                Ok(None) if open || bytes.is_empty() => break,
                Ok(None) => return log.lock().unwrap().leave("cut off", &bytes),
                Err(why) => return log.lock().unwrap().leave(why, &bytes),
            }
        }
    }
}

impl Log {
    fn leave(&mut self, why: &str, bytes: &[u8]) {
        self.unread.push(format!("{why}: {}", bytes.escape_ascii()));
    }
}

/// The bytes before `mark`, and where it ends.
fn before<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], usize)> {
    let at = bytes.windows(mark.len()).position(|part| part == mark)?;
    Some((&bytes[..at], at + mark.len()))
}

type Fields = Vec<(String, String)>;

fn fields_of(section: &str) -> Result<Fields, &'static str> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b);
    let lines = section.split("\r\n").filter(|line| !line.is_empty());
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
        if name.is_empty() || !name.bytes().all(token) {
            return Err("a field name that is no token");
        }
        if value.chars().any(|c| c != '\t' && (c < ' ' || c == '\x7f')) {
            return Err("a control character in a value");
        }
        Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    fields.collect()
}

fn values(fields: &Fields, name: &str) -> Vec<String> {
    let fields = fields.iter().filter(|(field, _)| field == name);
    fields.map(|(_, value)| value.clone()).collect()
}

/// The first request and its length; `None` while it is not whole.
fn read_one(bytes: &[u8]) -> Result<Option<(Reading, usize)>, &'static str> {
    let Some((head, end)) = before(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    // Values may hold obs-text (RFC 9110 §5.5), one byte a character.
    let head: String = head.iter().copied().map(char::from).collect();
    let (line, section) = head.split_once("\r\n").ok_or("no fields")?;
    let [method, target, "HTTP/1.1"] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Err("a request line of another form");
    };
    let fields = fields_of(section)?;
    let framing = |name| values(&fields, name);
    let body = match (
        &framing("content-length")[..],
        &framing("transfer-encoding")[..],
    ) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| "a length out of range")?;
            let body = bytes.get(end..end + length);
            body.map(|body| (body.to_vec(), length))
        }
        ([], [coding]) if coding == "chunked" => chunks(&bytes[end..])?,
        _ => return Err("framed in more than one way"),
    };
    let hosts = framing("host");
    if hosts.len() != 1 {
        return Err("not one Host");
    }
    Ok(body.map(|(body, length)| {
        let reading = Reading {
            method: method.to_owned(),
            target: target.to_owned(),
            hosts,
            marks: framing("x-mark"),
            cookie: framing("cookie").join("; "),
            length: body.len(),
            sha256: digest(&body),
        };
        (reading, end + length)
    }))
}

/// A chunked body and its length on the wire, trailer section included; `None` while it is not whole.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some((size, next)) = before(&bytes[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(size).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("a chunk size of another form");
        }
        let size = usize::from_str_radix(digits, 16).map_err(|_| "a chunk size out of range")?;
        at += next;
        if size == 0 {
            // The line end of the last chunk begins the end of an empty trailer section.
            let Some((trailers, after)) = before(&bytes[at - 2..], b"\r\n\r\n") else {
                return Ok(None);
            };
            let section = String::from_utf8_lossy(trailers);
            let fields = fields_of(&section)?;
            let framing = ["host", "content-length", "transfer-encoding"];
            if fields
                .iter()
                .any(|(name, _)| framing.contains(&name.as_str()))
            {
                return Err("framing or routing in a trailer");
            }
            return Ok(Some((body, at - 2 + after)));
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else {
            return Ok(None);
        };
        let Some(content) = chunk.strip_suffix(b"\r\n") else {
            return Err("a chunk without its line end");
        };
        body.extend_from_slice(content);
        at += size + 2;
    }
}
