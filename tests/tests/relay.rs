//! Host services through `sluicegate-relay`: bytes, ends and faults of each stream.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::program::binary;
use e2e::raw::{End, drain, unix_echo};
use e2e::relay::TRANSPORTS;
use e2e::tasks::{PATIENCE, timed};
use e2e::{
    Ask, Gateway, Program, RawOrigin, RelayClient, Session, Tasks, Wire, World, until, within,
};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};

/// A raw service `db` and a relay client listening for it on TCP.
struct Relayed {
    world: World,
    service: RawOrigin,
    session: Session,
    client: RelayClient,
    entry: SocketAddr,
}

impl Relayed {
    async fn start() -> Self {
        Self::over("auto").await
    }

    async fn over(transport: &str) -> Self {
        let world = World::start().await;
        let service = RawOrigin::start().await;
        let url = format!("db=tcp://{}", service.address);
        let session = world
            .session_for(Ask {
                services: &[&url],
                ..Ask::default()
            })
            .await;
        let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp("db")]).await;
        Self {
            world,
            service,
            session,
            entry: client.entry("db"),
            client,
        }
    }

    /// A connection through the relay, both ends, with one byte already across.
    async fn pair(&self) -> (Wire, TcpStream) {
        let mut near = Wire::dial(self.entry).await;
        near.send("!").await;
        let mut far = self.service.accept().await;
        let mut byte = [0];
        within("the first byte", far.read_exact(&mut byte))
            .await
            .unwrap();
        (near, far)
    }

    async fn record(&self) -> e2e::Record {
        let gateway = &self.world.gateway;
        gateway
            .record("a stream's record", |record| record.text("service") == "db")
            .await
    }
}

#[tokio::test]
async fn a_unix_service_answers_on_a_unix_socket() {
    let world = World::start().await;
    let path = world.root().join("service.sock");
    let tasks = Tasks::default();
    tasks.spawn(unix_echo(UnixListener::bind(&path).unwrap()));
    let url = format!("echo=unix://{}", path.display());
    let session = world
        .session_for(Ask {
            services: &[&url],
            ..Ask::default()
        })
        .await;
    let _client = RelayClient::up(&session, &[RelayClient::unix(&session, "echo")]).await;
    let stream = UnixStream::connect(RelayClient::socket(&session, "echo"))
        .await
        .unwrap();
    let mut wire = Wire::over(stream);
    wire.send("there and back").await;
    wire.finish().await;
    assert_eq!(wire.rest().await, (b"there and back".to_vec(), End::Fin));
    let record = world
        .gateway
        .record("a stream", |record| record.text("service") == "echo")
        .await;
    assert_eq!(
        (record.text("kind"), record.text("outcome")),
        ("stream", "completed")
    );
    assert_eq!(
        (record.number("bytesUp"), record.number("bytesDown")),
        (Some(14), Some(14))
    );
    assert_eq!(record.0["session"]["id"], session.json["id"]);
}

#[tokio::test]
async fn a_unix_listener_is_its_owners_alone() {
    let world = World::start().await;
    let session = world
        .session_for(Ask {
            services: &["db=tcp://127.0.0.1:9"],
            ..Ask::default()
        })
        .await;
    let _client = RelayClient::up(&session, &[RelayClient::unix(&session, "db")]).await;
    let metadata = std::fs::metadata(RelayClient::socket(&session, "db")).unwrap();
    assert_eq!(
        metadata.permissions().mode() & 0o077,
        0,
        "others may connect"
    );
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for transport in TRANSPORTS {
        let relayed = Relayed::over(transport).await;
        let (mut near, mut far) = relayed.pair().await;
        near.finish().await;
        assert_eq!(drain(&mut far).await, (Vec::new(), End::Fin));
        far.write_all(b"still here").await.unwrap();
        drop(far);
        assert_eq!(near.rest().await, (b"still here".to_vec(), End::Fin));
        let (mut near, mut far) = relayed.pair().await;
        far.shutdown().await.unwrap();
        assert_eq!(near.rest().await, (Vec::new(), End::Fin));
        near.send("and here").await;
        near.finish().await;
        assert_eq!(drain(&mut far).await, (b"and here".to_vec(), End::Fin));
    }
}

#[tokio::test]
async fn a_reset_stays_a_reset_in_both_directions() {
    for transport in TRANSPORTS {
        let relayed = Relayed::over(transport).await;
        let (near, mut far) = relayed.pair().await;
        near.abort();
        assert_eq!(drain(&mut far).await.1, End::Reset);
        assert_eq!(relayed.record().await.text("outcome"), "reset");
        let (mut near, far) = relayed.pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        assert_eq!(near.rest().await.1, End::Reset);
    }
}

#[tokio::test]
async fn a_frozen_reader_holds_its_own_writer_back_and_nobody_else() {
    for transport in TRANSPORTS {
        let relayed = Relayed::over(transport).await;
        let (mut near, far) = relayed.pair().await;
        let block = vec![7; 1024 * 1024];
        let mut sent = 0;
        // Sends until nothing more is taken: what fits between is bounded, or this never ends.
        while tokio::time::timeout(Duration::from_secs(1), near.stream.write_all(&block))
            .await
            .is_ok()
        {
            sent += 1;
            assert!(
                sent < 128,
                "128 MiB were taken for a reader that reads nothing"
            );
        }
        let (mut other, mut other_far) = relayed.pair().await;
        other.send("unhindered").await;
        let mut read = [0; 10];
        within("the neighbour's bytes", other_far.read_exact(&mut read))
            .await
            .unwrap();
        drop(far);
    }
}

#[tokio::test]
async fn a_service_that_is_down_fails_its_stream_and_not_the_client() {
    let world = World::start().await;
    let port = e2e::tasks::free_port().await;
    let url = format!("db=tcp://127.0.0.1:{port}");
    let session = world
        .session_for(Ask {
            services: &[&url],
            ..Ask::default()
        })
        .await;
    let mut client = RelayClient::up(&session, &[RelayClient::tcp("db")]).await;
    let entry = client.entry("db");
    Wire::refused(entry).await;
    let record = world
        .gateway
        .record("a failed stream", |r| r.text("service") == "db")
        .await;
    assert_eq!(
        (record.text("outcome"), record.text("reason")),
        ("failed", "service_unavailable")
    );
    assert_eq!(client.process.ended(), None);
    let service = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    let mut wire = Wire::dial(entry).await;
    wire.send("now").await;
    let (mut far, _) = within("the service's visitor", service.accept())
        .await
        .unwrap();
    let mut read = [0; 3];
    within("bytes", far.read_exact(&mut read)).await.unwrap();
}

#[tokio::test]
async fn a_service_outside_the_grant_is_refused() {
    let relayed = Relayed::start().await;
    let client = RelayClient::up(&relayed.session, &[RelayClient::tcp("secrets")]).await;
    Wire::refused(client.entry("secrets")).await;
    let gateway = &relayed.world.gateway;
    let record = gateway
        .record("a refusal", |r| r.text("reason") == "service_not_allowed")
        .await;
    assert_eq!(record.text("outcome"), "refused");
    relayed.service.stays_alone().await;
}

#[tokio::test]
async fn revoking_cuts_streams_within_a_second() {
    for transport in TRANSPORTS {
        let mut relayed = Relayed::over(transport).await;
        let (mut near, mut far) = relayed.pair().await;
        relayed.session.revoke(&relayed.world.gateway).await;
        assert!(near.cut().await < Duration::from_secs(1));
        drain(&mut far).await;
        let record = relayed.record().await;
        assert_eq!(
            (record.text("outcome"), record.text("reason")),
            ("cut", "session_revoked")
        );
        Wire::refused(relayed.entry).await;
        relayed.service.stays_alone().await;
        assert_eq!(
            relayed.client.process.ended(),
            None,
            "the client keeps trying"
        );
    }
}

#[tokio::test]
async fn the_client_comes_back_after_the_gateway_does() {
    let mut relayed = Relayed::start().await;
    let (mut near, _far) = relayed.pair().await;
    restart(&mut relayed.world.gateway).await;
    near.cut().await;
    let deadline = tokio::time::Instant::now() + e2e::tasks::PATIENCE;
    loop {
        let mut again = Wire::dial(relayed.entry).await;
        // It may be cut before it has said anything.
        let _ = again.stream.write_all(b"again").await;
        let accepted = tokio::time::timeout(Duration::from_secs(1), relayed.service.accept()).await;
        if let Ok(mut far) = accepted {
            let mut read = [0; 5];
            // It may be one that was given up meanwhile.
            if within("bytes", far.read_exact(&mut read)).await.is_ok() {
                break;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "it never came back");
    }
    assert_eq!(relayed.client.process.ended(), None);
}

/// Opens one after another through a SIGKILL and a restart: only what was open is lost.
#[tokio::test]
async fn a_gateway_that_is_killed_loses_only_what_is_open() {
    for transport in ["auto", "quic", "h2", "h1"] {
        let world = World::start().await;
        let path = world.root().join("service.sock");
        let tasks = Tasks::default();
        tasks.spawn(unix_echo(UnixListener::bind(&path).unwrap()));
        let url = format!("echo=unix://{}", path.display());
        let session = world
            .session_for(Ask {
                services: &[&url],
                ..Ask::default()
            })
            .await;
        let client = RelayClient::up_over(&session, transport, &[RelayClient::tcp("echo")]).await;
        let connected = client.event("connected").await;
        assert!(connected["why"].is_string(), "{connected}");
        let mut world = world;
        let mut open = Wire::dial(client.entry("echo")).await;
        open.send("!").await;
        let mut byte = [0];
        within("an echo", open.stream.read_exact(&mut byte))
            .await
            .unwrap();
        world.gateway.process.signal(rustix::process::Signal::KILL);
        until("the gateway's end", || world.gateway.process.ended()).await;
        let entry = client.entry("echo");
        let opens = async {
            for number in 0..50 {
                let mut wire = Wire::dial(entry).await;
                wire.send(format!("{number}")).await;
                wire.finish().await;
                let heard = wire.rest().await;
                let expected = (number.to_string().into_bytes(), End::Fin);
                assert_eq!(heard, expected, "{transport}: open {number}");
            }
        };
        tokio::join!(opens, world.gateway.restart());
        open.cut().await;
    }
}

/// Nobody is left to say anything: the kernel closes what a process had, and that must not look like an end.
#[tokio::test]
async fn whoever_is_killed_ends_nothing_in_order() {
    for transport in TRANSPORTS {
        let relayed = Relayed::over(transport).await;
        let (_near, mut far) = relayed.pair().await;
        relayed.world.gateway.process.signal(Signal::KILL);
        let heard = drain(&mut far).await;
        assert_eq!(heard, (Vec::new(), End::Reset), "{transport}: the service");

        let relayed = Relayed::over(transport).await;
        let (mut near, _far) = relayed.pair().await;
        relayed.client.process.signal(Signal::KILL);
        let heard = near.rest().await;
        assert_eq!(heard, (Vec::new(), End::Reset), "{transport}: the program");
    }
}

/// Says something until there is no room, and then until nobody can make any.
async fn until_cut(stream: &mut TcpStream) -> ErrorKind {
    loop {
        if let Err(error) = stream.write_all(&[7; 16 * 1024]).await {
            return error.kind();
        }
    }
}

/// What services see of a client that is killed, and by when at the latest. Over TCP its kernel tells; of UDP nobody does, and the
/// gateway gives the connection up after 15 s without a sign of life.
#[tokio::test]
async fn services_of_a_killed_client_see_resets_and_no_end() {
    let killed = async |transport: &str, silence: Duration| {
        let relayed = Relayed::over(transport).await;
        let (_asking, mut asked) = relayed.pair().await;
        let (mut ending, mut half) = relayed.pair().await;
        ending.finish().await;
        let end = within("the program's end", half.read(&mut [0; 8])).await;
        assert_eq!(end.unwrap(), 0, "{transport}");
        let (_stuck, mut full) = relayed.pair().await;
        relayed.client.process.signal(Signal::KILL);
        let mut byte = [0];
        let seen = async {
            tokio::join!(
                asked.read(&mut byte),
                until_cut(&mut half),
                until_cut(&mut full)
            )
        };
        // The rest is for a machine that is busy.
        let seen = tokio::time::timeout(silence + 2 * PATIENCE, seen).await;
        let (asked, half, full) = seen.unwrap_or_else(|_| panic!("{transport}: not seen"));
        let asked = asked.expect_err("no end").kind();
        assert_eq!(asked, ErrorKind::ConnectionReset, "{transport}");
        for cut in [half, full] {
            // Which of them is a question of whether it was writing at that moment.
            let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(resets.contains(&cut), "{transport}: {cut}");
        }
        let record = relayed.record().await;
        assert_eq!(record.text("outcome"), "reset", "{transport}");
    };
    let (told, silent) = (Duration::ZERO, Duration::from_secs(15));
    tokio::join!(
        killed("quic", silent),
        killed("h2", told),
        killed("h1", told)
    );
}

/// What is cut when the time is over is reset at both ends, and at once.
#[tokio::test]
async fn a_client_that_is_stopped_tells_of_what_it_cuts() {
    let stopped = async |transport: &str| {
        let mut relayed = Relayed::over(transport).await;
        let (mut near, mut far) = relayed.pair().await;
        relayed.client.process.signal(Signal::TERM);
        let ((_, end), took) = timed(drain(&mut far)).await;
        assert_eq!(end, End::Reset, "{transport}");
        assert!(took < Duration::from_secs(10), "{transport}: {took:?}");
        assert_eq!(near.rest().await.1, End::Reset, "{transport}");
        assert_eq!(relayed.client.process.wait("the client's end").await, 0);
    };
    tokio::join!(stopped("quic"), stopped("h2"), stopped("h1"));
}

#[tokio::test]
async fn a_tcp_listener_is_its_owners_alone_or_everybodys() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can run a program as another user");
        return;
    }
    let relayed = Relayed::start().await;
    let another = async |entry: SocketAddr| {
        let port = entry.port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; cat <&3");
        let program = Program::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .args(["bash", "-c", &script]);
        program.cwd(std::path::Path::new("/")).run().await
    };
    let ended = another(relayed.entry).await;
    assert_ne!(ended.code, Some(0), "{}", ended.stderr);
    relayed.service.stays_alone().await;
    let told = || relayed.client.process.said().contains("another user");
    until("what the client says of it", || told().then_some(())).await;
    let _own = relayed.pair().await;

    let listen = [RelayClient::tcp("db")];
    let client = RelayClient::up_with(&relayed.session, &["--any-uid"], &listen).await;
    let warning = client.event("warning").await;
    assert!(warning["reason"].as_str().unwrap().contains("--any-uid"));
    let serving = async {
        let mut far = relayed.service.accept().await;
        let mut read = [0; 6];
        within("bytes", far.read_exact(&mut read)).await.unwrap();
        read
    };
    let (ended, heard) = tokio::join!(another(client.entry("db")), serving);
    assert_eq!((ended.code, &heard), (Some(0), b"hello\n"));
}

#[tokio::test]
async fn a_token_that_is_refused_is_said_and_is_not_an_exit() {
    for transport in TRANSPORTS {
        let mut relayed = Relayed::over(transport).await;
        relayed.session.revoke(&relayed.world.gateway).await;
        let listen = [RelayClient::tcp("db")];
        let client = RelayClient::up_over(&relayed.session, transport, &listen).await;
        let said = client.event("unauthorized").await;
        let reason = said["reason"].as_str().unwrap();
        assert!(reason.contains("credential_invalid"), "{said}");
        assert_eq!(relayed.client.process.ended(), None);
    }
}

/// SIGKILL, then the same configuration and state once more.
async fn restart(gateway: &mut Gateway) {
    gateway.process.signal(rustix::process::Signal::KILL);
    until("the gateway's end", || gateway.process.ended()).await;
    gateway.restart().await;
}

#[tokio::test]
async fn the_relay_client_ends_with_the_codes_that_are_documented() {
    let mut relayed = Relayed::start().await;
    let session = &relayed.session;
    let run = async |arguments: &[&str]| {
        let program = session.program(Program::new(binary("sluicegate-relay")));
        program.arg("up").args(arguments).run().await
    };
    let file = session.directory().join("no-socket");
    std::fs::write(&file, "somebody's").unwrap();
    let path = |name: &str| session.directory().join(name).display().to_string();
    std::fs::write(path("words"), "abc\ndef\n").unwrap();
    let key = Program::new(binary("sluicegate-relay"));
    let key = key.args(["key", "--key", &path("exposed.pem")]);
    key.run().await.succeeded();
    let everybodys = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("exposed.pem"), everybodys).unwrap();
    let taken = relayed.entry;
    let cases = [
        (vec!["--no-such-flag".to_owned()], 2, "no-such-flag"),
        (
            vec!["--listen".to_owned(), "db=udp://127.0.0.1:1".to_owned()],
            2,
            "udp",
        ),
        (
            vec!["--token-file".to_owned(), "/nonexistent/token".to_owned()],
            2,
            "/nonexistent/token",
        ),
        (
            vec!["--token-file".to_owned(), path("words")],
            2,
            "holds no token",
        ),
        (
            vec!["--key".to_owned(), path("exposed.pem")],
            2,
            "exposed.pem",
        ),
        (vec!["--ca".to_owned(), path("words")], 2, "words"),
        (
            vec!["--listen".to_owned(), format!("db=tcp://{taken}")],
            3,
            "in use",
        ),
        (
            vec![
                "--listen".to_owned(),
                format!("db=unix://{}", file.display()),
            ],
            3,
            "no-socket",
        ),
    ];
    for (arguments, code, says) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = run(&arguments).await;
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(says),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"somebody's",
        "left as it was"
    );
    // The directory of its own choice, which others may write to.
    let shared = session.directory().join("sluicegate");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = session.program(Program::new(binary("sluicegate-relay")));
    let program = program.arg("up").env("SLUICEGATE_SERVICES", "db");
    let program = program.env("XDG_RUNTIME_DIR", session.directory());
    let ended = program.run().await;
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("writable by others"),
        "{}",
        ended.stderr
    );
    for signal in [Signal::TERM, Signal::INT] {
        let mut client = RelayClient::up(session, &[RelayClient::tcp("db")]).await;
        client.process.signal(Signal::HUP);
        let asked = || client.process.said().contains("look for other tokens");
        until("a second look", || asked().then_some(())).await;
        assert_eq!(client.process.ended(), None, "SIGHUP is no end");
        client.process.signal(signal);
        assert_eq!(
            client.process.wait("the client's end").await,
            0,
            "{signal:?}"
        );
    }
    assert_eq!(relayed.client.process.ended(), None);
}
