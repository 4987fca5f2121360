//! Connections that know of no proxy: machines behind this one whose traffic the network brings to the gateway, and clients that
//! take it for the origin. Each test of the former runs in a network of its own, with the rulesets of `deploy/nftables`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::apart::{Machine, inside, sh};
use e2e::raw::End;
use e2e::{Program, Record, Settings, Wire, World, until};
use serde_json::json;

/// Where nothing is that would answer: the address clients dial is never dialled again.
const NOWHERE: &str = "203.0.113.10";
const NOWHERE6: &str = "2001:db8:77::10";

/// A ruleset of ours, for these interfaces.
async fn load(ruleset: &str, interfaces: &[&str]) {
    let path = format!(
        "{}/../deploy/nftables/{ruleset}.nft",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let names: Vec<String> = interfaces
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    let given = "define sandboxes = { \"sandbox0\" }";
    assert!(text.contains(given));
    let text = text.replace(
        given,
        &format!("define sandboxes = {{ {} }}", names.join(", ")),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    sh(&format!("nft -f {}", file.path().display())).await;
}

/// A gateway that captures, both families, by this way.
async fn world(capture: &str) -> World {
    let one = |address: &str| {
        format!(
            "  - {{kind: transparent, capture: {capture}, address: \"{address}:15001\", identify: source}}\n"
        )
    };
    World::with(Settings {
        listeners: one("0.0.0.0") + &one("[::]"),
        limits: "  firstBytesTimeout: 2s\n".to_owned(),
        ..Settings::default()
    })
    .await
}

/// A session of these sources.
async fn session(world: &World, allow: &[&str], sources: &[&str]) -> String {
    let egress = json!({"allowedHosts": allow, "allowedAddresses": ["127.0.0.0/8"]});
    let body = json!({"egress": egress, "sources": sources}).to_string();
    let reply = world
        .gateway
        .admin("POST", "/runtime/providers/test/sessions", &body)
        .await;
    assert_eq!(reply.status(), 201, "{}", reply.text());
    reply.json()["session"]["id"].as_str().unwrap().to_owned()
}

/// `curl` that has this name at that address, and no proxy.
fn curl(machine: &Machine, world: &World, target: &str, at: &str) -> Program {
    let at = if at.contains(':') {
        format!("[{at}]")
    } else {
        at.to_owned()
    };
    let bundle = world.root().join("ca.pem");
    std::fs::write(&bundle, world.ca.pem()).unwrap();
    machine
        .run("curl")
        .args(["-sS", "--fail-with-body", "--max-time", "20", "--resolve"])
        .arg(format!("{target}:{at}"))
        .arg("--cacert")
        .arg(bundle)
}

async fn record(world: &World, front: &str, wanted: impl Fn(&Record) -> bool) -> Record {
    let own = |record: &Record| record.text("front") == front && wanted(record);
    world
        .gateway
        .record("a record of a captured connection", own)
        .await
}

/// What any network that is captured must see, by either family.
async fn a_captured_network(world: &World, machine: &Machine, at: &str, source: &str) {
    let (api, plain) = (world.api(), world.plain());
    let id = session(world, &[&api, &plain], &[source]).await;
    // TLS by SNI, HTTP by Host: to where the name leads here, not to the address that was dialled.
    let text = curl(machine, world, &api, at)
        .arg(format!("https://{api}/echo"))
        .run()
        .await;
    assert!(text.succeeded().contains("\"GET\""));
    let text = curl(machine, world, &plain, at)
        .arg(format!("http://{plain}/echo"))
        .run()
        .await;
    assert!(text.succeeded().contains("\"GET\""));
    for target in [&api, &plain] {
        let of_target = |record: &Record| {
            record.text("target") == target
                && record.text("outcome") == "completed"
                && record.0["session"]["id"] == id.as_str()
        };
        let record = record(world, "transparent", of_target).await;
        assert!(
            record.text("address").starts_with("127.0.0.1:"),
            "{record:?}"
        );
        assert!(record.text("downstream").contains(source), "{record:?}");
    }
    // A name that is not allowed: HTTP is told why, TLS gets an alert, and nobody is asked where it leads.
    let denied = curl(
        machine,
        world,
        &format!("evil.test:{}", world.http.port()),
        at,
    )
    .arg(format!("http://evil.test:{}/", world.http.port()))
    .run()
    .await;
    assert!(
        denied.text().contains("\"host_not_allowed\""),
        "{}",
        denied.text()
    );
    let denied = curl(machine, world, "evil.test:443", at)
        .arg("https://evil.test/")
        .run()
        .await;
    assert_eq!(denied.code, Some(35), "{}", denied.stderr);
    assert!(denied.stderr.contains("access denied"), "{}", denied.stderr);
    record(world, "transparent", |record| {
        record.text("target") == "evil.test:443" && record.text("reason") == "host_not_allowed"
    })
    .await;
    assert_eq!(world.dns.queries_for("evil.test"), 0);
    // Without a name there is only the address, and no rule names it.
    let bare = if at.contains(':') {
        format!("[{at}]")
    } else {
        at.to_owned()
    };
    let denied = curl(machine, world, &api, at)
        .args(["-k", &format!("https://{bare}:444/")])
        .run()
        .await;
    assert_eq!(denied.code, Some(35), "{}", denied.stderr);
    record(world, "transparent", |record| {
        record.text("target") == format!("{bare}:444")
            && record.text("reason") == "address_not_allowed"
    })
    .await;
    // UDP and everything else has no way out at all.
    let probe = format!(
        "import socket\ns=socket.socket(socket.AF_INET{six},socket.SOCK_DGRAM)\ns.settimeout(5)\ns.connect(('{at}',443))\n\
         s.send(b'x')\ntry:\n s.recv(9)\n print('answered')\nexcept ConnectionRefusedError:\n print('refused')\n",
        six = if at.contains(':') { "6" } else { "" }
    );
    let said = machine
        .run("python3")
        .args(["-c", &probe])
        .run()
        .await
        .succeeded();
    assert_eq!(said, "refused\n");
}

#[test]
fn redirected() {
    inside("redirected", async {
        let (machine, stranger) = (
            Machine::behind_us("sbx", 1).await,
            Machine::behind_us("other", 2).await,
        );
        load("redirect", &["sbx0", "other0"]).await;
        let world = world("redirect").await;
        a_captured_network(&world, &machine, NOWHERE, "10.77.1.2").await;
        a_captured_network(&world, &machine, NOWHERE6, "fd77:1::2").await;
        // The listener itself is nobody's target, and what is not captured cannot be reached.
        let reached = machine
            .run("curl")
            .args(["-sS", "--max-time", "3", "http://10.77.1.1:15001/"])
            .run()
            .await;
        assert_ne!(reached.code, Some(0));
        let neighbour = machine
            .run("curl")
            .args(["-sS", "--max-time", "3", "http://10.77.2.2:1/"])
            .run()
            .await;
        assert!(
            neighbour.text().contains("\"address_not_allowed\""),
            "{}",
            neighbour.text()
        );
        // Whom nobody has declared reaches nothing.
        let plain = world.plain();
        let denied = curl(&stranger, &world, &plain, NOWHERE)
            .arg(format!("http://{plain}/echo"))
            .run()
            .await;
        assert!(
            denied.text().contains("\"source_unknown\""),
            "{}",
            denied.text()
        );
        // A source that is not where it came from is no source.
        stranger.sh("ip addr add 10.77.1.2/32 dev lo").await;
        let spoofed = curl(&stranger, &world, &plain, NOWHERE)
            .args(["--interface", "10.77.1.2", "--connect-timeout", "2"])
            .arg(format!("http://{plain}/echo"))
            .run()
            .await;
        assert_eq!(spoofed.code, Some(28), "{}", spoofed.stderr);
    });
}

#[test]
fn by_tproxy() {
    inside("by_tproxy", async {
        let machine = Machine::behind_us("sbx", 1).await;
        load("tproxy", &["sbx0"]).await;
        for family in ["", "-6 "] {
            sh(&format!(
                "ip {family}rule add fwmark 0x51 lookup 81 && ip {family}route add local default dev lo table 81"
            ))
            .await;
        }
        let world = world("tproxy").await;
        a_captured_network(&world, &machine, NOWHERE, "10.77.1.2").await;
        a_captured_network(&world, &machine, NOWHERE6, "fd77:1::2").await;
        let before = world.gateway.records().len();
        let reached = machine
            .run("curl")
            .args(["-sS", "--max-time", "2", "http://10.77.1.1:15001/"])
            .run()
            .await;
        assert_ne!(reached.code, Some(0));
        // A record of before may come late.
        let mut records = world.gateway.records().split_off(before);
        records.retain(|record| !record.text("target").starts_with("evil.test"));
        assert!(
            records.is_empty(),
            "dropped before it came here: {records:?}"
        );
    });
}

/// Bytes that name nobody are for the address they were sent to; it takes a rule that says so.
#[test]
fn protocols_without_names() {
    inside("protocols_without_names", async {
        let machine = Machine::behind_us("sbx", 1).await;
        load("redirect", &["sbx0"]).await;
        // An address of ours that the machine may reach by a rule, and a server that speaks first.
        sh("ip addr add 198.51.100.9/32 dev lo").await;
        let server = tokio::net::TcpListener::bind("198.51.100.9:0")
            .await
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let serving = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            for _ in 0..2 {
                let (mut stream, _) = server.accept().await.unwrap();
                stream.write_all(b"220 hello\r\n").await.unwrap();
                let mut line = [0; 6];
                stream.read_exact(&mut line).await.unwrap();
                stream.write_all(&line).await.unwrap();
            }
        };
        let rule = format!("198.51.100.9:{port}");
        let egress = json!({"allowedHosts": [rule]});
        let body = json!({"egress": egress, "sources": ["10.77.1.2"]}).to_string();
        let mut settings = Settings {
            listeners: "  - {kind: transparent, address: \"0.0.0.0:15001\", identify: source}\n"
                .to_owned(),
            ..Settings::default()
        };
        settings.runtime = settings.runtime.replace(
            "ceiling: {addresses: [\"127.0.0.0/8\"",
            "ceiling: {addresses: [\"198.51.100.0/24\", \"127.0.0.0/8\"",
        );
        let gateway = e2e::Gateway::start(&settings).await;
        let reply = gateway
            .admin("POST", "/runtime/providers/test/sessions", &body)
            .await;
        assert_eq!(reply.status(), 201, "{}", reply.text());
        // One client that waits for the server, and one that speaks at once.
        let client = |first: &str| {
            format!(
                "import socket\ns=socket.create_connection(('198.51.100.9',{port}),10)\n\
                 {first}assert s.recv(11)==b'220 hello\\r\\n'\ns.send(b'{rest}')\nprint(s.recv(9))\n",
                rest = if first.is_empty() {
                    "EHLO\\r\\n"
                } else {
                    "cdef"
                }
            )
        };
        let clients = async {
            for first in ["", "s.send(b'\\x00\\x01')\n"] {
                let said = machine
                    .run("python3")
                    .args(["-c", &client(first)])
                    .run()
                    .await
                    .succeeded();
                assert!(said.starts_with("b'"), "{said}");
            }
        };
        tokio::join!(serving, clients);
        let record = gateway.record_of(&rule).await;
        assert_eq!(record.text("front"), "transparent");
        // Another port of it has no rule: a reset.
        let said = machine
            .run("python3")
            .args(["-c", "import socket\ns=socket.create_connection(('198.51.100.9',9),10)\ns.send(b'\\0')\ntry:\n print(s.recv(9))\nexcept ConnectionResetError:\n print('reset')\n"])
            .run()
            .await
            .succeeded();
        assert_eq!(said, "reset\n");
    });
}

fn sni() -> Settings {
    Settings {
        listeners: "  - {kind: sni, address: \"127.0.0.1:0\", targetPort: 4433, identify: source, namespaces: [default, other]}\n".to_owned(),
        limits: "  firstBytesTimeout: 1s\n".to_owned(),
        ..Settings::default()
    }
}

/// Whose a connection is must be certain: nobody's and several sessions' are refused, each for its own reason.
#[tokio::test]
async fn whose_it_is_must_be_certain() {
    let world = World::with(sni()).await;
    let listener = world.gateway.listener("sni").await;
    let ask = async |reason: &str| {
        let mut wire = Wire::dial(listener).await;
        wire.send("GET / HTTP/1.1\r\nHost: plain.allowed.test\r\n\r\n")
            .await;
        let reply = wire.reply().await;
        assert_eq!(
            (reply.status(), reply.json()["reason"].as_str()),
            (403, Some(reason)),
            "{}",
            reply.text()
        );
        let own = wire.local().to_string();
        let record = record(&world, "sni", |record| record.text("downstream") == own).await;
        assert_eq!(record.text("reason"), reason);
    };
    ask("source_unknown").await;
    session(&world, &[], &[]).await;
    ask("source_unknown").await;
    let one = session(&world, &[], &["127.0.0.0/8"]).await;
    ask("host_not_allowed").await;
    let body = json!({"sources": ["127.0.0.1"], "namespace": "hidden"}).to_string();
    let path = "/runtime/providers/test/sessions";
    assert_eq!(world.gateway.admin("POST", path, &body).await.status(), 201);
    ask("host_not_allowed").await;
    let two = session(&world, &[], &["127.0.0.1"]).await;
    ask("source_ambiguous").await;
    for (id, reason) in [(one, "host_not_allowed"), (two, "source_unknown")] {
        let reply = world
            .gateway
            .admin("POST", &format!("{path}/{id}:stop"), "{}")
            .await;
        assert_eq!(reply.status(), 200, "{}", reply.text());
        ask(reason).await;
    }
}

/// What holds when the first bytes come decides, whatever held when the connection was accepted.
#[tokio::test]
async fn a_connection_outlives_no_session() {
    let world = World::with(Settings {
        limits: "  firstBytesTimeout: 20s\n".to_owned(),
        ..sni()
    })
    .await;
    let listener = world.gateway.listener("sni").await;
    let id = session(&world, &["late.test:4433"], &["127.0.0.0/8"]).await;
    let mut wire = Wire::dial(listener).await;
    let own = wire.local();
    until("the gateway's end of it", || {
        world.gateway.accepted(own).then_some(())
    })
    .await;
    let path = format!("/runtime/providers/test/sessions/{id}:stop");
    assert_eq!(world.gateway.admin("POST", &path, "{}").await.status(), 200);
    let name = "late.test".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(world.ca.client(&[]), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    wire.send(hello).await;
    let own = own.to_string();
    wire.rest().await;
    let record = record(&world, "sni", |record| record.text("downstream") == own).await;
    assert_eq!(record.text("outcome"), "refused", "{record:?}");
    assert_eq!(world.dns.queries_for("late.test"), 0);
}

/// A name that resolves to us: passed on by SNI, or by Host, to the port the operator says.
#[tokio::test]
async fn by_the_name_alone() {
    let world = World::start().await;
    let port = world.https.port();
    let settings = Settings {
        listeners: format!(
            "  - {{kind: sni, address: \"127.0.0.1:0\", targetPort: {port}, identify: source}}\n"
        ),
        dns: Some(world.dns.address),
        limits: "  firstBytesTimeout: 1s\n".to_owned(),
        ..Settings::default()
    };
    let gateway = e2e::Gateway::start(&settings).await;
    let listener = gateway.listener("sni").await;
    let body =
        json!({"egress": {"allowedHosts": [world.api()]}, "sources": ["127.0.0.1"]}).to_string();
    let path = "/runtime/providers/test/sessions";
    assert_eq!(gateway.admin("POST", path, &body).await.status(), 201);
    let mut tls = Wire::dial(listener)
        .await
        .tls(world.ca.client(&[]), "api.allowed.test")
        .await;
    tls.send("GET /echo HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n")
        .await;
    assert_eq!(tls.reply().await.status(), 200);
    let alert = vec![21, 3, 3, 0, 2, 2, 49];
    // A hello without a name leads nowhere; neither do bytes that are none, nor silence; nor what its end cuts short, which is called what
    // it is.
    let (told, reset) = ((alert, End::Fin), (Vec::new(), End::Reset));
    let refused = [
        (
            &b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..],
            false,
            &told,
            "tls_malformed",
        ),
        (b"SSH-2.0-x\r\n", false, &reset, "tls_required"),
        (b"", false, &reset, "first_bytes_timeout"),
        (b"\x16\x03", false, &told, "first_bytes_timeout"),
        (b"\x16\x03", true, &told, "tls_malformed"),
        (b"x", true, &reset, "tls_required"),
        (b"GET / HTTP/1.1", true, &reset, "malformed_request"),
    ];
    for (sent, ends, end, reason) in refused {
        let mut wire = Wire::dial(listener).await;
        wire.send(sent).await;
        if ends {
            wire.finish().await;
        }
        assert_eq!(&wire.rest().await, end, "{reason}");
        let own = wire.local().to_string();
        let record = gateway
            .record(reason, |record| record.text("downstream") == own)
            .await;
        assert_eq!(record.text("reason"), reason, "{record:?}");
    }
    // Host may not name another port, nor absolute-form another host.
    for head in [
        "GET / HTTP/1.1\r\nHost: api.allowed.test:80\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET http://evil.test/ HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n".to_owned(),
        "CONNECT api.allowed.test:443 HTTP/1.1\r\nHost: api.allowed.test\r\n\r\n".to_owned(),
    ] {
        let mut wire = Wire::dial(listener).await;
        wire.send(&head).await;
        assert_eq!(wire.reply().await.status(), 400, "{head}");
        let own = wire.local().to_string();
        let record = gateway
            .record(&head, |record| record.text("downstream") == own)
            .await;
        assert_eq!(record.text("front"), "sni", "{record:?}");
        assert_eq!(record.0["session"]["provider"], "test", "{record:?}");
    }
}
