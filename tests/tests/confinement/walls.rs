//! No other way out, whatever a program tries.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::Path;

use e2e::program::clients;
use e2e::{Program, Record, until};
use serde_json::Value;
use tokio::net::TcpListener;

use super::outer::{Outer, is_root, open_to_all, outer};

/// Copies `walls.py` to where everybody can read it, and gives the command that runs it.
async fn attempts(outer: &Outer) -> (Vec<String>, [Box<dyn std::any::Any>; 3]) {
    let script = outer.path("walls.py");
    std::fs::copy(clients().join("python/walls.py"), &script).unwrap();
    open_to_all(&script);
    let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = outer.path("home/host.sock");
    let unix = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let name = format!("sluicegate-test-{}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    let port = host.local_addr().unwrap().port();
    let command = [
        "/usr/bin/python3".to_owned(),
        script.display().to_string(),
        port.to_string(),
        path.display().to_string(),
        name,
    ];
    (
        command.to_vec(),
        [Box::new(host), Box::new(unix), Box::new(hidden)],
    )
}

fn judge(found: &Value, root: bool) {
    let outcome = |what: &str| {
        found[what]["outcome"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let is = |what: &str, wanted: &str| assert_eq!(outcome(what), wanted, "{what}: {found:#}");
    // Captured, judged by the gateway, and refused in words or by a reset.
    for what in [
        "internet",
        "lan",
        "metadata",
        "ipv6",
        "mapped",
        "dns over tcp",
    ] {
        is(what, "ECONNRESET");
    }
    assert_eq!(
        outcome("internet tls").as_bytes(),
        "\u{15}\u{3}\u{3}\0\u{2}\u{2}1".as_bytes()
    );
    let http = outcome("internet http");
    assert!(
        http.starts_with("HTTP/1.1 403 ") && http.contains("address_not_allowed"),
        "{http}"
    );
    // The sandbox's own loopback, where nothing listens.
    is("host loopback", "ECONNREFUSED");
    for what in ["udp dns", "udp quic", "udp ipv6", "udp lan"] {
        is(what, "EPERM");
    }
    is("host unix socket", "ECONNREFUSED");
    is("host abstract socket", "ECONNREFUSED");
    for what in ["raw", "raw ipv6"] {
        is(what, "EPERM");
    }
    is("ping socket", "EACCES");
    for what in ["packet", "vsock", "bluetooth"] {
        is(what, "EAFNOSUPPORT");
    }
    for what in ["io_uring", "typing", "names by a key", "new key", "keyring"] {
        is(what, "EPERM");
    }
    assert_eq!(found["keys"], 0);
    assert_eq!(found["control groups"], serde_json::json!([]));
    // Mounted anew they would be writable.
    if !root {
        is("namespaces of its own", "OK");
    }
    is("control groups by clone", "EPERM");
    is("control groups by clone3", "ENOSYS");
    is("kernel", "EROFS");
    for what in [
        "control groups of its own",
        "routes",
        "interfaces",
        "rules",
        "unmount",
        "another namespace",
    ] {
        assert!(outcome(what).starts_with("exit "), "{what}: {found:#}");
    }
    for what in ["first process", "parent"] {
        let outcome = outcome(what);
        assert!(
            outcome == "EPERM" || outcome == "EACCES",
            "{what}: {found:#}"
        );
    }
    assert_eq!(found["links"], serde_json::json!(["lo"]));
    assert!(found["processes"].as_u64().unwrap() <= 3, "{found:#}");
    if !root {
        assert_eq!(found["capabilities"], "0000000000000000");
    }
    assert_eq!(found["environment"], serde_json::json!([]));
    for (what, tried) in found.as_object().unwrap() {
        let seconds = tried["seconds"].as_f64().unwrap_or_default();
        assert!(seconds < 15.0, "{what} did not fail fast: {tried}");
    }
}

#[test]
fn an_ordinary_user_reaches_nothing_else() {
    outer(
        "walls::an_ordinary_user_reaches_nothing_else",
        async |outer| {
            let (command, _held) = attempts(&outer).await;
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            let program = outer
                .run(&[], &command)
                .env("SOME_PROXY", "http://x:y@127.0.0.1:1");
            let program = program.env("SLUICEGATE_RELAY_TOKEN", "secret");
            let done = program.env("SOME_PROXY", "").run().await;
            let stderr = done.stderr.clone();
            let found: Value = serde_json::from_str(&done.succeeded()).expect(&stderr);
            judge(&found, false);
            for target in [
                "8.8.8.8:22",
                "8.8.8.8:443",
                "10.99.0.1:5432",
                "[2606:4700:4700::1111]:22",
            ] {
                assert!(outer.was_refused(target, "address_not_allowed"), "{target}");
            }
            assert!(outer.was_refused("169.254.169.254:80", "address_not_allowed"));
            assert!(stderr.contains("--allow 8.8.8.8:22"), "{stderr}");
            for target in [
                "8.8.8.8:53",
                "8.8.8.8:443",
                "10.99.0.1:5432",
                "[2606:4700:4700::1111]:53",
            ] {
                let datagram = format!("udp {target} (1 datagram)");
                let refused = outer.was_refused(&datagram, "unsupported_protocol");
                assert!(refused && stderr.contains(&datagram), "{target}: {stderr}");
            }
            outer.left_nothing().await;
        },
    );
}

#[test]
fn nor_does_root() {
    outer("walls::nor_does_root", async |outer| {
        let (command, _held) = attempts(&outer).await;
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let done = outer.run_as_root(&["--quiet"], &command).run().await;
        judge(&serde_json::from_str(&done.succeeded()).unwrap(), true);
    });
}

/// As in a container whose runtime covers parts of /proc: what is outside is seen there, and that it is so is said, whatever is quiet.
#[test]
fn where_proc_is_the_old_one_it_is_read_only_and_that_is_said() {
    outer(
        "walls::where_proc_is_the_old_one_it_is_read_only_and_that_is_said",
        async |outer| {
            // Of this test's mount namespace alone. The kernel gives a new one to those only who see the whole of this one.
            let covered = Program::new("mount").args(["-t", "tmpfs", "tmpfs", "/proc/tty"]);
            covered.run().await.succeeded();
            let log = outer.path("outside.log");
            let outside = outer.as_nobody("sh");
            let outside = outside.args(["-c", "echo ready; exec sleep 1000"]);
            let outside = outside.start(&log);
            until("the user's process outside", || {
                outside.said().contains("ready").then_some(())
            })
            .await;
            let script = r#"
import errno, os, sys
for name in "oom_score_adj", "coredump_filter", "clear_refs", "timerslack_ns", "comm":
    try: os.close(os.open(f"/proc/{sys.argv[1]}/{name}", os.O_WRONLY))
    except OSError as error: print(name, errno.errorcode[error.errno])
    else: print(name, "opened")
# Of itself it is told there all the same, and what its own descriptors lead to takes what is written.
print(os.path.basename(os.readlink("/proc/self/exe")).startswith("python"))
own = os.memfd_create("own")
with open(f"/proc/self/fd/{own}", "w") as there: there.write("written")
print(os.pread(own, 100, 0).decode())
"#;
            let id = outside.id().to_string();
            let command = ["/usr/bin/python3", "-c", script, &id];
            let ways: [&[&str]; 2] = [&["--quiet"], &["--ro"]];
            for flags in ways {
                let done = outer.run(flags, &command).run().await;
                let warned = "sluicegate: warning: /proc shows the processes outside";
                let warnings = done.stderr.matches(warned).count();
                assert_eq!(warnings, 1, "{flags:?}: {}", done.stderr);
                let said = done.succeeded();
                let refused = |name: &str| said.contains(&format!("{name} EROFS\n"));
                for name in ["oom_score_adj", "coredump_filter", "clear_refs", "comm"] {
                    assert!(refused(name), "{flags:?}: {name}: {said}");
                }
                assert!(!said.contains("opened"), "{flags:?}: {said}");
                assert!(said.ends_with("True\nwritten\n"), "{flags:?}: {said}");
            }
        },
    );
}

/// The access log is the gateway's alone, whatever its command does with what stands there.
#[test]
fn the_log_is_not_the_commands_to_write() {
    outer(
        "walls::the_log_is_not_the_commands_to_write",
        async |outer| {
            let script = "cd \"$HOME\"; cat access.jsonl; echo forged >>access.jsonl; rm -f access.jsonl; \
                      mv access.jsonl away; curl -sS --noproxy '*' https://evil.test/; true";
            let done = outer.run(&[], &["sh", "-c", script]).run().await;
            assert_eq!(done.succeeded(), "");
            let log = std::fs::read_to_string(outer.path("home/access.jsonl")).unwrap();
            assert!(!log.contains("forged"), "{log}");
            assert!(outer.was_refused("evil.test", "host_not_allowed"));
        },
    );
}

#[test]
fn without_a_network_there_is_none() {
    outer("walls::without_a_network_there_is_none", async |outer| {
        let url = format!("https://{}/echo", outer.api());
        let code = async |flags: &[&str], curl: &[&str]| {
            let command = [&["curl", "-sS", "--max-time", "20"], curl, &[url.as_str()]].concat();
            let done = outer.run(flags, &command).run().await;
            (done.code.unwrap(), done.stderr)
        };
        // Neither names nor a proxy; nor a way to an address.
        assert_eq!(code(&["--net", "none"], &[]).await.0, 6);
        let (status, _) = code(&["--net", "none"], &["--connect-to", "::8.8.8.8:443"]).await;
        assert_eq!(status, 7);
        // The proxy alone.
        assert_eq!(code(&["--net", "proxy"], &[]).await.0, 0);
        assert_eq!(code(&["--net", "proxy"], &["--noproxy", "*"]).await.0, 6);
        // Nothing was asked of anybody.
        assert_eq!(outer.dns.queries_for("evil.test"), 0);
    });
}

/// What a variable names is the command's to load: nobody else does, inside or out.
#[test]
fn a_library_to_load_first_is_the_commands_alone() {
    outer(
        "walls::a_library_to_load_first_is_the_commands_alone",
        async |outer| {
            let (source, library) = (outer.text("home/first.c"), outer.text("home/first.so"));
            // One line for each program that loads it: its arguments, and the network it is in.
            let code = r#"
                #include <fcntl.h>
                #include <unistd.h>
                __attribute__((constructor)) static void begin(void) {
                    char line[4096], net[128] = "?";
                    int from = open("/proc/self/cmdline", O_RDONLY), to = open(TO, O_WRONLY | O_CREAT | O_APPEND, 0666);
                    long length = read(from, line, sizeof line - 130), more = readlink("/proc/self/ns/net", net, 127);
                    for (long at = 0; at < length; at++) if (!line[at]) line[at] = ' ';
                    for (long at = 0; at < more; at++) line[length++] = net[at];
                    line[length++] = '\n';
                    if (write(to, line, length) < 0) _exit(99);
                }"#;
            std::fs::write(&source, code).unwrap();
            let to = outer.text("home/loaded");
            let built = Program::new("cc")
                .args(["-shared", "-fPIC", "-o", &library, &source])
                .arg(format!("-DTO=\"{to}\""))
                .run()
                .await;
            built.succeeded();
            open_to_all(Path::new(&library));
            let host = std::fs::read_link("/proc/self/ns/net").unwrap();
            let loaded = |root: bool| {
                let loaded = std::fs::read_to_string(&to).unwrap_or_default();
                let _ = std::fs::remove_file(&to);
                assert!(loaded.starts_with("/bin/true "), "{root}: {loaded}");
                assert_eq!(loaded.lines().count(), 1, "{root}: {loaded}");
                assert!(!loaded.contains(host.to_str().unwrap()), "{root}: {loaded}");
            };
            let variable = format!("LD_PRELOAD={library}");
            let flags = ["--net", "none", "--env", &variable];
            outer.run(&flags, &["/bin/true"]).run().await.succeeded();
            loaded(false);
            if is_root() {
                let done = outer.run_as_root(&flags, &["/bin/true"]).run().await;
                done.succeeded();
                loaded(true);
            }
        },
    );
}

/// A service outside that starts again makes its directory anew, and is still not to be seen.
#[test]
fn a_directory_of_sockets_stays_hidden_when_it_is_made_anew() {
    outer(
        "walls::a_directory_of_sockets_stays_hidden_when_it_is_made_anew",
        async |outer| {
            // Of this test's mount namespace alone.
            let mounted = Program::new("mount")
                .args(["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])
                .run()
                .await;
            mounted.succeeded();
            let directory = Path::new("/run/dbus");
            let socket = directory.join("system_bus_socket");
            let service = || {
                std::fs::create_dir(directory).unwrap();
                open_to_all(directory);
                let listener = UnixListener::bind(&socket).unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
                std::fs::set_permissions(&socket, mode).unwrap();
                listener
            };
            let first = service();
            let script = "echo began; until test -e home/again; do sleep 0.05; done; find /run -type s; ls /run";
            let log = outer.path("again.log");
            let mut running = outer.run(&[], &["sh", "-c", script]).start(&log);
            until("the command", || {
                running.said().contains("began").then_some(())
            })
            .await;
            drop(first);
            std::fs::remove_file(&socket).unwrap();
            std::fs::remove_dir(directory).unwrap();
            let _second = service();
            std::fs::write(outer.path("home/again"), "").unwrap();
            assert_eq!(running.wait("the command's end").await, 0);
            assert_eq!(running.said(), "began\nsluicegate-run\n");
        },
    );
}

/// What is no request for a proxy reaches no gateway, and is told of and on record all the same: printable, whatever was asked for.
#[test]
fn what_the_proxy_refuses_by_itself_is_told() {
    outer(
        "walls::what_the_proxy_refuses_by_itself_is_told",
        async |outer| {
            let script = "import socket\n\
                for line in b'GET /page', b'GET http://x\\x1b[2J/', b'CONNECT a\\x01b:443', b'CONNECT nothing':\n\
                \x20   asked = socket.create_connection(('127.0.0.1', 3128))\n\
                \x20   asked.sendall(line + b' HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n\
                \x20   print(asked.makefile('rb').readline().decode().strip())\n";
            let done = outer.run(&["--json"], &["/usr/bin/python3", "-c", script]);
            let done = done.run().await;
            let stderr = done.stderr.clone();
            let answers = done.succeeded();
            assert!(
                answers
                    .lines()
                    .all(|line| line.starts_with("HTTP/1.1 400 ")),
                "{answers}"
            );
            assert_eq!(answers.lines().count(), 4, "{answers}");
            let told: Value = serde_json::from_str(&stderr).unwrap();
            let count = |target: &str, reason: &str| {
                let refusals = told["refusals"].as_array().unwrap();
                let found = refusals.iter().find(|one| one["target"] == target);
                let found = found.unwrap_or_else(|| panic!("{target}: {told:#}"));
                assert_eq!(found["reason"], reason);
                found["count"].as_u64().unwrap()
            };
            let (malformed, target) = ("malformed_request", "malformed_target");
            assert_eq!(count("/page", malformed), 1);
            assert_eq!(count("nothing", target), 1);
            assert_eq!(count("(unreadable)", malformed), 2);
            let mut records = outer.records();
            records.retain(|record| [malformed, target].contains(&record.text("reason")));
            let mut targets: Vec<&str> = records.iter().map(|one| one.text("target")).collect();
            targets.sort_unstable();
            let expected = ["(unreadable)", "(unreadable)", "/page", "nothing"];
            assert_eq!(targets, expected);
            for record in &records {
                assert_eq!(record.text("outcome"), "refused");
                assert_eq!(record.number("status"), Some(400));
                assert_eq!(record.0["session"]["provider"], "run", "{record:?}");
                assert!(record.text("downstream").starts_with("127.0.0.1:"));
            }
        },
    );
}

/// With too few descriptors nothing is run; where more may be asked for they are, and the command has its own bound.
#[test]
fn too_few_descriptors_are_told_of() {
    outer("walls::too_few_descriptors_are_told_of", async |outer| {
        let command = ["--", "sh", "-c", "ulimit -Sn"];
        let bounded = async |start: &str, program: &str, flags: &[&str]| {
            let start = format!("{start}; exec \"$@\"");
            let program = outer.text(program);
            let base = outer.as_nobody("sh").args(["-c", &start, "sh", &program]);
            let base = base.arg("run").args(flags);
            base.args(command).run().await
        };
        for program in ["bin/sluicegate", "bin/sluicegate-relay"] {
            let done = bounded("ulimit -n 20", program, &[]).await;
            assert_eq!(done.code, Some(125), "{program}: {}", done.stderr);
            assert!(done.stderr.contains("only 20 files"), "{}", done.stderr);
        }
        let ways: [&[&str]; 2] = [&[], &["--unconfined"]];
        for flags in ways {
            let done = bounded("ulimit -Sn 20", "bin/sluicegate", flags).await;
            assert_eq!(done.succeeded(), "20\n", "{flags:?}");
        }
    });
}

/// More connections than descriptors allow: those that are there go on, and the others are refused at once.
#[test]
fn connections_beyond_the_descriptors_are_refused_at_once() {
    outer(
        "walls::connections_beyond_the_descriptors_are_refused_at_once",
        async |outer| {
            let script = "import socket, sys, time\n\
                host, port = sys.argv[1].rsplit(':', 1)\n\
                held, refused, slow = [], 0, 0\n\
                for _ in range(150):\n\
                \x20   one, began, said = socket.create_connection((host, int(port))), time.time(), b''\n\
                \x20   try:\n\
                \x20       one.sendall(b'GET /echo HTTP/1.1\\r\\nHost: ' + sys.argv[1].encode() + b'\\r\\n\\r\\n')\n\
                \x20       said = one.recv(12)\n\
                \x20   except ConnectionResetError: pass\n\
                \x20   if said.endswith(b' 200'): held.append(one)\n\
                \x20   else: refused += 1\n\
                \x20   if time.time() - began > 3: slow += 1\n\
                print(len(held), refused, slow)\n";
            let start = "ulimit -n 256; exec \"$@\"";
            let done = outer
                .as_nobody("sh")
                .args(["-c", start, "sh", &outer.text("bin/sluicegate"), "run"])
                .args(outer.allowing())
                .args(["--", "/usr/bin/python3", "-c", script, &outer.plain()])
                .run()
                .await;
            let stderr = done.stderr.clone();
            let said = done.succeeded();
            assert_eq!(said, "85 65 0\n", "{stderr}");
            assert!(stderr.contains("connection_limit"), "{stderr}");
            let records = outer.records();
            let limited = |record: &&Record| record.text("reason") == "connection_limit";
            let record = records.iter().find(limited).unwrap();
            assert_eq!(record.text("target"), outer.plain());
            assert_eq!(record.text("front"), "transparent");
        },
    );
}
