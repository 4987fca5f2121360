//! The watch for a second ClientHello: a HelloRetryRequest makes the client send one, and it must name the same server.

use super::client_hello::{CLIENT_HELLO, ClientHello, HelloError, parse};
use super::record::{ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, Message, Records};

#[cfg(test)]
mod tests;

/// Handshake type of a ServerHello.
const SERVER_HELLO: u8 = 2;

/// The random of a ServerHello that is a HelloRetryRequest: SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
pub(super) const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Type, length, version and random of a ServerHello: all that tells a retry.
const SERVER_HELLO_START: usize = 4 + 2 + 32;

/// What to do with the client's bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientStep {
    /// Forward what was fed, and whatever was held before.
    Pass,
    /// Hold what was fed: it may be part of a second hello. At most [`super::MAX_HELLO_WIRE`] and one chunk.
    NeedMore,
    /// A second hello. Judge it as the first was; if it may pass, forward everything held. The watch is over.
    Hello(ClientHello),
    /// Cut.
    Malformed(HelloError),
    /// The watch is over: forward, and feed no more.
    Done,
}

/// What the upstream's bytes say. They are always to be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerStep {
    /// Feed on.
    Watching,
    /// A HelloRetryRequest: the client's next handshake message must be a second hello.
    Retry,
    /// The watch is over: client bytes held may go, and nothing more need be fed, from either side.
    Done,
}

/// Follows a TLS connection from its first ClientHello to the upstream's ServerHello.
///
/// A client may send its second hello unasked, together with the first, so every plaintext ClientHello before the
/// ServerHello is reported, retry or not. One second hello ends the watch: a third makes every server abort (RFC 8446 §4.1.4).
/// Early data is passed over unread.
#[derive(Clone, Debug)]
pub struct HelloWatch {
    phase: Phase,
    client: ClientSide,
    server: ServerSide,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The upstream has not answered.
    Waiting,
    /// It has asked for a second hello.
    Retry,
    Broken(HelloError),
    Over,
}

#[derive(Clone, Debug, Default)]
struct ClientSide {
    records: Records,
    message: Message,
    /// Bytes still to come of a handshake message that is no hello.
    skip: usize,
}

#[derive(Clone, Debug, Default)]
struct ServerSide {
    records: Records,
    /// The start of the first handshake message, [`SERVER_HELLO_START`] bytes at most.
    start: Vec<u8>,
}

impl Default for HelloWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl HelloWatch {
    /// A watch of a connection whose first hello ended with its record. Where a [`super::Reader`] read it, use
    /// [`super::Reader::into_watch`], which knows where in a record it ended.
    #[must_use]
    pub fn new() -> Self {
        Self::after(Records::default())
    }

    /// A watch that goes on where `records` stand.
    pub(super) fn after(records: Records) -> Self {
        let client = ClientSide {
            records,
            ..ClientSide::default()
        };
        Self {
            phase: Phase::Waiting,
            client,
            server: ServerSide::default(),
        }
    }

    /// A watch with nothing to watch.
    pub(super) fn over() -> Self {
        Self {
            phase: Phase::Over,
            ..Self::new()
        }
    }

    /// The next bytes of the client, each once, **before** they are forwarded.
    pub fn from_client(&mut self, chunk: &[u8]) -> ClientStep {
        let step = match self.phase {
            Phase::Over => return ClientStep::Done,
            Phase::Broken(error) => return ClientStep::Malformed(error),
            Phase::Waiting => self.client.follow(chunk, false),
            Phase::Retry => self.client.follow(chunk, true),
        };
        match step {
            Ok(Some(hello)) => {
                self.phase = Phase::Over;
                ClientStep::Hello(hello)
            }
            Ok(None) if self.client.holds() => ClientStep::NeedMore,
            Ok(None) => ClientStep::Pass,
            Err(error) => {
                self.phase = Phase::Broken(error);
                ClientStep::Malformed(error)
            }
        }
    }

    /// The next bytes of the upstream, each once, before or after they are forwarded, but before any client byte that may
    /// answer them is fed.
    pub fn from_server(&mut self, chunk: &[u8]) -> ServerStep {
        match self.phase {
            Phase::Over => ServerStep::Done,
            Phase::Broken(_) | Phase::Retry => ServerStep::Watching,
            Phase::Waiting => {
                let step = self.server.follow(chunk);
                match step {
                    ServerStep::Watching => {}
                    ServerStep::Retry => self.phase = Phase::Retry,
                    ServerStep::Done => self.phase = Phase::Over,
                }
                step
            }
        }
    }
}

impl ClientSide {
    fn follow(&mut self, chunk: &[u8], retry: bool) -> Result<Option<ClientHello>, HelloError> {
        let mut input = chunk;
        loop {
            let most = if self.skip > 0 {
                self.skip
            } else {
                self.message.wanted()?
            };
            let Some((kind, fragment)) = self.records.next(&mut input, most)? else {
                return Ok(None);
            };
            if kind != HANDSHAKE {
                // A dummy change_cipher_spec (RFC 8446 appendix D.4), early data or an alert may stand between messages,
                // never inside one (§5.1).
                if self.skip > 0 || !self.message.is_empty() {
                    return Err(HelloError::UnexpectedRecord);
                }
            } else if self.skip > 0 {
                self.skip -= fragment.len();
            } else {
                self.message.push(fragment);
                if let Some(hello) = self.judge(retry)? {
                    return Ok(Some(hello));
                }
            }
        }
    }

    fn judge(&mut self, retry: bool) -> Result<Option<ClientHello>, HelloError> {
        if self.message.kind() != Some(CLIENT_HELLO) {
            if retry {
                return Err(HelloError::NotClientHello);
            }
            // No client has anything to say here, and no server takes it; but it is no hello, so it is not ours to judge.
            if let Some(length) = self.message.body_len() {
                self.skip = length;
                self.message = Message::default();
            }
            return Ok(None);
        }
        if self.message.wanted()? > 0 {
            return Ok(None);
        }
        parse(self.message.body()).map(Some)
    }

    /// Could the bytes fed last be the start of a hello?
    fn holds(&self) -> bool {
        !self.message.is_empty() || (self.skip == 0 && self.records.current() == Some(HANDSHAKE))
    }
}

impl ServerSide {
    fn follow(&mut self, chunk: &[u8]) -> ServerStep {
        let mut input = chunk;
        loop {
            let most = SERVER_HELLO_START.saturating_sub(self.start.len());
            match self.records.next(&mut input, most) {
                Ok(None) => return ServerStep::Watching,
                Ok(Some((HANDSHAKE, fragment))) => self.start.extend_from_slice(fragment),
                // An alert may be a warning (unrecognized_name, RFC 6066 §3) and the handshake go on; after a fatal one there
                // is nothing left to watch either way.
                Ok(Some((ALERT | CHANGE_CIPHER_SPEC, _))) if self.start.is_empty() => continue,
                // No TLS, or not at its beginning: there is no retry to come.
                Ok(Some(_)) | Err(_) => return ServerStep::Done,
            }
            if self.start.first() != Some(&SERVER_HELLO) {
                return ServerStep::Done;
            }
            if self.start.len() >= SERVER_HELLO_START {
                return if self.start.ends_with(&RETRY_RANDOM) {
                    ServerStep::Retry
                } else {
                    ServerStep::Done
                };
            }
        }
    }
}
