//! gRPC by a real program at the relay client's listeners, to a service that may be called by some methods only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::gateway::LOOPBACK_PROVIDER;
use e2e::program::Running;
use e2e::relay::TRANSPORTS;
use e2e::{Ask, Program, Record, RelayClient, Session, Settings, World, servers, until};

/// A service of calls, a session that has it, and a relay client that listens for it.
struct Stage {
    world: World,
    session: Session,
    target: String,
    socket: String,
    _client: RelayClient,
    _server: servers::Server,
    _directory: tempfile::TempDir,
}

/// The program dials a port, or a unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dials {
    Tcp,
    Unix,
}

impl Stage {
    async fn new(transport: &str, dials: Dials, prefix: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("grpc.sock");
        let socket = socket.to_str().unwrap().to_owned();
        let server = servers::python("grpc_echo.py", &[&format!("unix:{socket}")]).await;
        let world = World::with(settings(&socket, prefix)).await;
        let session = world.session_for(Ask::default()).await;
        let listen = match dials {
            Dials::Tcp => RelayClient::tcp("echo"),
            Dials::Unix => RelayClient::unix(&session, "echo"),
        };
        let client = RelayClient::up_over(&session, transport, &[listen]).await;
        let target = match dials {
            Dials::Tcp => client.entry("echo").to_string(),
            Dials::Unix => format!("unix:{}", RelayClient::socket(&session, "echo").display()),
        };
        Self {
            world,
            session,
            target,
            socket,
            _client: client,
            _server: server,
            _directory: directory,
        }
    }

    fn program(&self, verb: &str) -> Program {
        Program::python("grpc_echo.py").args([verb, &self.target])
    }

    /// A call that is open, made by a program that ends well where the call is ended with this code and these details.
    async fn call(&self, code: &str, details: &str, more: &[&str]) -> Running {
        let program = self.program("cut").args(["--code", code]);
        let program = program.args(["--details", details]).args(more);
        let mut program = program.start(&self.world.root().join("cut.log"));
        until("the call is open", || {
            assert_eq!(program.ended(), None, "{}", program.said());
            program.said().contains("open").then_some(())
        })
        .await;
        program
    }

    /// The configuration file has another prefix, and is read again.
    async fn reload(&self, prefix: &str) {
        let gateway = &self.world.gateway;
        gateway.reconfigure(&Settings {
            dns: Some(self.world.dns.address),
            ..settings(&self.socket, prefix)
        });
        gateway.cli(&["reload"]).await.succeeded();
    }

    async fn record(&self, what: &str, wanted: impl Fn(&Record) -> bool) -> Record {
        self.world.gateway.record(what, wanted).await
    }
}

/// A provider whose sessions have the service at this socket, by methods of this prefix.
fn settings(socket: &str, prefix: &str) -> Settings {
    let service = format!("{{url: \"unix://{socket}\", grpc: {{methodPrefix: {prefix}}}}}");
    Settings {
        runtime: format!("{LOOPBACK_PROVIDER}      services: {{echo: {service}}}\n"),
        ..Settings::default()
    }
}

/// It ended as it was to.
async fn is_well(mut program: Running) {
    let code = program.wait("the end of the call").await;
    assert_eq!(code, 0, "{}", program.said());
}

/// Unary calls, streams both ways, trailers, deadlines and cancellations.
#[tokio::test]
async fn everything_of_grpc_passes_within_the_prefix() {
    for transport in TRANSPORTS {
        let dials = if transport == "h1" {
            Dials::Tcp
        } else {
            Dials::Unix
        };
        let stage = Stage::new(transport, dials, "/e2e.Echo").await;
        stage.program("use").run().await.succeeded();
        let call = stage.record("a call", |r| {
            r.text("front") == "grpc" && r.text("path") == "/e2e.Echo/Bidi"
        });
        let call = call.await;
        assert_eq!(
            (
                call.text("kind"),
                call.text("outcome"),
                call.text("service")
            ),
            ("request", "completed", "echo"),
            "{call:?}"
        );
        assert_eq!(call.number("grpcStatus"), Some(0), "{call:?}");
        assert_eq!(call.0["session"]["id"], stage.session.json["id"]);
        for way in ["bytesUp", "bytesDown"] {
            assert!(call.number(way) > Some(0), "{call:?}");
        }
        let stream = stage.record("the stream", |r| {
            r.text("kind") == "stream" && r.text("service") == "echo"
        });
        let stream = stream.await;
        assert_ne!(stream.text("closedBy"), "gateway", "{stream:?}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_in_words_and_break_nothing() {
    for transport in TRANSPORTS {
        let stage = Stage::new(transport, Dials::Tcp, "/e2e.Echo/Unary").await;
        for method in [
            "/e2e.Echo/Seen",
            "/e2e.Echo/UnaryButLonger",
            "/e2e.Other/Unary",
        ] {
            let run = stage
                .program("refused")
                .args(["--method", method, "--echo", "Unary"]);
            let run = run.args(["--code", "PERMISSION_DENIED"]);
            let run = run.args(["--details", "host-service-relay-method-not-allowed"]);
            run.run().await.succeeded();
        }
        let refused = stage.record("a refusal", |r| {
            r.text("reason") == "service_method_not_allowed"
        });
        let refused = refused.await;
        assert_eq!(
            (refused.text("kind"), refused.text("outcome")),
            ("request", "refused"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn revocation_ends_a_call_with_a_status() {
    for transport in TRANSPORTS {
        let stage = Stage::new(transport, Dials::Unix, "/e2e.Echo").await;
        let details = "invalid-host-service-relay-session";
        let program = stage.call("UNAUTHENTICATED", details, &[]).await;
        stage.session.revoke(&stage.world.gateway).await;
        is_well(program).await;
        let cut = stage.record("the stream's cut", |r| {
            r.text("kind") == "stream" && r.text("reason") == "session_revoked"
        });
        assert_eq!(cut.await.text("outcome"), "cut");
    }
}

#[tokio::test]
async fn a_reload_ends_the_calls_that_it_forbids_and_the_stream_goes_on() {
    for transport in TRANSPORTS {
        let stage = Stage::new(transport, Dials::Unix, "/e2e.Echo").await;
        let details = "host-service-relay-method-not-allowed";
        let more = ["--echo", "Unary"];
        let program = stage.call("PERMISSION_DENIED", details, &more).await;
        stage.reload("/e2e.Echo/Unary").await;
        is_well(program).await;
        let of_call = |r: &Record| r.text("path") == "/e2e.Echo/Bidi";
        let call = stage.record("the call", of_call).await;
        assert_eq!(
            (call.text("outcome"), call.text("reason")),
            ("cut", "policy_changed"),
            "{call:?}"
        );
        let told = "its service would be refused now: service_method_not_allowed";
        assert_eq!(call.text("detail"), told, "{call:?}");
        // It ends with its program, which has made another call on it.
        let of_stream = |r: &Record| r.text("kind") == "stream" && r.text("service") == "echo";
        let stream = stage.record("the stream", of_stream).await;
        assert_ne!(stream.text("closedBy"), "gateway", "{stream:?}");
    }
}
