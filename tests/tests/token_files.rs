//! A token's file that others can read is taken, and told of.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::program::binary;
use e2e::{Program, until};
use rustix::process::Signal;

/// Nobody listens there, which TCP tells at once.
const GATEWAY: [&str; 4] = ["--url", "https://127.0.0.1:1", "--transport", "h2"];

fn client(arguments: &[&str]) -> Program {
    Program::new(binary("sluicegate-relay")).args(arguments)
}

#[tokio::test]
async fn a_file_of_a_token_that_others_can_read_is_warned_of_once() {
    // In a directory that everybody gets to, wherever the others are.
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let path = directory.path().join("token");
    fs::write(&path, "sgh_token").unwrap();
    let file = path.to_str().unwrap();
    let table = [
        (0o755, 0o600, None),
        (0o755, 0o644, Some("every user can read")),
        (0o755, 0o640, Some("its group can read")),
        (0o700, 0o644, None),
    ];
    for (number, (around, mode, warning)) in table.into_iter().enumerate() {
        set(directory.path(), around);
        set(&path, mode);
        let case = format!("{around:o} {mode:o}");
        let log = directory.path().join(format!("{number}.log"));
        let mut up = client(&["up", "--json", "--listen", "cache=tcp://127.0.0.1:0"])
            .args(GATEWAY)
            .args(["--token-file", file])
            .start(&log);
        until("its listener", || {
            assert_eq!(up.ended(), None, "{case}: {}", up.said());
            up.said().contains("\"listening\"").then_some(())
        })
        .await;
        up.signal(Signal::TERM);
        assert_eq!(up.wait("its end").await, 0, "{case}");
        // On standard output for machines, and in the log.
        let told = |said: &str| {
            said.matches(&format!("can read the token in {file}"))
                .count()
        };
        let expected = usize::from(warning.is_some());
        assert_eq!(told(&up.said()), expected * 2, "{case}: {}", up.said());
        let ran = client(&[
            "run",
            "--net",
            "none",
            "--listen",
            "cache=tcp://127.0.0.1:6379",
        ])
        .args(GATEWAY)
        .args(["--token-file", file, "--", "true"])
        .run()
        .await;
        assert_eq!(ran.code, Some(122), "{case}: {}", ran.stderr);
        assert_eq!(told(&ran.stderr), expected, "{case}: {}", ran.stderr);
        if let Some(warning) = warning {
            assert!(ran.stderr.contains(warning), "{case}: {}", ran.stderr);
        }
    }
}
