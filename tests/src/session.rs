//! A session made by the real command line, and what a runtime would do with its env bundle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;

use crate::ca::{Ca, client_trusting};
use crate::gateway::Gateway;
use crate::program::{Finished, Program};
use crate::tasks::{timed, within};
use crate::wire::{Head, Reply, Wire};

/// A started session with its bundle written out.
pub struct Session {
    /// The session as `session create` printed it.
    pub json: Value,
    /// The env bundle; trust paths point at [`Session::bundle`].
    pub env: BTreeMap<String, String>,
    trust: String,
    directory: TempDir,
}

/// What to ask for.
#[derive(Clone, Default)]
pub struct Ask<'a> {
    /// `--allow`.
    pub allow: &'a [&'a str],
    /// `--service`, as `NAME=URL`.
    pub services: &'a [&'a str],
    /// Other arguments, as they are.
    pub more: &'a [&'a str],
}

impl Session {
    /// Runs `session create` and writes the bundle, adding `ca` as the trust of the test's origins.
    pub async fn create(gateway: &Gateway, ca: &Ca, ask: Ask<'_>) -> Self {
        let output = Self::attempt(gateway, ask).await.succeeded();
        let answer: Value = serde_json::from_str(&output).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("bundle.pem");
        let files: Vec<Value> = answer["files"].as_array().cloned().unwrap_or_default();
        let own: String = files
            .iter()
            .filter_map(|file| file["pem"].as_str())
            .collect();
        std::fs::write(&bundle, format!("{own}\n{}", ca.pem())).unwrap();
        let paths: Vec<&str> = files
            .iter()
            .filter_map(|file| file["path"].as_str())
            .collect();
        let mut env = BTreeMap::new();
        for (name, value) in answer["env"].as_object().expect("an env bundle") {
            let value = value.as_str().expect("env values are text");
            let trust = paths.contains(&value);
            let value = if trust {
                bundle.to_str().unwrap()
            } else {
                value
            };
            env.insert(name.clone(), value.to_owned());
        }
        Self {
            json: answer["session"].clone(),
            env,
            trust: own,
            directory,
        }
    }

    /// `session create`, whatever comes of it.
    pub async fn attempt(gateway: &Gateway, ask: Ask<'_>) -> Finished {
        let mut arguments = vec![
            "session",
            "create",
            "--provider",
            "test",
            "--format",
            "json",
        ];
        for allow in ask.allow {
            arguments.extend(["--allow", allow]);
        }
        for service in ask.services {
            arguments.extend(["--service", service]);
        }
        arguments.extend(ask.more);
        gateway.cli(&arguments).await
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        self.json["id"].as_str().expect("a session id")
    }

    /// `session revoke`.
    pub async fn revoke(&self, gateway: &Gateway) {
        let arguments = ["session", "revoke", "--provider", "test", self.id()];
        gateway.cli(&arguments).await.succeeded();
    }

    /// Waits until none of its bytes move any more, though a MiB has: the buffers on their way are full.
    pub async fn stands_still(&self, gateway: &Gateway) {
        let path = format!("/runtime/providers/test/sessions/{}", self.id());
        let mut seen = 0;
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(200));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stands = async {
            loop {
                looks.tick().await;
                let told = gateway.admin("GET", &path, "").await.json();
                let now = told["session"]["usage"]["bytes"].as_u64().unwrap();
                if now > 1 << 20 && now == seen {
                    return;
                }
                seen = now;
            }
        };
        within("a standstill", stands).await;
    }

    /// The record of a request of its that the gateway has cut, which must come at once, whatever its client does.
    pub async fn cut_at_once(&self, gateway: &Gateway, reason: &str) {
        let cut = gateway.record("the cut's record", |record| {
            record.text("kind") == "request"
                && record.text("outcome") == "cut"
                && record.mentions(self.id())
        });
        let (cut, took) = timed(cut).await;
        assert_eq!(cut.text("reason"), reason);
        assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    }

    /// A file of the gateway's trust and the origins' together.
    pub fn bundle(&self) -> PathBuf {
        self.directory.path().join("bundle.pem")
    }

    /// A directory for the clients of this session.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A variable of the bundle.
    pub fn variable(&self, name: &str) -> &str {
        let value = self.env.get(name);
        value.unwrap_or_else(|| panic!("{name} is not in the bundle: {:?}", self.env.keys()))
    }

    /// A TLS client that trusts the gateway's own authority.
    pub fn gateway_tls(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        client_trusting(&self.trust, alpn)
    }

    /// The proxy URL: `http://sluicegate:HANDLE@127.0.0.1:PORT`.
    pub fn proxy(&self) -> &str {
        self.variable("HTTP_PROXY")
    }

    /// Host and port of the proxy URL.
    pub fn proxy_address(&self) -> SocketAddr {
        let (_, address) = self
            .proxy()
            .rsplit_once('@')
            .expect("a credential in the URL");
        address.trim_end_matches('/').parse().unwrap()
    }

    /// `user:password` of the proxy URL.
    pub fn userinfo(&self) -> &str {
        let (before, _) = self
            .proxy()
            .rsplit_once('@')
            .expect("a credential in the URL");
        before.rsplit_once("//").expect("a scheme").1
    }

    /// The opaque handle.
    pub fn handle(&self) -> &str {
        self.userinfo().split_once(':').expect("user:password").1
    }

    /// The `Proxy-Authorization` line with its CRLF, Basic.
    pub fn authorization(&self) -> String {
        let encoded = BASE64.encode(self.userinfo().as_bytes());
        format!("Proxy-Authorization: Basic {encoded}\r\n")
    }

    /// A connection to the plain listener.
    pub async fn dial(&self) -> Wire {
        Wire::dial(self.proxy_address()).await
    }

    /// Sends CONNECT and answers the head, whatever it is, with the connection.
    pub async fn connect(&self, target: &str) -> (Head, Wire) {
        let mut wire = self.dial().await;
        wire.send(self.connect_head(target)).await;
        (wire.head().await, wire)
    }

    /// Sends a request line without its version, field lines with their CRLF, and the credential.
    pub async fn ask(&self, wire: &mut Wire, line: &str, fields: &str) {
        let authorization = self.authorization();
        let head = format!("{line} HTTP/1.1\r\n{fields}{authorization}\r\n");
        wire.send(head).await;
    }

    /// GET in absolute-form, on a connection of its own.
    pub async fn fetch(&self, authority: &str, path: &str) -> Reply {
        let mut wire = self.dial().await;
        let line = format!("GET http://{authority}{path}");
        let host = format!("Host: {authority}\r\n");
        self.ask(&mut wire, &line, &host).await;
        wire.reply().await
    }

    /// The bytes of a CONNECT.
    pub fn connect_head(&self, target: &str) -> String {
        let authorization = self.authorization();
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n")
    }

    /// An open tunnel to `target`.
    pub async fn tunnel(&self, target: &str) -> Wire {
        let (head, wire) = self.connect(target).await;
        assert_eq!(head.status, 200, "CONNECT {target}: {head:?}");
        wire
    }

    /// A real program with the whole bundle as its environment, at home in this session's directory.
    pub fn program(&self, program: Program) -> Program {
        program
            .envs(&self.env)
            .env("HOME", self.directory())
            .env("TEST_BUNDLE", self.bundle())
            .cwd(self.directory())
    }
}
