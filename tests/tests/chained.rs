//! The operator's own proxy as the way out: real proxies, and one that logs what it is asked and answers what it is told to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::program::Running;
use e2e::tasks::{free_port, listening};
use e2e::{Answer, Ask, Ca, Dns, Forwarder, Gateway, Origin, Program, Session, Settings, Wire};

/// Two origins, a resolver, and the proxy's settings of a gateway.
struct Stage {
    dns: Dns,
    ca: Ca,
    https: Origin,
    http: Origin,
    root: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (dns, ca) = (Dns::start().await, Ca::create());
        for name in ["api.allowed.test", "plain.allowed.test"] {
            dns.point(name);
        }
        let https = Origin::https(root.path().to_owned(), &ca, &["api.allowed.test"]).await;
        let http = Origin::http(root.path().to_owned()).await;
        Self {
            dns,
            ca,
            https,
            http,
            root,
        }
    }

    /// A gateway with these lines in its `upstreamProxy`, and a session. Everything here is on loopback, which by default no
    /// proxy is asked for.
    async fn gateway(&self, lines: &str) -> (Gateway, Session) {
        let more = format!("probe: {{interval: 0}}\nupstreamProxy:\n  bypass: []\n{lines}");
        let settings = Settings {
            dns: Some(self.dns.address),
            limits: "  dialTimeout: 3s\n".to_owned(),
            more,
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings).await;
        let (api, plain) = (self.api(), self.plain());
        let inside = format!("inside.allowed.test:{}", self.http.port());
        let allow = [api.as_str(), &plain, &inside];
        let ask = Ask {
            allow: &allow,
            ..Ask::default()
        };
        let session = Session::create(&gateway, &self.ca, ask).await;
        (gateway, session)
    }

    fn api(&self) -> String {
        format!("api.allowed.test:{}", self.https.port())
    }

    fn plain(&self) -> String {
        format!("plain.allowed.test:{}", self.http.port())
    }

    fn credential(&self) -> String {
        let path = self.root.path().join("credential");
        std::fs::write(&path, "agent:s3cret\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        format!("  credentialFile: \"{}\"\n", path.display())
    }
}

/// curl through the gateway, by the bundle's own variables.
async fn fetch(session: &Session, url: &str) -> String {
    let curl = Program::new("curl").args(["-sS", "--fail-with-body", "--max-time", "20", url]);
    session.program(curl).run().await.succeeded()
}

fn on_loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// tinyproxy that wants a user name and a password.
async fn tinyproxy(directory: &Path) -> (Running, SocketAddr) {
    let address = on_loopback(free_port().await);
    let config = directory.join("tinyproxy.conf");
    let text = format!(
        "Port {}\nListen 127.0.0.1\nMaxClients 50\nLogLevel Connect\nBasicAuth agent s3cret\n",
        address.port()
    );
    std::fs::write(&config, text).unwrap();
    let process = Program::new("/usr/bin/tinyproxy")
        .args(["-d", "-c"])
        .arg(&config)
        .start(&directory.join("tinyproxy.log"));
    listening("tinyproxy", address).await;
    (process, address)
}

/// TLS before another server, by HAProxy.
async fn tls_before(directory: &Path, ca: &Ca, behind: SocketAddr) -> (Running, SocketAddr) {
    let address = on_loopback(free_port().await);
    let leaf = ca.issue(&["proxy.corp.test"]);
    let both = directory.join("proxy-both.pem");
    std::fs::write(&both, format!("{}{}", leaf.certificate, leaf.key)).unwrap();
    let config = directory.join("tls.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen l\n  bind {address} ssl crt {}\n  server s {behind}\n",
        both.display()
    );
    std::fs::write(&config, text).unwrap();
    let process = Program::new("/usr/sbin/haproxy")
        .args(["-db", "-f"])
        .arg(&config)
        .start(&directory.join("tls.log"));
    listening("haproxy", address).await;
    (process, address)
}

#[tokio::test]
async fn by_real_proxies() {
    let stage = Stage::set().await;
    let directory = stage.root.path();
    let (_tiny, http) = tinyproxy(directory).await;
    let (_haproxy, https) = tls_before(directory, &stage.ca, http).await;
    stage.dns.point("proxy.corp.test");
    let trust = directory.join("corp.pem");
    std::fs::write(&trust, stage.ca.pem()).unwrap();
    let socks = on_loopback(free_port().await);
    let micro = Program::new("microsocks")
        .args([
            "-i",
            "127.0.0.1",
            "-p",
            &socks.port().to_string(),
            "-u",
            "agent",
            "-P",
            "s3cret",
        ])
        .start(&directory.join("microsocks.log"));
    listening("microsocks", socks).await;
    let credential = stage.credential();
    let proxies = [
        format!("  url: http://{http}\n{credential}"),
        format!(
            "  url: https://proxy.corp.test:{}\n  caFile: \"{}\"\n{credential}",
            https.port(),
            trust.display()
        ),
        format!("  url: socks5://{socks}\n{credential}"),
    ];
    for lines in proxies {
        let (gateway, session) = stage.gateway(&lines).await;
        let before = (stage.https.seen().len(), stage.http.seen().len());
        for url in [
            format!("https://{}/echo", stage.api()),
            format!("http://{}/echo", stage.plain()),
        ] {
            assert!(fetch(&session, &url).await.contains("\"GET\""), "{lines}");
        }
        assert_eq!(
            (stage.https.seen().len(), stage.http.seen().len()),
            (before.0 + 1, before.1 + 1)
        );
        let record = gateway.record_of(&stage.api()).await;
        assert!(
            record
                .text("detail")
                .contains("through the upstream proxy at"),
            "{record:?}"
        );
        assert_eq!(
            record.text("address"),
            format!("127.0.0.1:{}", stage.https.port())
        );
        assert!(!record.mentions("s3cret"), "{record:?}");
        assert!(!gateway.process.said().contains("s3cret"));
    }
    let said = std::fs::read_to_string(directory.join("tinyproxy.log")).unwrap();
    assert!(
        said.contains(&format!("CONNECT 127.0.0.1:{}", stage.https.port())),
        "{said}"
    );
    drop(micro);
}

/// What the proxy is asked for is what was judged; or the name, where the operator says so. It is not asked otherwise.
#[tokio::test]
async fn what_it_is_asked_for() {
    let stage = Stage::set().await;
    for (ask, asked) in [
        ("", format!("127.0.0.1:{}", stage.https.port())),
        ("  ask: name\n", stage.api()),
    ] {
        for scheme in ["http", "socks5"] {
            let proxy = Forwarder::start().await;
            let lines = format!("  url: {scheme}://{}\n{ask}", proxy.address);
            let (gateway, session) = stage.gateway(&lines).await;
            fetch(&session, &format!("https://{}/echo", stage.api())).await;
            assert_eq!(proxy.asked(), [asked.as_str()], "{lines}");
            // Resolved and judged here first, whatever is asked: a name that leads inside is not asked for at all.
            stage.dns.set(
                "inside.allowed.test",
                Answer::Addresses(vec!["10.1.2.3".parse().unwrap()]),
            );
            let inside = format!("inside.allowed.test:{}", stage.http.port());
            let reply = session.fetch(&inside, "/").await;
            assert_eq!(
                (reply.status(), reply.json()["reason"].as_str()),
                (403, Some("special_address"))
            );
            stage.dns.set("inside.allowed.test", Answer::Missing);
            let reply = session.fetch(&inside, "/").await;
            assert_eq!(
                (reply.status(), reply.json()["reason"].as_str()),
                (502, Some("dns_not_found"))
            );
            assert_eq!(session.fetch("evil.test:80", "/").await.status(), 403);
            assert_eq!(proxy.asked().len(), 1, "{lines}");
            drop(gateway);
        }
    }
}

/// What goes direct is named by the operator, and nothing else does.
#[tokio::test]
async fn what_goes_direct() {
    let stage = Stage::set().await;
    let proxy = Forwarder::start().await;
    let url = format!("  url: http://{}\n", proxy.address);
    for (bypass, direct) in [
        ("[\"api.allowed.test:*\"]".to_owned(), true),
        ("[\"*.allowed.test:*\"]".to_owned(), true),
        (format!("[\"127.0.0.0/8:{}\"]", stage.https.port()), true),
        (
            "[\"other.allowed.test:*\", \"10.0.0.0/8:*\"]".to_owned(),
            false,
        ),
    ] {
        let before = proxy.asked().len();
        let settings = Settings {
            dns: Some(stage.dns.address),
            more: format!("probe: {{interval: 0}}\nupstreamProxy:\n{url}  bypass: {bypass}\n"),
            ..Settings::default()
        };
        let gateway = Gateway::start(&settings).await;
        let api = stage.api();
        let ask = Ask {
            allow: &[&api],
            ..Ask::default()
        };
        let session = Session::create(&gateway, &stage.ca, ask).await;
        fetch(&session, &format!("https://{api}/echo")).await;
        assert_eq!(proxy.asked().len() == before, direct, "{bypass}");
    }
    // Unless told otherwise, loopback is this machine's and not the proxy's.
    let settings = Settings {
        dns: Some(stage.dns.address),
        more: format!("probe: {{interval: 0}}\nupstreamProxy:\n{url}"),
        ..Settings::default()
    };
    let before = proxy.asked().len();
    let gateway = Gateway::start(&settings).await;
    let api = stage.api();
    let ask = Ask {
        allow: &[&api],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &stage.ca, ask).await;
    fetch(&session, &format!("https://{api}/echo")).await;
    assert_eq!(proxy.asked().len(), before);
}

/// A proxy that says no, or cannot be used: the client is told which, and nobody dials instead.
#[tokio::test]
async fn a_refusal_is_an_answer_and_never_a_detour() {
    let stage = Stage::set().await;
    let closed = on_loopback(free_port().await);
    // Without an end.
    let interim = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9);
    let http: [(&[u8], u16, &str); 10] = [
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
            502,
            "upstream_proxy_refused",
        ),
        (b"HTTP/1.0 407 Who\r\n\r\n", 502, "upstream_proxy_refused"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n",
            502,
            "upstream_proxy_refused",
        ),
        (b"HTTP/1.1 503 No\r\n\r\n", 502, "connect_unreachable"),
        (b"HTTP/1.1 504 No\r\n\r\n", 504, "connect_timeout"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            502,
            "upstream_proxy_refused",
        ),
        (&interim, 502, "upstream_proxy_failed"),
        (b"SSH-2.0-x\r\n\r\n", 502, "upstream_proxy_failed"),
        (b"", 502, "upstream_proxy_failed"),
        (b"HTTP/1.1 2", 502, "upstream_proxy_failed"),
    ];
    let socks: [(&[u8], u16, &str); 6] = [
        (
            b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0",
            502,
            "upstream_proxy_refused",
        ),
        (
            b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0",
            502,
            "connect_refused",
        ),
        (
            b"\x05\x00\x05\x04\x00\x01\0\0\0\0\0\0",
            502,
            "connect_unreachable",
        ),
        (
            b"\x05\x00\x05\x06\x00\x01\0\0\0\0\0\0",
            504,
            "connect_timeout",
        ),
        (b"\x05\xff", 502, "upstream_proxy_refused"),
        (b"HTTP/1.1 400 Bad\r\n\r\n", 502, "upstream_proxy_failed"),
    ];
    let cases = http
        .iter()
        .map(|case| ("http", case))
        .chain(socks.iter().map(|case| ("socks5", case)));
    let proxy = Forwarder::start().await;
    let gateways = [
        stage
            .gateway(&format!("  url: http://{}\n", proxy.address))
            .await,
        stage
            .gateway(&format!("  url: socks5://{}\n", proxy.address))
            .await,
    ];
    for (scheme, (answer, status, reason)) in cases {
        proxy.says(answer);
        let (gateway, session) = &gateways[usize::from(scheme == "socks5")];
        let (head, mut wire) = session.connect(&stage.api()).await;
        let what = format!("{scheme} {}", answer.escape_ascii());
        assert_eq!(head.status, *status, "{what}");
        assert!(
            head.value("proxy-status").contains(reason),
            "{what}: {head:?}"
        );
        wire.cut().await;
        let refused = |record: &e2e::Record| record.text("reason") == *reason;
        gateway.record(&what, refused).await;
    }
    // A proxy that is not there, one that says nothing, and one that is ourselves.
    proxy.silent();
    let (_gateway, session) = &gateways[0];
    let (head, _) = session.connect(&stage.api()).await;
    assert_eq!(head.status, 504);
    let (_absent, session) = stage.gateway(&format!("  url: http://{closed}\n")).await;
    let reply = session.fetch(&stage.plain(), "/").await;
    assert_eq!(
        (reply.status(), reply.json()["reason"].as_str()),
        (502, Some("upstream_proxy_failed"))
    );
    assert!(
        stage.https.seen().is_empty() && stage.http.seen().is_empty(),
        "nobody went there"
    );
}

/// Bytes behind the proxy's answer are the upstream's first; interim answers before it are none.
#[tokio::test]
async fn a_server_that_speaks_first() {
    let stage = Stage::set().await;
    let proxy = Forwarder::start().await;
    let (_gateway, session) = stage
        .gateway(&format!("  url: http://{}\n", proxy.address))
        .await;
    let answer = "HTTP/1.1 200 OK\r\nVia: x\r\n\r\n220 hello\r\n";
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    for before in ["", interim] {
        proxy.says(format!("{before}{answer}").as_bytes());
        let mut wire: Wire = session.tunnel(&stage.plain()).await;
        assert_eq!(wire.take(11).await, b"220 hello\r\n", "{before}");
    }
}

/// Without its credential the gateway does not start, and says what is missing; reload takes another proxy.
#[tokio::test]
async fn settings() {
    let stage = Stage::set().await;
    let first = Forwarder::start().await;
    let second = Forwarder::start().await;
    let settings = |proxy: &Forwarder| Settings {
        dns: Some(stage.dns.address),
        more: format!(
            "probe: {{interval: 0}}\nupstreamProxy: {{url: \"http://{}\", bypass: []}}\n",
            proxy.address
        ),
        ..Settings::default()
    };
    let gateway = Gateway::start(&settings(&first)).await;
    let plain = stage.plain();
    let ask = Ask {
        allow: &[&plain],
        ..Ask::default()
    };
    let session = Session::create(&gateway, &stage.ca, ask).await;
    assert_eq!(session.fetch(&plain, "/echo").await.status(), 200);
    assert_eq!((first.asked().len(), second.asked().len()), (1, 0));
    gateway.reconfigure(&settings(&second));
    gateway.cli(&["reload"]).await.succeeded();
    assert_eq!(session.fetch(&plain, "/echo").await.status(), 200);
    assert_eq!((first.asked().len(), second.asked().len()), (1, 1));
    let mut exposed = settings(&first);
    let path = stage.root.path().join("open");
    std::fs::write(&path, "agent:secret").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (file, said) in [
        (path.clone(), "readable"),
        (stage.root.path().join("absent"), "does not exist"),
    ] {
        exposed.more = format!(
            "upstreamProxy: {{url: \"http://{}\", credentialFile: \"{}\"}}\n",
            first.address,
            file.display()
        );
        gateway.reconfigure(&exposed);
        let refused = gateway.cli(&["reload"]).await;
        assert_ne!(refused.code, Some(0));
        let text = format!("{}{}", refused.text(), refused.stderr);
        assert!(text.contains(said), "{text}");
    }
}
