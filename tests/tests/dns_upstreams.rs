//! Name servers spoken to over TLS (RFC 7858) and over HTTPS (RFC 8484): Unbound, and what its certificate must be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::path::Path;

use e2e::servers::{Server, unbound};
use e2e::{Ask, Ca, Dns, Gateway, RawOrigin, Session, Settings};
use tempfile::TempDir;

const NAME: &str = "resolver.dns.test";

/// Unbound before the test's own DNS server, whose log is the witness of what was asked.
struct Setting {
    dns: Dns,
    ca: Ca,
    tls: SocketAddr,
    https: SocketAddr,
    origin: RawOrigin,
    files: TempDir,
    _unbound: Server,
}

impl Setting {
    async fn start() -> Self {
        let (dns, ca) = (Dns::start().await, Ca::create());
        dns.point("raw.allowed.test");
        let (unbound, https) = unbound(&ca, &[NAME], dns.address).await;
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(files.path().join("other.pem"), Ca::create().pem()).unwrap();
        Self {
            dns,
            ca,
            tls: unbound.address,
            https,
            origin: RawOrigin::start().await,
            files,
            _unbound: unbound,
        }
    }

    /// Both ways to speak to it, expecting `name` in its certificate.
    fn servers(&self, name: &str) -> [String; 2] {
        [
            format!("tls://{}#{name}", self.tls),
            format!("https://{}/dns-query#{name}", self.https),
        ]
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    fn target(&self) -> String {
        format!("raw.allowed.test:{}", self.origin.address.port())
    }

    /// A gateway with this one server, and a session that may reach the origin.
    async fn gateway(&self, server: &str, ca_file: &str) -> (Gateway, Session) {
        let more = format!(
            "dns: {{servers: [\"{server}\"], caFile: \"{ca_file}\", cacheSize: 0, timeout: 4s}}\n"
        );
        let settings = Settings {
            more,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings).await;
        let ask = Ask {
            allow: &[&self.target()],
            ..Ask::default()
        };
        let session = Session::create(&gateway, &self.ca, ask).await;
        (gateway, session)
    }

    /// With this server and trust nothing is resolved, and nothing is asked.
    async fn refused(&self, server: &str, ca_file: &str) {
        let (gateway, session) = self.gateway(server, ca_file).await;
        let (head, mut wire) = session.connect(&self.target()).await;
        assert_eq!(head.status, 502, "{server}: {head:?}");
        let body = String::from_utf8(wire.rest().await.0).unwrap();
        assert!(body.contains("dns_failed"), "{server}: {body}");
        assert!(!body.contains("certificate"), "{server}: {body}");
        self.origin.stays_alone().await;
        assert_eq!(self.dns.queries().len(), 0, "{server}: it was asked");
        let record = gateway.record_of(&self.target()).await;
        assert_eq!(record.text("reason"), "dns_failed", "{record:?}");
        assert_ne!(record.text("detail"), "", "{record:?}");
    }
}

#[tokio::test]
async fn names_are_resolved_over_tls_and_over_https() {
    let setting = Setting::start().await;
    for server in setting.servers(NAME) {
        let before = setting.dns.queries_for("raw.allowed.test");
        let (_gateway, session) = setting.gateway(&server, &setting.file("ca.pem")).await;
        let mut wire = session.tunnel(&setting.target()).await;
        wire.send("\x01through").await;
        drop(setting.origin.accept().await);
        let asked = setting.dns.queries_for("raw.allowed.test");
        assert!(asked > before, "{server}: nobody asked");
        // What does not exist is told apart from a server that cannot be had.
        let missing = setting.target().replace("raw.", "missing.");
        let ask = Ask {
            allow: &[&missing],
            ..Ask::default()
        };
        let other = Session::create(&_gateway, &setting.ca, ask).await;
        assert_eq!(other.connect(&missing).await.0.status, 502, "{server}");
        let record = _gateway.record_of(&missing).await;
        assert_eq!(
            record.text("reason"),
            "dns_not_found",
            "{server}: {record:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let setting = Setting::start().await;
    for server in setting.servers("other.dns.test") {
        setting.refused(&server, &setting.file("ca.pem")).await;
    }
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_refused() {
    let setting = Setting::start().await;
    for server in setting.servers(NAME) {
        setting.refused(&server, &setting.file("other.pem")).await;
    }
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_a_refusal_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.pem");
    let cases = [
        ("tls://127.0.0.1#a.test", absent.as_path(), "absent.pem", 1),
        ("127.0.0.1", absent.as_path(), "caFile", 2),
        (
            "tls://127.0.0.1#a.test",
            Path::new("/dev/null"),
            "no PEM certificate",
            1,
        ),
    ];
    for (server, file, says, wanted) in cases {
        let config = directory.path().join("sluicegate.yaml");
        let yaml = format!(
            "dns: {{servers: [\"{server}\"], caFile: \"{}\"}}\nlisteners:\n  - {{kind: plain, address: \"127.0.0.1:0\"}}\n",
            file.display()
        );
        std::fs::write(&config, yaml).unwrap();
        let mut process = e2e::gateway::serve(&config, directory.path());
        let code = process.wait("a refusal to start").await;
        let said = process.said();
        assert!(said.contains(says), "{server}: {said}");
        assert_eq!(code, wanted, "{server}: {said}");
    }
}
