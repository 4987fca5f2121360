//! Connections that know of no proxy: captured by the network, or sent here by a name that resolves to us.
//!
//! Whose they are is told by their source, or by a trusted balancer. What they are for is told by their first bytes: the name in
//! TLS, the Host of each HTTP/1 request. Any other bytes are for the address they were sent to, which is judged as a literal.
//! That address is never dialled on its word: a name is resolved here, and a literal needs a rule of its own.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use sluicegate_policy::{Denial, Host, HostName, Target, decide};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::{
    connect::{self, Opened},
    context::Current,
    forward::{self, Scope},
};
use crate::{
    egress::{ACCESS_DENIED, Guarded, is_http, linger_close},
    listen::{Accepted, Carrying, Downstream, Preface},
    sniff::{Reader, Sni, Verdict},
    telemetry::{Front, Kind},
};

/// How a listener's connections are understood.
#[derive(Clone, Debug)]
pub struct Captured {
    /// For records.
    pub front: Front,
    /// Whose they are.
    pub identify: Identify,
    /// The port they are for, where no original destination says so.
    pub port: Option<u16>,
}

/// How a connection's session is known.
#[derive(Clone, Debug)]
pub enum Identify {
    /// By its source address, which lies in the `sources` of exactly one session of these namespaces.
    Source(Arc<[Arc<str>]>),
    /// By the credential in the header of a trusted peer.
    Header,
}

/// What the first bytes are.
enum First {
    /// TLS to this name.
    Name(HostName),
    /// TLS without one.
    Nameless,
    /// HTTP/1.
    Http,
    /// Anything else; or nothing, where the client waits for the server to speak.
    Other,
    /// They cannot be passed on.
    Cut(Denial),
    /// The client left.
    Gone,
}

/// A client that says nothing for so long may be waiting for the server, if a rule lets it speak to this address at all.
const SILENCE: Duration = Duration::from_millis(500);
/// What a hello begins with: a handshake record of version 3.x.
const HANDSHAKE: [u8; 2] = [22, 3];
/// Read at once.
const CHUNK: usize = 4096;

/// Serve one connection until it is known what it carries.
pub(super) async fn serve(
    accepted: Accepted,
    current: Arc<Current>,
    captured: &Captured,
) -> Option<Carrying> {
    let Accepted {
        stream,
        peer,
        preface,
        original,
    } = accepted;
    let context = current.now();
    let began = std::time::Instant::now();
    let mut stream = Guarded::new(stream);
    let destination = match (captured.port, original) {
        (Some(port), _) => Ok((port, None)),
        (None, Some(original)) => Ok((original.port(), Some(original.ip().to_canonical()))),
        // Nothing has captured it: it was meant for us, and we are no target.
        (None, None) => Err(Denial::OwnListener),
    };
    let destination = match preface {
        Preface::Malformed => Err(Denial::MalformedRequest),
        Preface::None | Preface::Header(_) => destination,
    };
    let (port, literal) = match destination {
        Ok(destination) => destination,
        Err(denial) => {
            let mut recorder = context.telemetry.begin(Kind::tunnel, captured.front, peer);
            recorder.refused(&denial.into());
            return None;
        }
    };
    let login = context.identify_captured(&captured.identify, &preface, peer.ip());
    let literal_target = literal.and_then(|ip| Target::new(Host::Ip(ip), port));
    let may_wait = match (&login, &literal_target) {
        (Ok(identity), Some(target)) => identity
            .judge(|policy| decide(&policy.grant, target))
            .is_ok(),
        _ => false,
    };
    let mut held = BytesMut::new();
    let deadline = Instant::now() + context.egress.timeouts.first_bytes;
    drop(context);
    let first = read_first(&mut stream, &mut held, deadline, may_wait).await;
    let target = match first {
        First::Gone => {
            stream.release();
            return None;
        }
        First::Http => {
            let scope = Scope::Captured {
                login,
                port,
                literal,
                front: captured.front,
            };
            return Some(Box::pin(forward::serve(stream, held, peer, current, scope)));
        }
        First::Name(name) => Target::new(Host::Name(name), port).ok_or(Denial::MalformedTarget),
        First::Nameless => literal_target.ok_or(Denial::SniMissing),
        First::Other => literal_target.ok_or(Denial::TlsRequired),
        First::Cut(denial) => Err(denial),
    };
    let context = current.now();
    let mut recorder = context.telemetry.begin(Kind::tunnel, captured.front, peer);
    recorder.since(began);
    let led = async {
        if let Ok(target) = &target {
            recorder.target(target);
        }
        let identity = login?;
        // Its first bytes took their time.
        if context.drain.refusing() {
            return Err(Denial::Draining.into());
        }
        recorder.session(identity.session.label(), identity.stands()?);
        let target = target.map_err(|denial| {
            let session = &identity.session;
            session.refused(denial.into(), SystemTime::now())
        })?;
        connect::lead(&context, identity, &target, &mut recorder).await
    }
    .await;
    match led {
        Ok(led) => {
            let opened = Opened::new(led, recorder);
            let carrying = connect::carry(stream, held.to_vec(), opened, peer, current);
            Some(Box::pin(carrying))
        }
        Err(refusal) => {
            recorder.refused(&refusal);
            drop(recorder);
            refuse(stream, &held).await;
            None
        }
    }
}

/// A refusal where there is no answer to give: an alert to TLS, a reset to anything else.
async fn refuse(mut stream: Guarded<Downstream>, held: &[u8]) {
    let tls = held.starts_with(&HANDSHAKE);
    if tls && stream.write_all(&ACCESS_DENIED).await.is_ok() {
        linger_close(&mut stream).await;
        stream.release();
    }
}

/// Read until the first bytes say what they are. A client that stays silent is given up at the deadline, or passed on unheard
/// where `may_wait`; one that began is never taken for one that said nothing.
async fn read_first(
    stream: &mut Guarded<Downstream>,
    held: &mut BytesMut,
    deadline: Instant,
    may_wait: bool,
) -> First {
    let mut reader = Reader::default();
    loop {
        held.reserve(CHUNK);
        let before = held.len();
        let silent = before == 0 && may_wait;
        let until = if silent {
            deadline.min(Instant::now() + SILENCE)
        } else {
            deadline
        };
        match timeout_at(until, stream.read_buf(held)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) if held.is_empty() => return First::Gone,
            Ok(_) => return ended(&mut reader, held),
            Err(_) if silent => return First::Other,
            Err(_) => return First::Cut(Denial::FirstBytesTimeout),
        }
        let new = held.get(before..).unwrap_or_default();
        match reader.feed(new) {
            Verdict::NeedMore => {}
            Verdict::Malformed(_) => return First::Cut(Denial::TlsMalformed),
            Verdict::Hello(hello) => return named(hello.sni.as_ref()),
            Verdict::NotTls => match is_http(held) {
                None => {}
                Some(true) => return First::Http,
                Some(false) => return First::Other,
            },
        }
    }
}

/// The client has ended before its first bytes said what they are: half a hello, or half a line, which is judged as a whole one is, since some
/// servers take the end of the stream for its end.
fn ended(reader: &mut Reader, held: &[u8]) -> First {
    // Nothing new: what it has said so far.
    if reader.feed(&[]) != Verdict::NotTls {
        return First::Cut(Denial::TlsMalformed);
    }
    match is_http(&[held, b"\n"].concat()) {
        Some(true) => First::Cut(Denial::MalformedRequest),
        Some(false) | None => First::Other,
    }
}

fn named(sni: Option<&Sni>) -> First {
    match sni {
        None => First::Nameless,
        Some(Sni::Malformed) => First::Cut(Denial::TlsMalformed),
        // A literal is no name (RFC 6066 §3): the gate holds it against the address.
        Some(Sni::Name(text)) if text.parse::<IpAddr>().is_ok() => First::Nameless,
        Some(Sni::Name(text)) => match HostName::parse(text) {
            Ok(name) => First::Name(name),
            Err(_) => First::Cut(Denial::TlsMalformed),
        },
    }
}
