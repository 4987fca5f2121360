//! The addresses of the gateway's host: those that it has, those that it gets while the gateway runs, and those that only a route
//! brings to it. Each test runs in a network of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::Read;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;

use e2e::apart::{inside, sh};
use e2e::tasks::until_told;
use e2e::{Answer, Ask, Ca, Dns, Gateway, RawOrigin, RelayClient, Session, Settings, Wire, World};

/// A port that the gateway listens on at every address.
const OWN: u16 = 15001;

/// A gateway at every address, whose operator would except these.
async fn world() -> World {
    let everywhere = |any: &str| {
        format!("  - {{kind: transparent, address: \"{any}:{OWN}\", identify: source}}\n")
    };
    let mut settings = Settings {
        listeners: everywhere("0.0.0.0") + &everywhere("[::]"),
        ..Settings::default()
    };
    let ceiling = "ceiling: {addresses: [\"127.0.0.0/8\"";
    assert!(settings.runtime.contains(ceiling));
    let wider = "ceiling: {addresses: [\"198.20.0.0/16\", \"127.0.0.0/8\"";
    settings.runtime = settings.runtime.replace(ceiling, wider);
    World::with(settings).await
}

/// `NAME.wild.test`, which leads to this address.
fn named(world: &World, name: &str, address: &str) -> String {
    let name = format!("{name}.wild.test");
    let address: IpAddr = address.parse().unwrap();
    world.dns.set(&name, Answer::Addresses(vec![address]));
    name
}

/// Why a tunnel to there is refused; empty where it is open.
async fn reason(session: &Session, target: &str) -> String {
    let (head, mut wire) = session.connect(target).await;
    if head.status == 200 {
        return String::new();
    }
    let length = head.value("content-length").parse().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&wire.take(length).await).unwrap();
    body["reason"].as_str().unwrap().to_owned()
}

/// A service of the host at every address. Nobody takes its connections before a test is over.
fn service() -> (TcpListener, u16) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Whatever connected to it has gone, and said nothing.
fn heard_nothing(service: &TcpListener) {
    while let Ok((mut stream, _)) = service.accept() {
        stream.set_nonblocking(false).unwrap();
        let patience = Duration::from_secs(60);
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"", "a byte came through");
    }
}

async fn refused_everywhere(session: &Session, name: &str, service: u16) {
    for (port, expected) in [(service, "address_not_allowed"), (OWN, "own_listener")] {
        let target = format!("{name}:{port}");
        assert_eq!(reason(session, &target).await, expected, "{target}");
        let reply = session.fetch(&target, "/").await;
        assert_eq!(reply.status(), 403, "{target}: {}", reply.text());
        assert_eq!(reply.json()["reason"], expected, "{target}");
    }
}

#[test]
fn an_address_of_the_host_needs_an_exception_whenever_it_came() {
    let name = "an_address_of_the_host_needs_an_exception_whenever_it_came";
    inside(name, async {
        sh("ip addr add 198.20.0.1/32 dev lo").await;
        let world = world().await;
        let (listener, port) = service();
        let allow = ["*.wild.test:*"];
        let ask = |more| Ask {
            allow: &allow,
            more,
            ..Ask::default()
        };
        let session = world.session_for(ask(&[])).await;
        let excepted = &["--allow-address=198.20.0.0/16"];
        let excepted = world.session_for(ask(excepted)).await;
        let from_the_start = named(&world, "known", "198.20.0.1");
        refused_everywhere(&session, &from_the_start, port).await;
        sh("ip addr add 198.20.0.77/32 dev lo
            ip -6 addr add 2600:1f00::77/128 dev lo nodad
            ip route add local 198.20.1.0/24 dev lo")
        .await;
        for (name, address) in [
            ("later", "198.20.0.77"),
            ("six", "2600:1f00::77"),
            ("routed", "198.20.1.9"),
        ] {
            let name = named(&world, name, address);
            refused_everywhere(&session, &name, port).await;
            // Once more, now that it is known.
            refused_everywhere(&session, &name, port).await;
        }
        heard_nothing(&listener);
        // An exception is one for all of them, and for no listener.
        for name in ["known", "later", "routed"] {
            let reason = async |port: u16| {
                let target = format!("{name}.wild.test:{port}");
                reason(&excepted, &target).await
            };
            assert_eq!(reason(port).await, "", "{name}");
            assert_eq!(reason(OWN).await, "own_listener", "{name}");
        }
    });
}

/// What is sent there is sent from another address, so that a connection does not show it either: the routes do.
#[test]
fn an_address_that_a_route_brings_needs_an_exception_whatever_it_is_sent_from() {
    let name = "an_address_that_a_route_brings_needs_an_exception_whatever_it_is_sent_from";
    inside(name, async {
        let world = world().await;
        let (listener, port) = service();
        let allow = ["*.wild.test:*"];
        let ask = |more| Ask {
            allow: &allow,
            more,
            ..Ask::default()
        };
        let session = world.session_for(ask(&[])).await;
        let excepted = &["--allow-address=198.20.0.0/16"];
        let excepted = world.session_for(ask(excepted)).await;
        sh("ip link add near0 type veth peer name far0
            ip addr add 198.20.5.1/24 dev near0
            ip link set near0 up
            ip link set far0 up
            ip -6 route add local 2600:1f01::/64 dev lo
            ip addr add 198.20.9.1/24 dev lo
            ip route add local 198.20.7.0/24 dev lo src 198.20.5.1")
        .await;
        for (name, address) in [
            ("six", "2600:1f01::9"),
            ("network", "198.20.9.77"),
            ("source", "198.20.7.9"),
        ] {
            let name = named(&world, name, address);
            refused_everywhere(&session, &name, port).await;
            // Once more, now that it is known.
            refused_everywhere(&session, &name, port).await;
        }
        // Where the host has an address of IPv6 it sends from that, and not from loopback.
        sh("ip -6 addr add 2600:1f02::5/64 dev near0 nodad").await;
        let name = named(&world, "sourced", "2600:1f01::a");
        refused_everywhere(&session, &name, port).await;
        // Who asks is told the same, before anybody has dialled it.
        let asked = serde_json::json!({
            "provider": "test",
            "session": session.id(),
            "target": format!("asked.wild.test:{OWN}"),
            "addresses": ["198.20.9.78"],
        });
        let asked = asked.to_string();
        let told = world.gateway.admin("POST", "/policy:explain", &asked).await;
        assert_eq!(told.json()["reason"], "own_listener", "{}", told.text());
        let dialled = listener.accept();
        assert!(dialled.is_err(), "{dialled:?}");
        for name in ["network", "source"] {
            let reason = async |port: u16| {
                let target = format!("{name}.wild.test:{port}");
                reason(&excepted, &target).await
            };
            assert_eq!(reason(port).await, "", "{name}");
            assert_eq!(reason(OWN).await, "own_listener", "{name}");
        }
    });
}

/// The second address of a network is reached from the first, so that a connection does not show whose it is.
#[test]
fn a_second_address_is_known_soon_and_forgotten_when_it_goes() {
    let name = "a_second_address_is_known_soon_and_forgotten_when_it_goes";
    inside(name, async {
        let world = world().await;
        let (_listener, port) = service();
        let session = world.session_for(Ask {
            allow: &["*.wild.test:*"],
            ..Ask::default()
        });
        let session = session.await;
        sh("ip link add near0 type veth peer name far0
            ip addr add 198.20.3.1/24 dev near0
            ip addr add 198.20.3.2/24 dev near0
            ip link set near0 up")
        .await;
        let target = format!("{}:{port}", named(&world, "second", "198.20.3.2"));
        let becomes = async |expected: &str| {
            let told = async || (reason(&session, &target).await == expected).then_some(());
            until_told(expected, told).await;
        };
        becomes("address_not_allowed").await;
        sh("ip addr del 198.20.3.2/24 dev near0 && ip route add unreachable 198.20.3.2/32").await;
        becomes("connect_unreachable").await;
    });
}

/// What a connection has shown is known by the next configuration too, to which that connection shows nothing.
#[test]
fn an_address_that_only_a_route_brings_is_known_across_a_reload() {
    let name = "an_address_that_only_a_route_brings_is_known_across_a_reload";
    inside(name, async {
        sh("ip route add local 198.20.1.0/24 dev lo").await;
        let (dns, ca) = (Dns::start().await, Ca::create());
        let hosts = |hosts: &str| Settings {
            more: format!(
                "dns: {{servers: [\"{}\"], hosts: {{{hosts}}}}}\n",
                dns.address
            ),
            ..Settings::default()
        };
        let gateway = Gateway::start(&hosts("routed.test: 198.20.1.9")).await;
        let origin = RawOrigin::at([198, 20, 1, 9]).await;
        let target = format!("routed.test:{}", origin.address.port());
        let ask = Ask {
            allow: &[&target],
            ..Ask::default()
        };
        let session = Session::create(&gateway, &ca, ask).await;
        let mut wire = session.tunnel(&target).await;
        wire.send("\0open").await;
        let mut far = Wire::over(origin.accept().await);
        far.through(b"open").await;
        // The answer was the exception.
        gateway.reconfigure(&hosts("other.test: 198.20.1.9"));
        gateway.cli(&["reload"]).await.succeeded();
        wire.cut().await;
        let record = gateway.record_of(&target).await;
        assert_eq!(record.text("reason"), "policy_changed", "{record:?}");
    });
}

/// A service may be any address of the host, but no listener of the gateway.
#[test]
fn a_host_service_is_no_listener_at_whatever_address() {
    let name = "a_host_service_is_no_listener_at_whatever_address";
    inside(name, async {
        let world = world().await;
        sh("ip addr add 198.20.0.77/32 dev lo
            ip route add local 198.20.1.0/24 dev lo
            ip addr add 198.20.9.1/24 dev lo")
        .await;
        let (later, routed, network) = (
            format!("later=tcp://198.20.0.77:{OWN}"),
            format!("routed=tcp://198.20.1.9:{OWN}"),
            format!("network=tcp://198.20.9.77:{OWN}"),
        );
        let session = world
            .session_for(Ask {
                services: &[&later, &routed, &network],
                ..Ask::default()
            })
            .await;
        let names = ["later", "routed", "network"];
        let client = RelayClient::up(&session, &names.map(RelayClient::tcp)).await;
        for name in names {
            Wire::refused(client.entry(name)).await;
            let of_service = |record: &e2e::Record| record.text("service") == name;
            let record = world.gateway.record("a refused stream", of_service).await;
            assert_eq!(record.text("reason"), "own_listener", "{record:?}");
        }
    });
}
