//! The proxy's canaries: what it must refuse, what it must cut, what it must carry.

use rustls::{ClientConnection, pki_types::ServerName};
use sluicegate_policy::Target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    check::Finding,
    inside::ANYTHING,
    plan::{Road, Way},
    road::{Alpn, Io, dial, secure},
};
use crate::secret::Secret;

/// A name nobody can own (RFC 6761 §6.4), and no grant of the probe allows.
const DENIED: &str = "denied.probe.invalid";
/// Largest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// The proxy as the probe's session sees it.
pub(super) struct Proxy<'a> {
    pub(super) way: &'a Way,
    pub(super) road: &'a Road,
    pub(super) token: &'a Secret,
}

/// The answer to a CONNECT, and the connection it came on.
struct Answer {
    status: u16,
    /// The reason token of our Proxy-Status; absent where somebody else answered.
    reason: Option<String>,
    io: Box<dyn Io>,
}

impl Answer {
    /// What an answer that is neither the one hoped for nor the one feared means.
    fn unexpected(&self, what: &str, setting: &str) -> Finding {
        match (self.status, self.reason.as_deref()) {
            (_, Some("draining")) => Finding::Unknown("the gateway is draining".to_owned()),
            (_, Some("store_unavailable")) => {
                Finding::fail(format!("{what} was refused: store_unavailable"), "store")
            }
            (_, Some(reason @ ("dns_failed" | "dns_timeout"))) => {
                Finding::fail(format!("{what} failed: {reason}"), "dns.servers")
            }
            (status, Some(reason)) => {
                Finding::fail(format!("{what} was answered {status} {reason}"), setting)
            }
            (status, None) => Finding::fail(
                format!("{what} was answered {status}, and not by this gateway"),
                "publicUrl",
            ),
        }
    }
}

impl Proxy<'_> {
    /// A name that is not allowed: 403, with the gateway's own reason.
    pub(super) async fn refuses(&self) -> Result<(), Finding> {
        let answer = self.connect(&format!("{DENIED}:443")).await?;
        match answer.status {
            403 if answer.reason.is_some() => Ok(()),
            200..=299 => Err(Finding::fail(
                format!(
                    "the proxy at {} opened a tunnel to {DENIED}, which it must refuse",
                    self.road.url()
                ),
                "publicUrl",
            )),
            _ => Err(answer.unexpected("a CONNECT that must be refused", "publicUrl")),
        }
    }

    /// TLS for another name inside an allowed tunnel: cut before a byte of it arrives.
    pub(super) async fn judges(&self) -> Result<(), Finding> {
        let mut io = self.own_tunnel().await?;
        let hello = client_hello(self.road)?;
        let failed = |error: std::io::Error| {
            Finding::fail(
                format!("a tunnel to the gateway's own canary broke: {error}"),
                "publicUrl",
            )
        };
        io.write_all(&hello).await.map_err(failed)?;
        io.flush().await.map_err(failed)?;
        let mut first = [0; ANYTHING.len()];
        // A fatal alert (content type 21, RFC 8446 §6), an end or a reset: all of them are the cut.
        match io.read(&mut first).await {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) if first[0] == 21 => Ok(()),
            Ok(_) => Err(Finding::fail(
                format!(
                    "the proxy at {} carried TLS for {DENIED} in a tunnel to another name",
                    self.road.url()
                ),
                "publicUrl",
            )),
        }
    }

    /// A request through a tunnel, whose answer comes back whole.
    pub(super) async fn carries(&self) -> Result<(), Finding> {
        let mut io = self.own_tunnel().await?;
        let failed = |error: &dyn std::fmt::Display| {
            Finding::fail(
                format!("a request to the gateway's own canary was not answered: {error}"),
                "publicUrl",
            )
        };
        let target = self.own_target()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes())
            .await
            .map_err(|error| failed(&error))?;
        io.flush().await.map_err(|error| failed(&error))?;
        let mut answer = Vec::new();
        (&mut io)
            .take(MAX_HEAD as u64)
            .read_to_end(&mut answer)
            .await
            .map_err(|error| failed(&error))?;
        if answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"canary\n") {
            Ok(())
        } else {
            let line = String::from_utf8_lossy(&answer);
            Err(failed(&line.lines().next().unwrap_or("nothing came back")))
        }
    }

    /// The operator's own canary: its tunnel opens.
    pub(super) async fn canary(&self, target: &Target) -> Result<(), Finding> {
        let answer = self.connect(&target.to_string()).await?;
        match answer.status {
            200..=299 => Ok(()),
            _ => Err(answer.unexpected(&format!("the canary {target}"), "probe.canary")),
        }
    }

    fn own_target(&self) -> Result<Target, Finding> {
        self.way
            .own_canary()
            .ok_or_else(|| Finding::Unknown("the gateway's own canary has no port".to_owned()))
    }

    async fn own_tunnel(&self) -> Result<Box<dyn Io>, Finding> {
        let answer = self.connect(&self.own_target()?.to_string()).await?;
        match answer.status {
            200..=299 => Ok(answer.io),
            _ => Err(answer.unexpected("a CONNECT to the gateway's own canary", "publicUrl")),
        }
    }

    async fn connect(&self, target: &str) -> Result<Answer, Finding> {
        let tcp = dial(self.way, self.road).await?;
        let mut io = secure(self.road, tcp, Alpn::H1).await?;
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            self.token.reveal()
        );
        let failed = |error: &dyn std::fmt::Display| {
            Finding::fail(
                format!("{} does not answer a CONNECT: {error}", self.road.url()),
                "publicUrl",
            )
        };
        io.write_all(request.as_bytes())
            .await
            .map_err(|error| failed(&error))?;
        io.flush().await.map_err(|error| failed(&error))?;
        let (status, reason) = head(&mut io).await.map_err(|error| failed(&error))?;
        Ok(Answer { status, reason, io })
    }
}

/// An answer's status and the reason in our own Proxy-Status; nothing behind the head is read.
async fn head(io: &mut Box<dyn Io>) -> std::io::Result<(u16, Option<String>)> {
    let malformed =
        |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(malformed("its head does not end"));
        }
        head.push(io.read_u8().await?);
    }
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    response
        .parse(&head)
        .map_err(|_| malformed("what comes is not HTTP/1.1"))?;
    let status = response.code.unwrap_or_default();
    let ours = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("proxy-status"))
        .and_then(|field| str::from_utf8(field.value).ok())
        .filter(|value| value.starts_with("sluicegate;"))
        .and_then(|value| value.split_once("details=\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(reason, _)| reason.to_owned());
    Ok((status, ours))
}

/// The first flight of a TLS client that asks for [`DENIED`].
fn client_hello(road: &Road) -> Result<Vec<u8>, Finding> {
    let unknown =
        |error: &dyn std::fmt::Display| Finding::Unknown(format!("no ClientHello: {error}"));
    let name = ServerName::try_from(DENIED).map_err(|error| unknown(&error))?;
    let mut client =
        ClientConnection::new(road.h1.clone(), name).map_err(|error| unknown(&error))?;
    let mut hello = Vec::new();
    client
        .write_tls(&mut hello)
        .map_err(|error| unknown(&error))?;
    Ok(hello)
}
