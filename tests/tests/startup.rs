//! Starting, and refusing to start with a reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;

use e2e::gateway::{Ports, serve};
use e2e::program::binary;
use e2e::{Program, RawOrigin, Settings, Wire, World};

/// Runs `serve` on configuration text until it exits by itself: its code and everything it said.
async fn refused_start(yaml: &str) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("sluicegate.yaml");
    std::fs::write(&config, yaml).unwrap();
    let mut process = serve(&config, directory.path());
    let code = process.wait("a refusal to start").await;
    (code, process.said())
}

/// What jemalloc is told at its build stands where cargo finds it only if it runs in this repository.
#[tokio::test]
async fn the_binaries_have_what_their_allocator_is_told() {
    let config = include_str!("../../.cargo/config.toml");
    let told = config.lines().find_map(|line| {
        let value = line.strip_prefix("JEMALLOC_SYS_WITH_MALLOC_CONF = ")?;
        Some(value.trim_matches('"'))
    });
    let told = told.expect("it is there");
    for name in ["sluicegate", "sluicegate-relay"] {
        let asked = Program::new(binary(name)).arg("--version");
        let asked = asked.env("_RJEM_MALLOC_CONF", "confirm_conf:true");
        let done = asked.run().await;
        for one in told.split(',') {
            let taken = format!("Set conf value: {one}\n");
            assert!(done.stderr.contains(&taken), "{name}: {}", done.stderr);
        }
    }
}

#[tokio::test]
async fn every_fault_of_a_configuration_is_told_at_once() {
    let yaml = "publicUrl: https://127.0.0.1:1\n\
                listenerz: []\n\
                listeners:\n\
                \x20 - {kind: plain, address: \"0.0.0.0:3128\"}\n\
                \x20 - {kind: publik, address: \"127.0.0.1:8443\"}\n\
                egress:\n\
                \x20 allowedHosts: [\"*.com\", \"ok.example.com\", \"*\"]\n\
                limits: {drainTimeout: soon}\n";
    let (code, said) = refused_start(yaml).await;
    assert_eq!(code, 2, "{said}");
    for position in ["2:1", "4:", "5:", "7:18", "7:45", "8:"] {
        assert!(said.contains(position), "no fault at {position}:\n{said}");
    }
    for text in ["listenerz", "listeners", "publik", "*.com", "soon"] {
        assert!(said.contains(text), "{text} is not named:\n{said}");
    }
}

#[tokio::test]
async fn a_configuration_that_is_not_yaml_or_not_there_is_exit_2() {
    let (code, said) = refused_start("listeners: [\n").await;
    assert_eq!(code, 2, "{said}");
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.yaml");
    let mut process = serve(&absent, directory.path());
    assert_eq!(process.wait("a refusal to start").await, 2);
    assert!(process.said().contains("absent.yaml"), "{}", process.said());
}

/// `serve` with a state directory of the test's choice, behind `prefix` (a shell that prepares it).
async fn start_with_state(state: &Path, prefix: Option<&str>) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free().await;
    let config = directory.path().join("sluicegate.yaml");
    let log = directory.path().join("access.jsonl");
    std::fs::write(&config, Settings::default().yaml(ports, &log)).unwrap();
    let program = match prefix {
        None => Program::new(binary("sluicegate")),
        Some(script) => Program::new("unshare")
            .args(["-rm", "sh", "-c", script])
            .arg(binary("sluicegate")),
    };
    let program = program
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .arg("--state-dir")
        .arg(state);
    let mut process = program.start(&directory.path().join("gateway.log"));
    let code = process.wait("a refusal to start").await;
    (code, process.said())
}

#[tokio::test]
async fn an_unwritable_state_directory_is_a_clear_refusal_to_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    for state in [file.as_path(), Path::new("/proc/self/no-such-place")] {
        let (code, said) = start_with_state(state, None).await;
        assert!(code == 1 || code == 2, "exit {code}: {said}");
        assert!(
            said.contains(state.to_str().unwrap()),
            "the path is named: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_file_is_named_and_what_to_do() {
    for name in ["relay-opens", "relay-opens.new"] {
        let state = tempfile::tempdir().unwrap();
        let place = state.path().join(name);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("something"), "").unwrap();
        let (code, said) = start_with_state(state.path(), None).await;
        assert!(code == 1 || code == 2, "exit {code}: {said}");
        let file = state.path().join("relay-opens");
        for part in [file.to_str().unwrap(), "remove what stands there"] {
            assert!(said.contains(part), "{name}: {part} is not said: {said}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_a_clear_refusal_to_start() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().display();
    // A mount namespace of the test's own: 16 KiB are less than keys and store need.
    let script = format!("mount -t tmpfs -o size=16k,mode=700 none {path} && exec \"$0\" \"$@\"");
    let (code, said) = start_with_state(state.path(), Some(&script)).await;
    assert!(code == 1 || code == 2, "exit {code}: {said}");
    assert!(
        said.contains(state.path().to_str().unwrap()),
        "the path is named: {said}"
    );
    let full = said.contains("full") || said.contains("No space left");
    assert!(
        full && !said.contains("panicked"),
        "the reason is named: {said}"
    );
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_refusal_to_start() {
    let taken = RawOrigin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let mut ports = Ports::free().await;
    ports.plain = taken.address;
    let config = directory.path().join("sluicegate.yaml");
    let yaml = Settings::default().yaml(ports, &directory.path().join("access.jsonl"));
    std::fs::write(&config, yaml).unwrap();
    let mut process = serve(&config, directory.path());
    assert_eq!(process.wait("a refusal to start").await, 1);
    assert!(
        process.said().contains(&taken.address.to_string()),
        "{}",
        process.said()
    );
}

#[tokio::test]
async fn health_and_metrics_need_no_credential_and_the_admin_api_does() {
    let world = World::start().await;
    let gateway = &world.gateway;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(gateway.management(path).await.status(), 200, "{path}");
    }
    let bare = gateway.management("/admin/api/v1/runtime/providers").await;
    assert_eq!(bare.status(), 401);
    let with = gateway.admin("GET", "/runtime/providers", "").await;
    assert_eq!(with.status(), 200, "{}", with.text());
    assert_eq!(with.json()[0]["name"], "test", "{}", with.text());
    let rebound = "GET /admin/api/v1/runtime/providers HTTP/1.1\r\nHost: evil.test\r\n\
                   Connection: close\r\n\r\n";
    let mut wire = Wire::dial(gateway.ports.management).await;
    wire.send(rebound).await;
    let status = wire.reply().await.status();
    assert!([400, 401, 403, 421].contains(&status), "{status}");
    let mut wire = Wire::dial(gateway.ports.plain).await;
    wire.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(
        wire.reply().await.status(),
        200,
        "the public side has /healthz"
    );
    let mut wire = Wire::dial(gateway.ports.plain).await;
    wire.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(
        wire.reply().await.status(),
        404,
        "and nothing else of the inside"
    );
    let token = gateway.state().join("admin.token");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let world = World::start().await;
    let session = world.session().await;
    let (_, _) = session.connect("evil.test:443").await;
    world.gateway.record_of("evil.test:443").await;
    let text = world.gateway.management("/metrics").await.text();
    let line = text.lines().find(|line| line.contains("host_not_allowed"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{text}");
    assert!(!text.contains("evil.test"), "a host name became a label");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = std::process::Command::new(binary("sluicegate"))
        .args(["check", "--schema"])
        .stdout(writer)
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), said.as_str()), (Some(0), ""));
}
