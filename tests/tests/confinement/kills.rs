//! Processes of a run that are killed: whichever it is, nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use e2e::program::Running;
use e2e::{Ask, Program, Session, until};
use rustix::process::{Pid, Signal, kill_process};

use super::outer::{Outer, outer};
use super::relay;

/// A word that stands in the arguments of all that belongs to one run.
pub(crate) fn mark() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("sluicegate-mark-{}-{count}", std::process::id())
}

/// Processes whose arguments hold `mark`, by id, and their parents.
pub(crate) fn processes(mark: &str) -> Vec<(i32, i32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest)
            .unwrap_or_default();
        let mut columns = after.split(' ');
        let (state, parent) = (columns.next(), columns.next());
        let parent = parent
            .and_then(|parent| parent.parse().ok())
            .unwrap_or_default();
        let marked = String::from_utf8_lossy(&arguments).contains(mark);
        if marked && id != i32::try_from(std::process::id()).unwrap() && state != Some("Z") {
            found.push((id, parent));
        }
    }
    found
}

/// Every namespace some living process is in. One that has ended and waits for its parent still names some.
fn namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if stat
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with('Z'))
        {
            continue;
        }
        for kind in ["net", "mnt", "user", "pid", "ipc"] {
            if let Ok(link) = fs::read_link(entry.path().join("ns").join(kind)) {
                found.insert(link.display().to_string());
            }
        }
    }
    found
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn sockets() -> String {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let ours = table
        .lines()
        .filter(|line| line.contains("sluicegate-run-"));
    ours.collect::<Vec<_>>().join("\n")
}

/// A command with a child of its own, all of it marked.
fn marked(mark: &str) -> String {
    format!("(exec -a {mark} sleep 1000) & exec -a {mark} sleep 1000")
}

/// The chain of one run: supervisor, outer, inner, command.
pub(crate) async fn chain(outer: &Arc<Outer>, mark: &str, number: usize) -> (Running, Vec<i32>) {
    let log = outer.path(&format!("chain-{number}.log"));
    let program = outer.run(
        &["--service", "cache=unix:///nowhere"],
        &["bash", "-c", &marked(mark)],
    );
    let running = program.start(&log);
    let chain = whole(&running, mark).await;
    (running, chain)
}

/// Its processes, once all of it runs.
async fn whole(running: &Running, mark: &str) -> Vec<i32> {
    until("the whole chain", || {
        let found = processes(mark);
        let child = |of: i32| {
            found
                .iter()
                .find(|(_, parent)| *parent == of)
                .map(|(id, _)| *id)
        };
        let first = running.id();
        let second = child(first)?;
        let third = child(second)?;
        let fourth = child(third)?;
        // And the command's own child: all of it runs.
        let done = fs::read(format!("/proc/{fourth}/cmdline"))
            .unwrap_or_default()
            .starts_with(mark.as_bytes());
        (found.len() >= 5 && done).then(|| vec![first, second, third, fourth])
    })
    .await
}

/// Kill each of a chain in turn, however it is started: all of it ends, and nothing is left.
async fn each_in_turn(outer: &Arc<Outer>, start: impl Fn(&str) -> Program) {
    for victim in 0..4 {
        let (before, mounted) = (namespaces(), mounts());
        let mark = mark();
        let log = outer.path(&format!("victim-{victim}.log"));
        let mut running = start(&mark).start(&log);
        let chain = whole(&running, &mark).await;
        assert!(namespaces().len() > before.len());
        let pid = Pid::from_raw(chain[victim]).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let code = running.wait("the end of it all").await;
        let expected = if victim == 0 { -1 } else { 137 };
        assert_eq!(code, expected, "{victim}: {}", running.said());
        until("no process", || processes(&mark).is_empty().then_some(())).await;
        until("no namespace", || {
            namespaces().is_subset(&before).then_some(())
        })
        .await;
        assert_eq!(mounts(), mounted);
        assert_eq!(sockets(), "");
        outer.left_nothing().await;
    }
}

#[test]
fn whichever_process_is_killed_nothing_is_left() {
    outer(
        "kills::whichever_process_is_killed_nothing_is_left",
        async |outer| {
            let service = ["--service", "cache=unix:///nowhere"];
            each_in_turn(&outer, |mark| {
                outer.run(&service, &["bash", "-c", &marked(mark)])
            })
            .await;
        },
    );
}

#[test]
fn nor_is_anything_of_a_session_made_elsewhere() {
    outer(
        "kills::nor_is_anything_of_a_session_made_elsewhere",
        async |outer| {
            let gateway = relay::gateway(&outer).await;
            let session = Session::create(&gateway, &outer.ca, Ask::default()).await;
            each_in_turn(&outer, |mark| {
                relay::command(&outer, &session, &[], &["bash", "-c", &marked(mark)])
            })
            .await;
        },
    );
}
