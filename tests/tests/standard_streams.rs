//! Standard output and standard error that take nothing: a full disk, or closed by whoever starts the program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use e2e::program::{Finished, binary};
use e2e::{Program, World, until};
use rustix::process::Signal;

/// Nobody listens there, which TCP tells at once.
const NOBODY_THERE: [&str; 4] = ["--url", "https://127.0.0.1:1", "--transport", "h2"];

/// The program with its streams as a shell makes them.
fn redirected(redirection: &str, program: &str) -> Program {
    let script = format!("exec \"$0\" \"$@\" {redirection}");
    let shell = Program::new("sh").args(["-c", &script]);
    shell.arg(binary(program))
}

async fn ended(redirection: &str, program: &str, arguments: &[&str]) -> Finished {
    redirected(redirection, program)
        .args(arguments)
        .env("SLUICEGATE_RELAY_TOKEN", "sgh_token")
        .env("SLUICEGATE_SERVICES", "cache")
        .run()
        .await
}

#[tokio::test]
async fn who_cannot_be_told_hears_it_by_the_exit_code() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let (gateway, relay) = ("sluicegate", "sluicegate-relay");
    let exits = ["--", "sh", "-c", "exit 7"];
    let none = [&["run", "--net", "none"][..], &NOBODY_THERE].concat();
    let at_once = ["--unconfined", "--wait", "0s"];
    let table: [(&str, Vec<&str>, i32); 10] = [
        (gateway, vec!["no-such-command"], 2),
        (gateway, vec!["check", "/no/such/file.yaml"], 2),
        (gateway, vec!["status", "--state-dir", state], 3),
        (gateway, [&["run", "--unconfined"][..], &exits].concat(), 7),
        (relay, vec!["no-such-command"], 2),
        (relay, vec!["up"], 2),
        (relay, vec!["status", "--status", "127.0.0.1:1"], 1),
        (relay, [&none[..], &exits].concat(), 122),
        (relay, [&none[..], &at_once, &exits].concat(), 7),
        (
            relay,
            vec!["run", "--unconfined", "--url", "x", "--", "true"],
            2,
        ),
    ];
    for redirection in ["2>/dev/full", "2>&-"] {
        for (program, arguments, code) in &table {
            let done = ended(redirection, program, arguments).await;
            assert_eq!(
                done.code,
                Some(*code),
                "{program} {arguments:?} {redirection}"
            );
        }
    }
}

/// Each attempt is a line of the log.
#[tokio::test]
async fn a_client_whose_log_is_full_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("events");
    let mut client = redirected("2>/dev/full", "sluicegate-relay")
        .args(["up", "--json"])
        .args(NOBODY_THERE)
        .args(["--listen", "cache=tcp://127.0.0.1:0"])
        .env("SLUICEGATE_RELAY_TOKEN", "sgh_token")
        .start(&log);
    until("further attempts", || {
        assert_eq!(client.ended(), None, "{}", client.said());
        let attempts = client.said().matches("\"reconnecting\"").count();
        (attempts >= 3).then_some(())
    })
    .await;
    client.signal(Signal::TERM);
    assert_eq!(client.wait("its end").await, 0, "{}", client.said());
}

#[tokio::test]
async fn a_result_that_is_not_taken_is_a_failure() {
    let world = World::start().await;
    let state = world.gateway.state();
    let state = state.to_str().unwrap();
    let key = world.gateway.directory().join("key.pem");
    let key = key.to_str().unwrap();
    let table: [(&str, Vec<&str>); 7] = [
        (
            "sluicegate",
            vec!["session", "list", "--json", "--state-dir", state],
        ),
        ("sluicegate", vec!["status", "--state-dir", state]),
        ("sluicegate", vec!["check", "--schema"]),
        ("sluicegate", vec!["--help"]),
        ("sluicegate", vec!["run", "--help"]),
        ("sluicegate-relay", vec!["--version"]),
        ("sluicegate-relay", vec!["key", "--key", key]),
    ];
    for (program, arguments) in &table {
        let done = ended("", program, arguments).await;
        assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
        let done = ended(">/dev/full", program, arguments).await;
        assert_eq!(done.code, Some(1), "{arguments:?}: {}", done.stderr);
        let said = format!("{program}: cannot write to standard output: ");
        assert_eq!(done.stderr.matches(&said).count(), 1, "{}", done.stderr);
        // Nor where that cannot be said either.
        let done = ended(">/dev/full 2>/dev/full", program, arguments).await;
        assert_eq!(done.code, Some(1), "{arguments:?}");
    }
    let piped = "\"$0\" check --schema | head -1";
    let read = Program::new("bash").args(["-c", &format!("set -o pipefail; {piped}")]);
    let read = read.arg(binary("sluicegate")).run().await;
    assert_eq!(read.code, Some(0), "{}", read.stderr);
}
