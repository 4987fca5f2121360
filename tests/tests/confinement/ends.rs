//! Exit codes, signals, terminals, and that nothing is left behind, however it ends.

use std::fs;
use std::path::Path;

use e2e::until;
use rustix::process::{Pid, Signal, kill_process};

use super::kills::{chain, mark, processes};
use super::outer::outer;

#[test]
fn codes_and_streams_pass_through() {
    outer("ends::codes_and_streams_pass_through", async |outer| {
        let table: [(&[&str], i32); 6] = [
            (&["true"], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["sh", "-c", "kill -9 $$"], 137),
            (&["sh", "-c", "kill -TERM $$"], 143),
            (&["/no/such/program"], 127),
            (&["/etc/passwd"], 126),
        ];
        for (command, code) in table {
            let done = outer.run(&[], command).run().await;
            assert_eq!(done.code, Some(code), "{command:?}: {}", done.stderr);
        }
        let sum = "printf 'in' | \"$0\" run --env WORD=out -- sh -c 'printf \"%s %s\" \"$(cat)\" $WORD; echo err >&2'";
        let done = outer
            .as_nobody("sh")
            .args(["-c", sum, &outer.text("bin/sluicegate")])
            .run()
            .await;
        assert_eq!(
            (done.text().as_str(), done.stderr.as_str()),
            ("in out", "err\n")
        );
        // What the shell had open is not passed on.
        let leak = "exec 7</etc/passwd; \"$0\" run -- sh -c 'cat <&7'";
        let done = outer
            .as_nobody("sh")
            .args(["-c", leak, &outer.text("bin/sluicegate")])
            .run()
            .await;
        assert_ne!(done.code, Some(0), "{}", done.text());
        // Bad usage, before anything runs.
        for flags in [
            ["--allow", "*"],
            ["--resolve", "x"],
            ["--service", "db=ftp://x"],
            ["--rw", "/"],
        ] {
            let done = outer.run(&flags, &["true"]).run().await;
            assert_eq!(done.code, Some(2), "{flags:?}: {}", done.stderr);
        }
        outer.left_nothing().await;
    });
}

/// Inside, it is not the host's.
#[test]
fn loopback_that_is_allowed_is_told_of() {
    outer("ends::loopback_that_is_allowed_is_told_of", async |outer| {
        let hint = "--service NAME=tcp://127.0.0.1:5432";
        let ways: [(&[&str], bool); 3] = [
            (&[], false),
            (&["--quiet", "--allow", "localhost:5432"], true),
            (&["--unconfined", "--allow", "localhost:5432"], false),
        ];
        for (flags, told) in ways {
            let done = outer.run(flags, &["true"]).run().await;
            assert_eq!(done.code, Some(0), "{flags:?}: {}", done.stderr);
            assert_eq!(done.stderr.contains(hint), told, "{}", done.stderr);
        }
    });
}

/// Neither one on a full disk nor one that was closed.
#[test]
fn a_standard_error_that_takes_nothing_changes_no_code() {
    outer(
        "ends::a_standard_error_that_takes_nothing_changes_no_code",
        async |outer| {
            let refused = "curl -s --max-time 20 https://evil.test/; exit 9";
            let table: [(&[&str], i32); 4] = [
                (&["/no/such/program"], 127),
                (&["sh", "-c", "exit 7"], 7),
                // Of which there is a list at the end.
                (&["sh", "-c", refused], 9),
                (&["sh", "-c", "kill -9 $$"], 137),
            ];
            for redirection in ["2>/dev/full", "2>&-"] {
                let start = format!("exec \"$@\" {redirection}");
                for (command, code) in table {
                    let shell = outer.as_nobody("sh").args(["-c", &start, "sh"]);
                    let program = shell.arg(outer.path("bin/sluicegate")).arg("run");
                    let program = program.args(outer.allowing()).arg("--").args(command);
                    let done = program.run().await;
                    assert_eq!(done.code, Some(code), "{command:?} {redirection}");
                }
            }
            outer.left_nothing().await;
        },
    );
}

#[test]
fn signals_reach_the_command_once() {
    outer("ends::signals_reach_the_command_once", async |outer| {
        let script = "trap 'echo term' TERM; trap 'echo usr; exit 3' USR1; echo ready; while :; do sleep 0.1; done";
        let log = outer.path("signals.log");
        let mut running = outer.run(&[], &["sh", "-c", script]).start(&log);
        let said = |word: &str| fs::read_to_string(&log).unwrap().matches(word).count();
        until("the command", || (said("ready") == 1).then_some(())).await;
        running.signal(Signal::TERM);
        until("the first", || (said("term") == 1).then_some(())).await;
        running.signal(Signal::TERM);
        until("the second", || (said("term") == 2).then_some(())).await;
        running.signal(Signal::USR1);
        assert_eq!(running.wait("the command's end").await, 3);
        assert_eq!(said("term"), 2);
    });
}

/// Without a terminal too.
#[test]
fn a_stop_and_its_end_reach_the_command() {
    outer(
        "ends::a_stop_and_its_end_reach_the_command",
        async |outer| {
            let mark = mark();
            let script = "trap 'echo continued' CONT; echo ready; while :; do sleep 0.1; done";
            let log = outer.path("stops.log");
            let mut running = outer.run(&[], &["sh", "-c", script, &mark]).start(&log);
            until("the command", || {
                running.said().contains("ready").then_some(())
            })
            .await;
            running.signal(Signal::TSTP);
            until("the stop", || is_stopped(&mark).then_some(())).await;
            running.signal(Signal::CONT);
            until("its end", || {
                running.said().contains("continued").then_some(())
            })
            .await;
            assert!(!is_stopped(&mark));
            running.signal(Signal::TERM);
            assert_eq!(running.wait("the command's end").await, 143);
        },
    );
}

#[test]
fn a_daemon_ends_with_the_command() {
    outer("ends::a_daemon_ends_with_the_command", async |outer| {
        let mark = mark();
        let script = format!(
            "setsid sh -c 'exec -a {mark} sleep 1000' & setsid bash -c '(exec -a {mark} sleep 1000) & disown' ; sleep 0.3"
        );
        let done = outer
            .run(&[], &["bash", "-c", &script.replace("sh -c", "bash -c")])
            .run()
            .await;
        done.succeeded();
        until("nothing to be left", || {
            processes(&mark).is_empty().then_some(())
        })
        .await;
        outer.left_nothing().await;
    });
}

/// Is the command, a shell, stopped? Those that confine it have the mark in their arguments too.
fn is_stopped(mark: &str) -> bool {
    let arguments = |id: i32| fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let shells = processes(mark).into_iter();
    let mut shells = shells.filter(|(id, _)| arguments(*id).starts_with(b"sh\0"));
    shells.any(|(id, _)| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// Two who share a process group with the supervisor: one that waits for it, and the command's own `kill 0`.
#[test]
fn the_commands_group_is_its_own() {
    outer("ends::the_commands_group_is_its_own", async |outer| {
        let around = "trap 'echo caught' TERM INT USR1; \"$0\" run -- sh -c \"$1\"; echo $?";
        let inside = [
            ("trap : TERM; kill -TERM 0; echo inside", "inside\n0\n"),
            ("kill -INT 0; echo no", "130\n"),
            ("kill -USR1 0; echo no", "138\n"),
            ("kill -KILL 0; echo no", "137\n"),
            ("kill -KILL -1; exit 6", "6\n"),
        ];
        for (script, expected) in inside {
            let program = outer.text("bin/sluicegate");
            let done = outer
                .as_nobody("sh")
                .args(["-c", around, &program, script])
                .run()
                .await;
            assert_eq!(done.text(), expected, "{script}: {}", done.stderr);
            outer.left_nothing().await;
        }
    });
}

/// The supervisor and the process that would clean up after it, both at once.
#[test]
fn the_next_one_clears_what_the_dead_left() {
    outer(
        "ends::the_next_one_clears_what_the_dead_left",
        async |outer| {
            let mark = mark();
            let (mut running, chain) = chain(&outer, &mark, 9).await;
            // Stopped, it cannot act on the other's end before it is killed itself.
            for (victim, signal) in [(1, Signal::STOP), (0, Signal::KILL), (1, Signal::KILL)] {
                kill_process(Pid::from_raw(chain[victim]).unwrap(), signal).unwrap();
            }
            running.wait("the supervisor's end").await;
            let left = || outer.left().len();
            assert_eq!(left(), 1, "nobody was there to remove it");
            let (mut alive, others) = super::kills::chain(&outer, &mark, 10).await;
            assert_eq!(left(), 1, "that of the dead is gone, and another one here");
            outer.run(&[], &["true"]).run().await.succeeded();
            assert_eq!(left(), 1, "that of the living is still there");
            kill_process(Pid::from_raw(others[3]).unwrap(), Signal::KILL).unwrap();
            assert_eq!(alive.wait("the second end").await, 137);
            outer.left_nothing().await;
        },
    );
}

/// Two at once, and one in the other: each has its own directory, and nothing of the other's.
#[test]
fn runs_of_one_user_leave_each_other_alone() {
    outer(
        "ends::runs_of_one_user_leave_each_other_alone",
        async |outer| {
            // Whoever is called so, it is not ours.
            let results = outer.path("tmp/sluicegate-run-results/deep");
            fs::create_dir_all(&results).unwrap();
            fs::write(results.join("precious"), "x").unwrap();
            // What it finds in there, before, while and after another one is there.
            let watch = "seen=; echo ready; until test -e $HOME/over; do \
                         seen=\"$seen $(find $TMPDIR/sluicegate-run-of-* /run/sluicegate-run -type f -o -type s)\"; sleep 0.05; done; \
                         echo $seen | tr ' ' '\n' | sort -u | xargs -n1 basename";
            let log = outer.path("watch.log");
            let mut watching = outer.run(&[], &["sh", "-c", watch]).start(&log);
            until("it to watch", || {
                watching.said().contains("ready").then_some(())
            })
            .await;
            let mark = mark();
            let (mut other, others) = chain(&outer, &mark, 0).await;
            assert_eq!(outer.left().len(), 3);
            let services = ["--service", "cache=unix:///nowhere", "--ro", "--rw"];
            let home = outer.text("home");
            let flags = [&services[..], &[&home]].concat();
            let nested =
                "touch $TMPDIR/mine; \"$0\" run -- true; echo $?; ls $TMPDIR $(dirname $TMPDIR)";
            let program = outer.text("bin/sluicegate");
            let done = outer
                .run(&flags, &["sh", "-c", nested, &program])
                .run()
                .await;
            let stderr = done.stderr.clone();
            let said = done.succeeded();
            for word in ["0", "mine", "cache.sock", "tmp"] {
                assert!(
                    said.lines().any(|line| line == word),
                    "{word}: {said}{stderr}"
                );
            }
            fs::write(outer.path("home/over"), "").unwrap();
            assert_eq!(
                watching.wait("the end of it").await,
                0,
                "{}",
                watching.said()
            );
            assert_eq!(watching.said(), "ready\n0\n1\nnothing\n");
            kill_process(Pid::from_raw(others[3]).unwrap(), Signal::KILL).unwrap();
            assert_eq!(other.wait("the other's end").await, 137);
            assert!(results.join("precious").exists());
            assert_eq!(outer.left(), [outer.path("tmp/sluicegate-run-results")]);
        },
    );
}

#[test]
fn read_only_but_for_what_is_named() {
    outer("ends::read_only_but_for_what_is_named", async |outer| {
        let work = outer.path("home/work");
        fs::create_dir(&work).unwrap();
        fs::set_permissions(&work, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let script = "touch $HOME/no 2>/dev/null && echo home; touch work/yes && echo work; \
                      touch $TMPDIR/t && echo tmp; touch /dev/shm/sluicegate-$$ && rm /dev/shm/sluicegate-$$ && echo shm; \
                      echo x >/dev/null && echo null; exit 0";
        let inside = format!("cd {} && {script}", outer.path("home").display());
        let done = outer
            .run(
                &["--ro", "--rw", work.to_str().unwrap()],
                &["sh", "-c", &inside],
            )
            .run()
            .await;
        assert_eq!(done.succeeded(), "work\ntmp\nshm\nnull\n");
        assert!(work.join("yes").exists() && !Path::new(&outer.path("home/no")).exists());
        // What is said of a variable wins; what is hidden is no place to work in.
        let flags = ["--ro", "--env", "TMPDIR=/elsewhere"];
        let done = outer.run(&flags, &["sh", "-c", "echo $TMPDIR"]).run().await;
        assert_eq!(done.succeeded(), "/elsewhere\n");
        let state = outer.path("home/.local/state/sluicegate/deep");
        fs::create_dir_all(&state).unwrap();
        for path in state.ancestors().take(5) {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        let done = outer.run(&[], &["true"]).cwd(&state).run().await;
        assert_eq!(done.code, Some(125));
        assert!(
            done.stderr.contains(state.to_str().unwrap()),
            "{}",
            done.stderr
        );
        // A name that is too long for sockets below it.
        let long = outer.path(&"long".repeat(20));
        fs::create_dir(&long).unwrap();
        fs::set_permissions(&long, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let done = outer.run(&[], &["true"]).env("TMPDIR", &long).run().await;
        done.succeeded();
    });
}

/// It would be written to memory.
#[test]
fn what_is_hidden_is_not_to_be_written_to() {
    outer(
        "ends::what_is_hidden_is_not_to_be_written_to",
        async |outer| {
            let (state, ran) = (
                outer.text("home/.local/state/sluicegate"),
                outer.path("home/ran"),
            );
            fs::create_dir_all(Path::new(&state).join("deep")).unwrap();
            let deep = format!("{state}/deep");
            // Beside something else, so that it is hidden as a file.
            let socket = outer.text("home/agent.sock");
            let agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            let with_all = format!(" with all of {state}");
            for (path, all) in [("/run", ""), (&*deep, &*with_all), (&*socket, "")] {
                let flags = ["--ro", "--rw", path];
                let done = outer.run(&flags, &["touch"]).arg(&ran).run().await;
                assert_eq!(done.code, Some(2), "{path}: {}", done.stderr);
                let why = format!("{path}: it is hidden from the command{all}: ");
                assert!(done.stderr.contains(&why), "{}", done.stderr);
                assert!(!ran.exists(), "{path}");
            }
            drop(agent);
            fs::remove_file(&socket).unwrap();
            outer.left_nothing().await;
        },
    );
}

/// A command that leads the directory for temporary files elsewhere finds nothing of those that come after it.
#[test]
fn a_later_run_keeps_no_secret_where_an_earlier_one_looks() {
    outer(
        "ends::a_later_run_keeps_no_secret_where_an_earlier_one_looks",
        async |outer| {
            let script = "mv tmp tmp.old && mkdir -m 777 tmp && echo moved; until test -e home/over; do \
                          find tmp -type s -o -name admin.token -o -path '*/keys/*' -o -name '*.key' -o -name '*.redb' 2>/dev/null; \
                          sleep 0.01; done";
            fs::set_permissions(
                outer.directory.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o777),
            )
            .unwrap();
            let log = outer.path("home/moving.log");
            let mut moving = outer.run(&[], &["sh", "-c", script]).start(&log);
            until("the move", || moving.said().contains("moved").then_some(())).await;
            // Meanwhile the later one has all it needs: a service, and a name that is allowed.
            let services = ["--service", "cache=unix:///nowhere"];
            let (mark, api) = (mark(), format!("https://{}/echo", outer.api()));
            let command = [
                "sh",
                "-c",
                "curl -sS -o /dev/null \"$1\" && test -S \"${SLUICEGATE_CACHE_SOCKET#unix://}\"",
                &mark,
                &api,
            ];
            outer.run(&services, &command).run().await.succeeded();
            fs::write(outer.path("home/over"), "").unwrap();
            assert_eq!(moving.wait("the end of it").await, 0);
            assert_eq!(moving.said(), "moved\n");
        },
    );
}
