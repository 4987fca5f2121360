//! What probes are made against: an echo service and an origin, in this process, for the probe's own session only.
//!
//! The echo service is a unix socket (0600) in the state directory that no other session may name; the origin a port on
//! loopback that tells everyone the same.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use sluicegate_policy::{
    Ceiling, Grant, GrantDocument, Target,
    text::{self, Faults},
};
use sluicegate_relay::listen::replace_private_socket;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};

use crate::drain::{DrainWatch, Stage};

/// Nobody but the probe comes here, a few at a time.
const AT_ONCE: usize = 16;
/// None stays longer.
const LIFE: Duration = Duration::from_secs(30);
/// The echo service's name in the probe's own grant.
pub(super) const ECHO: &str = "probe";
/// What the origin answers to a request.
pub(super) const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nConnection: close\r\n\r\ncanary\n";
/// What it says to anything else.
pub(super) const ANYTHING: &[u8] = b"canary reached\n";

/// Both, bound and not yet served.
#[derive(Debug)]
pub struct Inside {
    echo: UnixListener,
    path: PathBuf,
    origin: TcpListener,
    address: SocketAddr,
}

impl Inside {
    /// Bind the socket at `path`, and a port on loopback.
    ///
    /// # Errors
    /// Either cannot be bound.
    pub async fn bind(path: PathBuf) -> io::Result<Self> {
        let echo = UnixListener::from_std(replace_private_socket(&path)?)?;
        let origin = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = origin.local_addr()?;
        Ok(Self {
            echo,
            path,
            origin,
            address,
        })
    }

    /// Where both are.
    pub fn targets(&self) -> Targets {
        Targets {
            path: self.path.clone(),
            origin: self.address,
        }
    }

    /// Serve both until the end of the drain.
    pub async fn serve(self, mut drain: DrainWatch) {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let served = tokio::select! {
                accepted = self.echo.accept() => accepted.map(|(stream, _)| Visitor::Echo(stream)),
                accepted = self.origin.accept() => accepted.map(|(stream, _)| Visitor::Origin(stream)),
                () = drain.reached(Stage::Forced) => break,
            };
            let Ok(visitor) = served else {
                // No descriptors: whoever came is answered next time.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            drain.spawn_service(async move {
                let _ = tokio::time::timeout(LIFE, visitor.serve()).await;
                drop(place);
            });
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where the echo service and the origin are.
#[derive(Clone, Debug)]
pub struct Targets {
    path: PathBuf,
    origin: SocketAddr,
}

impl Targets {
    /// Where the origin listens.
    pub fn origin(&self) -> SocketAddr {
        self.origin
    }

    /// What the probe's session may reach: these two, and the operator's canary, which may stand in a private network.
    ///
    /// # Errors
    /// The state directory's path cannot stand in a service URL, or the canary in `allowedHosts`: the faults, as text.
    pub fn grant(&self, canary: Option<&Target>) -> Result<Grant, String> {
        const PRIVATE: [&str; 7] = [
            "127.0.0.0/8",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "::1/128",
            "fc00::/7",
        ];
        let hosts: Vec<String> = [Some(self.origin.to_string()), canary.map(Target::to_string)]
            .into_iter()
            .flatten()
            .collect();
        let source = serde_json::json!({
            "egress": { "allowedHosts": hosts, "allowedAddresses": PRIVATE, "mode": "enforce" },
            "services": { ECHO: format!("unix://{}", self.path.display()) },
        })
        .to_string();
        let bound = serde_json::json!({ "addresses": PRIVATE }).to_string();
        let mut faults = Faults::default();
        let ceiling = Ceiling::read(&text::parse(&bound, &mut faults), &mut faults);
        let document = GrantDocument::read(&text::parse(&source, &mut faults), &mut faults);
        match document.compile(&ceiling, &mut faults) {
            Some(grant) if faults.is_clean() => Ok(grant),
            Some(_) | None => Err(faults.render(&source, "the probe's grant")),
        }
    }
}

enum Visitor {
    Echo(tokio::net::UnixStream),
    Origin(tokio::net::TcpStream),
}

impl Visitor {
    async fn serve(self) -> io::Result<()> {
        match self {
            Self::Echo(mut stream) => {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            }
            Self::Origin(mut stream) => {
                let mut head = Vec::new();
                let mut buffer = [0; 1024];
                // A request, or whatever else a gate that does not judge let through.
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let read = stream.read(&mut buffer).await?;
                    head.extend_from_slice(buffer.get(..read).unwrap_or_default());
                    if !head.starts_with(b"GET ") {
                        stream.write_all(ANYTHING).await?;
                        return stream.shutdown().await;
                    }
                    if read == 0 || head.len() > 16 * 1024 {
                        return Ok(());
                    }
                }
                stream.write_all(ANSWER.as_bytes()).await?;
                stream.shutdown().await
            }
        }
    }
}
