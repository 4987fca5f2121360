//! SOCKS5 (RFC 1928) with user name and password (RFC 1929): CONNECT only.
//!
//! A client that has no credential to offer, or speaks SOCKS4 or HTTP, gets no further than its first message. BIND and UDP
//! ASSOCIATE are refused with their code.

mod reply;

use std::{net::SocketAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use sluicegate_policy::{Denial, Host, Refusal, Target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::{
    connect::{self, Opened},
    context::Current,
};
use crate::{
    auth::{Identity, socks_credential},
    egress::{Guarded, linger_close},
    listen::{Accepted, Carrying, Downstream, Preface},
    sniff::socks::{self, Command, Destination, METHOD_PASSWORD, PASSWORD_VERSION, VERSION},
    telemetry::{Front, Kind, Recorder},
};

/// No acceptable methods (RFC 1928 §3).
const NO_METHOD: [u8; 2] = [VERSION, 0xff];
/// RFC 1929 §2: anything but 0 is failure.
const LOGGED_IN: [u8; 2] = [PASSWORD_VERSION, 0];
const NOT_LOGGED_IN: [u8; 2] = [PASSWORD_VERSION, 1];
/// Room for the longest message: a request is at most 262 bytes, a login 513.
const CHUNK: usize = 1024;

/// Why a conversation ends before there is a tunnel.
enum Stop {
    /// The client left.
    Gone,
    /// It is refused, and told so in these bytes, where it understands any.
    Refused(Refusal, Vec<u8>),
}

impl Stop {
    fn silent(denial: Denial) -> Self {
        Self::Refused(denial.into(), Vec::new())
    }

    fn reply(refusal: Refusal) -> Self {
        let reply = reply::reply(reply::code(refusal.denial));
        Self::Refused(refusal, reply.to_vec())
    }
}

/// One client, its bytes not yet read as messages.
struct Client {
    stream: Guarded<Downstream>,
    buffer: BytesMut,
    /// Everything up to the request must have come by then.
    deadline: Instant,
}

/// Who asks; or a refusal that its request will be answered with.
type Login = Result<Identity, Refusal>;

/// Serve one connection until it is known what it carries.
pub(super) async fn serve(accepted: Accepted, current: Arc<Current>) -> Option<Carrying> {
    let Accepted {
        stream,
        peer,
        preface,
        ..
    } = accepted;
    let context = current.now();
    let mut client = Client {
        stream: Guarded::new(stream),
        buffer: BytesMut::new(),
        deadline: Instant::now() + context.egress.timeouts.head,
    };
    if preface == Preface::Malformed {
        let mut recorder = context.telemetry.begin(Kind::tunnel, Front::socks, peer);
        recorder.refused(&Denial::MalformedRequest.into());
        return None;
    }
    // Who connects and says nothing has asked for nothing.
    let greeting = client.until(|bytes| socks::greeting(bytes).is_told()).await;
    if client.buffer.is_empty() {
        client.stream.release();
        return None;
    }
    let mut recorder = context.telemetry.begin(Kind::tunnel, Front::socks, peer);
    let opened = match greeting {
        Ok(()) => open(&mut client, &current, peer, &mut recorder).await,
        Err(stop) => Err(stop),
    };
    match opened {
        Ok(led) => {
            let succeeded = reply::reply(reply::SUCCEEDED);
            if client.say(&succeeded).await.is_err() {
                return None;
            }
            let first = client.buffer.to_vec();
            let opened = Opened::new(led, recorder);
            let carrying = connect::carry(client.stream, first, opened, peer, current);
            return Some(Box::pin(carrying));
        }
        Err(Stop::Gone) => client.stream.release(),
        Err(Stop::Refused(refusal, bytes)) => {
            recorder.refused(&refusal);
            drop(recorder);
            if client.stream.write_all(&bytes).await.is_ok() {
                linger_close(&mut client.stream).await;
                client.stream.release();
            }
        }
    }
    None
}

/// Methods, login, request, and the way it leads.
async fn open(
    client: &mut Client,
    current: &Current,
    peer: SocketAddr,
    recorder: &mut Recorder,
) -> Result<connect::Led, Stop> {
    match socks::greeting(&client.buffer).whole() {
        Some((true, taken)) => client.buffer.advance(taken),
        Some((false, _)) => {
            let refusal = Denial::CredentialMissing.into();
            return Err(Stop::Refused(refusal, NO_METHOD.to_vec()));
        }
        None => return Err(Stop::silent(Denial::MalformedRequest)),
    }
    client.say(&[VERSION, METHOD_PASSWORD]).await?;
    let login = login(client, current, peer, recorder).await?;
    let target = request(client).await?;
    recorder.target(&target);
    let identity = login.map_err(Stop::reply)?;
    // The request took its time.
    let context = current.now();
    if context.drain.refusing() {
        return Err(Stop::reply(Denial::Draining.into()));
    }
    connect::lead(&context, identity, &target, recorder)
        .await
        .map_err(Stop::reply)
}

async fn login(
    client: &mut Client,
    current: &Current,
    peer: SocketAddr,
    recorder: &mut Recorder,
) -> Result<Login, Stop> {
    client.until(|bytes| socks::login(bytes).is_told()).await?;
    let Some((login, taken)) = socks::login(&client.buffer).whole() else {
        return Err(Stop::silent(Denial::MalformedRequest));
    };
    let credential = || socks_credential(login.name, login.password);
    let login = current
        .now()
        .identify(credential, None, recorder, peer.ip());
    if let Err(refusal) = &login
        && matches!(
            refusal.denial.told(),
            Denial::CredentialMissing | Denial::CredentialInvalid
        )
    {
        return Err(Stop::Refused(refusal.clone(), NOT_LOGGED_IN.to_vec()));
    }
    client.buffer.advance(taken);
    // Any other refusal is no fault of the password, and is the request's answer.
    client.say(&LOGGED_IN).await?;
    Ok(login)
}

async fn request(client: &mut Client) -> Result<Target, Stop> {
    client
        .until(|bytes| socks::request(bytes).is_told())
        .await?;
    let Some((request, taken)) = socks::request(&client.buffer).whole() else {
        return Err(Stop::reply(Denial::MalformedRequest.into()));
    };
    if let Command::Other(_) = request.command {
        return Err(Stop::reply(Denial::UnsupportedProtocol.into()));
    }
    let host = match request.destination {
        Destination::Ip(ip) => Some(Host::Ip(ip)),
        // Text that is an address is one, whatever type it was sent as.
        Destination::Name(name) => str::from_utf8(name)
            .ok()
            .and_then(|name| Host::parse_bare(name).ok()),
        Destination::Unknown(_) => {
            let reply = reply::reply(reply::ADDRESS_TYPE).to_vec();
            return Err(Stop::Refused(Denial::MalformedTarget.into(), reply));
        }
    };
    let target = host.and_then(|host| Target::new(host, request.port));
    let target = target.ok_or_else(|| Stop::reply(Denial::MalformedTarget.into()))?;
    client.buffer.advance(taken);
    Ok(target)
}

impl Client {
    /// Read until `told` has something to say of what came.
    async fn until(&mut self, told: impl Fn(&[u8]) -> bool) -> Result<(), Stop> {
        while self.buffer.is_empty() || !told(&self.buffer) {
            self.buffer.reserve(CHUNK);
            let reading = self.stream.read_buf(&mut self.buffer);
            match timeout_at(self.deadline, reading).await {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return Err(Stop::Gone),
                Err(_) => return Err(Stop::silent(Denial::HeadTimeout)),
            }
        }
        Ok(())
    }

    async fn say(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let said = self.stream.write_all(bytes).await;
        let said = match said {
            Ok(()) => self.stream.flush().await,
            Err(error) => Err(error),
        };
        said.map_err(|_| Stop::Gone)
    }
}
