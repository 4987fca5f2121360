//! Real programs through the SOCKS5 listener, with the session's handle as the password.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use e2e::program::Running;
use e2e::raw::End;
use e2e::tasks::{free_port, listening};
use e2e::{
    Answer, Ask, Ca, Gateway, Program, Record, Session, Settings, Socks, Wire, World, flows, until,
};

const LISTENER: &str = "  - {kind: socks, address: \"127.0.0.1:0\"}\n";

async fn world() -> (World, String) {
    let settings = Settings {
        listeners: LISTENER.to_owned(),
        ..Settings::default()
    };
    let world = World::with(settings).await;
    let socks = world.gateway.listener("socks").await;
    (world, socks.to_string())
}

/// `socks5h://sluicegate:HANDLE@ADDRESS`: the name is the gateway's to resolve.
fn url(scheme: &str, session: &Session, socks: &str) -> String {
    format!("{scheme}://{}@{socks}", session.userinfo())
}

/// The program with this proxy in its environment, and the trust of the session.
fn dressed(program: Program, session: &Session, proxy: &str) -> Program {
    let bundle = session.bundle();
    let mut program = program
        .cwd(session.directory())
        .env("HOME", session.directory());
    for name in ["ALL_PROXY", "all_proxy"] {
        program = program.env(name, proxy);
    }
    for name in [
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ] {
        program = program.env(name, &bundle);
    }
    program
}

/// A tunnel by SOCKS that moved bytes and was ended by its ends.
async fn recorded(gateway: &Gateway, session: &Session, target: &str) -> Record {
    let own = |record: &Record| {
        record.text("front") == "socks"
            && record.text("target") == target
            && record.0["session"]["id"] == session.json["id"]
            && ["completed", "reset"].contains(&record.text("outcome"))
    };
    let record = gateway
        .record(&format!("a SOCKS tunnel to {target}"), own)
        .await;
    assert!(!record.mentions(session.handle()), "{record:?}");
    record
}

async fn refused(gateway: &Gateway, reason: &str) -> Record {
    let own = |record: &Record| record.text("front") == "socks" && record.text("reason") == reason;
    gateway
        .record(&format!("a SOCKS refusal for {reason}"), own)
        .await
}

#[tokio::test]
async fn curl_by_name_and_by_address() {
    let (world, socks) = world().await;
    let literal = format!("127.0.0.1:{}", world.http.port());
    let (api, plain) = (world.api(), world.plain());
    let allow = [api.as_str(), &plain, &literal];
    let session = world
        .session_for(Ask {
            allow: &allow,
            ..Ask::default()
        })
        .await;
    let by = async |proxy: &str, more: &[&str]| {
        let curl = Program::new("curl").args(["-sS", "--fail", "--max-time", "30"]);
        let curl = dressed(curl, &session, proxy).args(more);
        curl.run().await
    };
    let named = url("socks5h", &session, &socks);
    for target in [
        format!("https://{api}/echo"),
        format!("http://{plain}/echo"),
    ] {
        let text = by(&named, &[&target]).await.succeeded();
        assert!(text.contains("\"GET\""), "{target}: {text}");
    }
    recorded(&world.gateway, &session, &api).await;
    recorded(&world.gateway, &session, &plain).await;
    // By --socks5 curl resolves: what arrives is an address, and is judged as one.
    let resolved = url("socks5", &session, &socks);
    let text = by(&resolved, &[&format!("http://{literal}/echo")])
        .await
        .succeeded();
    assert!(text.contains("\"GET\""), "{text}");
    recorded(&world.gateway, &session, &literal).await;
    let resolve = format!("{api}:127.0.0.1");
    let denied = by(
        &resolved,
        &["--resolve", &resolve, &format!("https://{api}/echo")],
    )
    .await;
    assert_eq!(denied.code, Some(97), "{}", denied.stderr);
    refused(&world.gateway, "port_not_allowed").await;
    // What is denied is told as such; a user name alone may be the handle too.
    let alone = format!("socks5h://{}:@{socks}", session.handle());
    let denied = by(&alone, &["http://evil.test/"]).await;
    assert_eq!(denied.code, Some(97), "{}", denied.stderr);
    assert!(denied.stderr.contains("(2)"), "{}", denied.stderr);
    let record = refused(&world.gateway, "host_not_allowed").await;
    assert_eq!(record.0["session"]["id"], session.json["id"]);
    assert_eq!(world.dns.queries_for("evil.test"), 0);
    let wrong = by(
        &format!("socks5h://sluicegate:wrong@{socks}"),
        &["http://evil.test/"],
    )
    .await;
    assert_eq!(wrong.code, Some(97), "{}", wrong.stderr);
    refused(&world.gateway, "credential_invalid").await;
}

#[tokio::test]
async fn python_and_git() {
    let (world, socks) = world().await;
    let session = world.session().await;
    let proxy = url("socks5h", &session, &socks);
    for client in ["requests", "httpx"] {
        for base in [
            format!("https://{}", world.api()),
            format!("http://{}", world.plain()),
        ] {
            let program = Program::python("http_clients.py").args([client, &base]);
            dressed(program, &session, &proxy).run().await.succeeded();
        }
    }
    let base = format!("https://{}", world.api());
    flows::git(&base, world.root(), session.directory(), |git| {
        dressed(git, &session, &proxy)
    })
    .await;
    recorded(&world.gateway, &session, &world.api()).await;
}

/// A program that knows of no proxy: its connects and its look-ups are taken over by a preloaded library.
#[tokio::test]
async fn proxychains() {
    let (world, socks) = world().await;
    let session = world.session().await;
    let (address, port) = socks.split_once(':').unwrap();
    let file = session.directory().join("proxychains.conf");
    let text = format!(
        "strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\nsocks5 {address} {port} sluicegate {}\n",
        session.handle()
    );
    std::fs::write(&file, text).unwrap();
    let chained = |target: &str| {
        Program::new("proxychains4")
            .arg("-f")
            .arg(&file)
            .args(["curl", "-sS", "--fail", "--max-time", "30", target])
            .env("CURL_CA_BUNDLE", session.bundle())
    };
    let text = chained(&format!("https://{}/echo", world.api()))
        .run()
        .await
        .succeeded();
    assert!(text.contains("\"GET\""), "{text}");
    recorded(&world.gateway, &session, &world.api()).await;
    let denied = chained("http://evil.test/").run().await;
    assert_ne!(denied.code, Some(0), "{}", denied.text());
    refused(&world.gateway, "host_not_allowed").await;
}

/// An OpenSSH server on loopback that takes one key.
async fn sshd(directory: &Path) -> (Running, u16) {
    let key = |name: &str| directory.join(name);
    for name in ["host", "user"] {
        Program::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(key(name))
            .run()
            .await
            .succeeded();
    }
    // The place its unprivileged half is locked up in; Debian's service makes it.
    std::fs::create_dir_all("/run/sshd").unwrap();
    let port = free_port().await;
    let option = |name: &str, value: String| ["-o".to_owned(), format!("{name}={value}")];
    let process = Program::new("/usr/sbin/sshd")
        .args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string()])
        .args(option("ListenAddress", "127.0.0.1".into()))
        .args(option("HostKey", key("host").display().to_string()))
        .args(option(
            "AuthorizedKeysFile",
            key("user.pub").display().to_string(),
        ))
        .args(option("PidFile", "none".into()))
        .args(option("StrictModes", "no".into()))
        .args(option("UsePAM", "no".into()))
        .args(option("PermitRootLogin", "yes".into()))
        .start(&directory.join("sshd.log"));
    listening("sshd", ([127, 0, 0, 1], port).into()).await;
    (process, port)
}

#[tokio::test]
async fn ssh_by_a_proxy_command() {
    let (world, socks) = world().await;
    let directory = tempfile::tempdir().unwrap();
    let (_server, port) = sshd(directory.path()).await;
    world.dns.point("shell.allowed.test");
    let target = format!("shell.allowed.test:{port}");
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let through = format!(
        "ProxyCommand=ncat --proxy {socks} --proxy-type socks5 --proxy-dns remote --proxy-auth {} %h %p",
        session.userinfo()
    );
    let text = Program::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ])
        .args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            &through,
        ])
        .arg("-i")
        .arg(directory.path().join("user"))
        .args([
            "-p",
            &port.to_string(),
            "-l",
            "root",
            "shell.allowed.test",
            "echo hello from afar",
        ])
        .run()
        .await
        .succeeded();
    assert_eq!(text, "hello from afar\n");
    let record = recorded(&world.gateway, &session, &target).await;
    assert!(record.number("bytesUp").unwrap() > 0, "{record:?}");
}

/// What fails is told apart from what is refused, by code and by record.
#[tokio::test]
async fn outages_have_codes_of_their_own() {
    let (world, socks) = world().await;
    let closed = free_port().await;
    for name in [
        "gone.allowed.test",
        "closed.allowed.test",
        "inside.allowed.test",
    ] {
        world.dns.point(name);
    }
    world.dns.set("gone.allowed.test", Answer::Missing);
    world.dns.set(
        "inside.allowed.test",
        Answer::Addresses(vec!["10.9.8.7".parse().unwrap()]),
    );
    let closed = format!("closed.allowed.test:{closed}");
    let allow = [
        "gone.allowed.test:443",
        closed.as_str(),
        "inside.allowed.test:443",
    ];
    let session = world
        .session_for(Ask {
            allow: &allow,
            ..Ask::default()
        })
        .await;
    let cases = [
        ("gone.allowed.test:443", 4, "dns_not_found"),
        (closed.as_str(), 5, "connect_refused"),
        ("inside.allowed.test:443", 2, "special_address"),
    ];
    for (target, code, reason) in cases {
        let mut client = Socks::dial(socks.parse().unwrap(), session.handle()).await;
        assert_eq!(client.ask(target).await, code, "{target}");
        assert_eq!(client.wire.rest().await, (Vec::new(), End::Fin), "{target}");
        let record = refused(&world.gateway, reason).await;
        assert_eq!(record.text("target"), target);
    }
}

/// Live authority reaches a SOCKS tunnel as it does any other.
#[tokio::test]
async fn a_revoked_session_is_cut() {
    let (world, socks) = world().await;
    let (origin, target) = world.raw_origin().await;
    let session = world
        .session_for(Ask {
            allow: &[&target],
            ..Ask::default()
        })
        .await;
    let mut client = Socks::dial(socks.parse().unwrap(), session.handle()).await;
    assert_eq!(client.ask(&target).await, 0);
    let _upstream = origin.accept().await;
    session.revoke(&world.gateway).await;
    client.wire.cut().await;
    refused(&world.gateway, "session_revoked").await;
    let ended = "sluicegate_ended_total{kind=\"tunnel\",front=\"socks\",outcome=\"cut\",reason=\"session_revoked\"}";
    world.gateway.metric_reaches(ended, 1.0).await;
    let mut again = Socks::dial(socks.parse().unwrap(), session.handle()).await;
    assert_eq!(again.login().await, 1, "the credential is dead");
}

/// With a certificate of its own the listener may be spoken to from anywhere.
#[tokio::test]
async fn over_tls() {
    let (directory, ca) = (tempfile::tempdir().unwrap(), Ca::create());
    let (certificate, key) = ca.issue(&["127.0.0.1"]).write(directory.path(), "socks");
    let listeners = format!(
        "  - {{kind: socks, address: \"127.0.0.1:0\", tls: {{certificate: \"{}\", key: \"{}\"}}}}\n",
        certificate.display(),
        key.display()
    );
    let world = World::with(Settings {
        listeners,
        ..Settings::default()
    })
    .await;
    let session = world.session().await;
    let socks = world.gateway.listener("socks").await;
    let wire = Wire::dial(socks)
        .await
        .tls(ca.client(&[]), "127.0.0.1")
        .await;
    let mut client = Socks::over(wire, session.handle());
    assert_eq!(client.ask(&world.plain()).await, 0);
    client
        .wire
        .send(format!(
            "GET /echo HTTP/1.1\r\nHost: {}\r\n\r\n",
            world.plain()
        ))
        .await;
    assert_eq!(client.wire.reply().await.status(), 200);
    until("the origin to have seen it", || {
        (!world.http.seen().is_empty()).then_some(())
    })
    .await;
}

/// What holds when the request comes decides, whatever held when its client logged in.
#[tokio::test]
async fn a_login_outlives_no_session() {
    let (world, socks) = world().await;
    let ask = Ask {
        allow: &["late.test:80"],
        ..Ask::default()
    };
    let session = world.session_for(ask).await;
    let mut client = Socks::dial(socks.parse().unwrap(), session.handle()).await;
    assert_eq!(client.login().await, 0);
    session.revoke(&world.gateway).await;
    let request = e2e::socks::request(b"late.test:80").unwrap();
    assert_ne!(client.request(&request).await, 0);
    assert_eq!(world.dns.queries_for("late.test"), 0);
}
