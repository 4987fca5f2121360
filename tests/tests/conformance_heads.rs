//! The exact request heads of real clients (corpus `client-proxy-heads`), replayed: every one must be served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::{collections::BTreeSet, net::Ipv6Addr, sync::Arc};

use e2e::tasks::Tasks;
use e2e::{Ask, Session, World, corpus};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

/// `host`, `host:port` or `[v6]:port` without its port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A captured head, led to an origin of ours: other ports and our credential, nothing else touched.
struct Head {
    client: String,
    method: String,
    host: String,
    text: String,
}

impl Head {
    fn lead(client: &str, captured: &str, port: u16, credential: &str) -> Self {
        let (first, rest) = captured.split_once("\r\n").unwrap();
        let [method, target, version] = first.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("{client}: {first}");
        };
        let (host, target) = match target.strip_prefix("http://") {
            Some(url) => {
                let (authority, path) = url.split_once('/').unwrap();
                let host = without_port(authority);
                (host, format!("http://{host}:{port}/{path}"))
            }
            None => (
                without_port(target),
                format!("{}:{port}", without_port(target)),
            ),
        };
        let fields = rest
            .split_terminator("\r\n")
            .filter(|line| !line.is_empty());
        let fields = fields.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            // A Host that carries a port carries ours; one without stays without.
            if name.eq_ignore_ascii_case("host") && value.trim() != without_port(value.trim()) {
                return format!("{name}: {}:{port}\r\n", without_port(value.trim()));
            }
            format!("{line}\r\n")
        });
        let fields: String = fields
            .filter(|line| {
                !line
                    .to_ascii_lowercase()
                    .starts_with("proxy-authorization:")
            })
            .collect();
        Self {
            client: client.to_owned(),
            method: method.to_owned(),
            host: host.to_owned(),
            text: format!("{method} {target} {version}\r\n{fields}{credential}\r\n"),
        }
    }

    /// The body the head announces.
    fn body(&self) -> String {
        let lines = self.text.lines().map(str::to_ascii_lowercase);
        let length = lines.filter_map(|line| {
            let value = line.strip_prefix("content-length:")?;
            value.trim().parse::<usize>().ok()
        });
        "x".repeat(length.sum())
    }

    async fn replay(&self, session: &Session) {
        let mut wire = session.dial().await;
        wire.send(format!("{}{}", self.text, self.body())).await;
        let head = wire.head().await;
        let who = format!("{}: {:?}", self.client, self.text);
        if self.method == "CONNECT" {
            assert_eq!(head.status, 200, "{who}");
        } else {
            // The origin has no such path, and says so: a refusal of ours carries an error instead.
            assert_eq!(head.status, 404, "{who}");
            assert!(
                !head.value("proxy-status").contains("error="),
                "{who}: {head:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_captured_client_head_is_served() {
    let Some(folder) = corpus::folder("client-proxy-heads") else {
        return;
    };
    let captured = std::fs::read_to_string(folder.join("heads.json")).unwrap();
    let captured: Vec<Value> = serde_json::from_str(&captured).unwrap();
    assert!(captured.len() >= 62, "{} heads", captured.len());
    let world = World::start().await;
    let port = world.http.port();
    let lead = |credential: &str| -> Vec<Head> {
        // The literal of the captures is a documentation address: here the origin stands at one that is there.
        let text = |value: &Value| value.as_str().unwrap().replace("[2001:db8::1]", "[::1]");
        let heads = captured.iter();
        heads
            .map(|entry| {
                Head::lead(
                    &text(&entry["client"]),
                    &text(&entry["head"]),
                    port,
                    credential,
                )
            })
            .collect()
    };
    let hosts: BTreeSet<String> = lead("")
        .into_iter()
        .map(|head| head.host.trim_end_matches('.').to_ascii_lowercase())
        .collect();
    let allow: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    for host in hosts.iter().filter(|host| !host.starts_with('[')) {
        world.dns.point(host);
    }
    let tasks = Arc::new(Tasks::default());
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .await
        .unwrap();
    let (own, origin) = (Arc::downgrade(&tasks), world.http.address);
    tasks.spawn(async move {
        while let Ok((mut near, _)) = six.accept().await {
            let Some(tasks) = own.upgrade() else { return };
            tasks.spawn(async move {
                let mut far = TcpStream::connect(origin).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let session = world
        .session_for(Ask {
            allow: &allow,
            ..Ask::default()
        })
        .await;
    for head in lead(&session.authorization()) {
        head.replay(&session).await;
    }
}
