//! What `run` keeps to itself: its credentials and its state, before the user's own processes outside.

use std::fs;

use e2e::{Ask, Session, until};

use super::outer::{Outer, outer};
use super::relay;

/// What a process of the same user gets of its own child, and of a process that keeps others out: open files, memory, variables.
const LOOK: &str = r#"
import os, subprocess, sys
def reached(pid):
    count = 0
    for number in range(256):
        try: os.stat(f"/proc/{pid}/fd/{number}")
        except OSError: continue
        count += 1
    for name in "mem", "maps", "environ":
        try: os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
        except OSError: continue
        count += 1
    return count
child = subprocess.Popen(["sleep", "1000"], stdin=subprocess.PIPE)
print(reached(child.pid) >= 6, reached(int(sys.argv[1])))
child.kill()
"#;

async fn nobody_looks_into(outer: &Outer, pid: i32) {
    let pid = pid.to_string();
    let look = ["-c", LOOK, &pid];
    let done = outer.without_rights("/usr/bin/python3").args(look);
    assert_eq!(done.run().await.succeeded(), "True 0\n");
}

/// Is this process's state among its descriptors? Root finds it.
fn has_state(pid: i32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut paths = descriptors.flatten().map(|entry| entry.path());
    paths.any(|path| path.join("admin.token").exists())
}

#[test]
fn the_users_other_processes_do_not_find_the_state() {
    outer(
        "private::the_users_other_processes_do_not_find_the_state",
        async |outer| {
            let log = outer.path("private.log");
            let command = ["sh", "-c", "echo began; exec sleep 1000"];
            let running = outer.run(&[], &command).start(&log);
            until("the command", || {
                running.said().contains("began").then_some(())
            })
            .await;
            assert!(has_state(running.id()));
            nobody_looks_into(&outer, running.id()).await;
        },
    );
}

#[test]
fn nor_a_credential_of_a_gateway_elsewhere() {
    outer(
        "private::nor_a_credential_of_a_gateway_elsewhere",
        async |outer| {
            let gateway = relay::gateway(&outer).await;
            let api = outer.api();
            let ask = Ask {
                allow: &[&api],
                ..Ask::default()
            };
            let session = Session::create(&gateway, &outer.ca, ask).await;
            let log = outer.path("private.log");
            let command = ["sh", "-c", "echo began; exec sleep 1000"];
            let running = relay::command(&outer, &session, &[], &command).start(&log);
            until("the command", || {
                running.said().contains("began").then_some(())
            })
            .await;
            nobody_looks_into(&outer, running.id()).await;
        },
    );
}
