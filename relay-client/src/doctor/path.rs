//! The way to the gateway: its name, its port, and each transport.

use std::net::SocketAddr;

use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::TaskTracker;

use super::{Check, Finding};
use crate::{
    config::Config,
    transport::{
        CONNECT_TIMEOUT, ConnectError, Connection, FIRST, OpenError, Racer, Tls, Transport,
    },
};

/// Name resolution and TCP.
pub(super) async fn reach(config: &Config) -> Vec<Check> {
    let endpoint = &config.endpoint;
    let mut addresses = Vec::new();
    let name = Check::of("name", async {
        match endpoint.addresses().await {
            Ok(found) if found.is_empty() => Finding::failed(
                format!("{} has no address", endpoint.host()),
                "check the URL, or the resolver of this sandbox",
            ),
            Ok(found) => {
                let told: Vec<_> = found.iter().map(|a| a.ip().to_string()).collect();
                addresses = found;
                Finding::ok(format!("{} is {}", endpoint.host(), told.join(", ")))
            }
            Err(error) => Finding::failed(
                format!("{} cannot be resolved: {error}", endpoint.host()),
                "check the URL, or the resolver of this sandbox (/etc/resolv.conf)",
            ),
        }
    });
    let name = name.await;
    if addresses.is_empty() {
        return vec![name, Check::skipped("tcp", "the name has no address")];
    }
    let tcp = Check::of("tcp", tcp(&addresses)).await;
    vec![name, tcp]
}

async fn tcp(addresses: &[SocketAddr]) -> Finding {
    let (mut reached, mut failed) = (Vec::new(), Vec::new());
    for address in addresses {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => reached.push(address.to_string()),
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!("{address}: no answer within {CONNECT_TIMEOUT:?}")),
        }
    }
    if reached.is_empty() {
        return Finding::failed(
            failed.join("; "),
            "the gateway does not run there, or this sandbox may not reach that TCP port",
        );
    }
    let mut detail = format!("reached {}", reached.join(", "));
    if !failed.is_empty() {
        detail = format!("{detail}; not {}", failed.join("; "));
    }
    Finding::ok(detail)
}

/// One transport, up to the verdict on the credential, whatever that is.
pub(super) async fn transport(
    config: &Config,
    tls: &Tls,
    transport: Transport,
    tasks: &TaskTracker,
) -> (Check, Option<Connection>) {
    let mut works = None;
    let check = Check::of(transport.label(), async {
        let connected = Connection::connect(transport, &config.endpoint, tls, tasks).await;
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => return Finding::failed(error.to_string(), advice(transport, &error)),
        };
        match connection.prove(&config.token).await {
            Ok(()) | Err(OpenError::Refused(_)) => {
                works = Some(connection);
                Finding::ok("the gateway answers")
            }
            Err(error) => Finding::failed(
                format!("connected, but no answer: {error}"),
                "something between here and the gateway takes the connection and passes nothing on",
            ),
        }
    });
    (check.await, works)
}

/// Which of them would carry the streams of a client that starts now, and why: they race as they would there.
pub(super) async fn winner(config: &Config, tls: &Tls, tasks: &TaskTracker) -> Check {
    let racer = Racer {
        endpoint: config.endpoint.clone(),
        tls: tls.clone(),
        token: config.token.as_str().into(),
        choice: config.transport,
        tasks: tasks.clone(),
    };
    Check::of("transport", async {
        match racer.race(FIRST).await {
            Ok(won) => {
                let transport = won.connection.transport();
                Finding::ok(format!("{transport} carries the streams: {}", won.why))
            }
            Err(error) => Finding::failed(
                error.to_string(),
                "it worked a moment ago: the way to the gateway comes and goes",
            ),
        }
    })
    .await
}

fn advice(transport: Transport, error: &ConnectError) -> String {
    let said = error.to_string().to_lowercase();
    if said.contains("certificate") || said.contains("unknownissuer") {
        return "the certificate is not trusted: pass --ca (SLUICEGATE_CA_FILE) with the gateway's CA, and use the name it was \
                issued for"
            .to_owned();
    }
    let text = match transport {
        Transport::Quic => {
            "open UDP to the gateway's port (the same number as TCP's); until then TLS carries the streams"
        }
        Transport::H2 => {
            "a middlebox may pass no HTTP/2: let TLS to the gateway through untouched, or rely on h1"
        }
        Transport::H1 => {
            "nothing passes over TLS: look at the proxy or firewall between here and the gateway"
        }
    };
    text.to_owned()
}
