//! Unix sockets of the host, which are reached from any network namespace.

use std::ffi::OsStr;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use e2e::{Program, until};

use super::kernel::mount;
use super::outer::{Outer, is_root, open_to_all, outer};

/// One that every user may connect to.
fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    listener
}

/// What comes of a connection to each of these.
const CONNECT: &str = "import os, socket, sys\n\
    for path in sys.argv[1:]:\n\
    \x20   try: socket.socket(socket.AF_UNIX).connect(os.fsencode(path)); print('connected')\n\
    \x20   except OSError as error: print(type(error).__name__)\n";

/// A name is any bytes. One that is no text, or looks like several lines, keeps no other from being found, and is found itself.
#[test]
fn a_name_that_is_no_text_hides_nothing_from_us() {
    outer(
        "sockets::a_name_that_is_no_text_hides_nothing_from_us",
        async |outer| {
            let home = outer.path("home");
            let names = [
                &b"plain.sock"[..],
                b"\xff.sock",
                b"a\nb.sock",
                b"plain.sock\n",
            ];
            let paths = names.map(|name| home.join(OsStr::from_bytes(name)));
            let _listeners = paths.each_ref().map(|path| listener(path));
            let address = SocketAddr::from_abstract_name(b"\xff\xfe").unwrap();
            let _abstract = UnixListener::bind_addr(&address).unwrap();
            let command = ["/usr/bin/python3", "-c", CONNECT];
            let refused = "ConnectionRefusedError\n".repeat(paths.len());
            // The second way looks at what is mounted over them.
            let ways: [&[&str]; 2] = [&[], &["--ro"]];
            for flags in ways {
                let done = outer.run(flags, &command).args(&paths).run().await;
                assert_eq!(done.succeeded(), refused, "{flags:?}");
            }
        },
    );
}

/// A command that waits for `home/again`, and what it says after that; `again` comes in between.
async fn after(
    outer: &Outer,
    variable: (&str, &Path),
    script: &str,
    again: impl FnOnce() -> UnixListener,
) -> String {
    let script = format!("echo began; until test -e home/again; do sleep 0.05; done; {script}");
    let program = outer.run(&[], &["sh", "-c", &script]);
    let mut running = program
        .env(variable.0, variable.1)
        .start(&outer.path("again.log"));
    until("the command", || {
        running.said().contains("began").then_some(())
    })
    .await;
    let _again = again();
    fs::write(outer.path("home/again"), "").unwrap();
    assert_eq!(running.wait("the command's end").await, 0);
    running.said()
}

/// Wherever it is: what is in it before, and what comes later.
#[test]
fn the_runtime_directory_is_covered_as_a_whole() {
    outer(
        "sockets::the_runtime_directory_is_covered_as_a_whole",
        async |outer| {
            let directory = outer.path("home/runtime");
            fs::create_dir(&directory).unwrap();
            open_to_all(&directory);
            fs::write(directory.join("notes"), "").unwrap();
            let _before = listener(&directory.join("before"));
            let script = "find \"$XDG_RUNTIME_DIR\" -mindepth 1; touch \"$XDG_RUNTIME_DIR/own\" && echo usable";
            let variable = ("XDG_RUNTIME_DIR", directory.as_path());
            let again = || listener(&directory.join("later"));
            let said = after(&outer, variable, script, again).await;
            assert_eq!(said, "began\nusable\n");
            assert!(!directory.join("own").exists());
        },
    );
}

/// A bind mount has what is hidden under another name: whole, in part, and with what it is in. None of these is in the temporary directory: what
/// is removed with that must never be another mount's.
#[test]
fn what_is_hidden_is_hidden_wherever_it_is_mounted() {
    outer(
        "sockets::what_is_hidden_is_hidden_wherever_it_is_mounted",
        async |outer| {
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            let directories = [
                "runtime",
                "runtime/part",
                "files",
                "alias",
                "part",
                "whole",
                "work",
                "runtime/work",
            ];
            for name in directories {
                fs::create_dir(format!("/mnt/{name}")).unwrap();
            }
            // Not of sockets alone.
            fs::write("/mnt/files/notes", "").unwrap();
            let _listeners = ["runtime/s", "runtime/part/s", "runtime/work/s", "files/s"]
                .map(|name| listener(&Path::new("/mnt").join(name)));
            mount(&["--bind", "/mnt/runtime", "/mnt/alias"]).await;
            mount(&["--bind", "/mnt/runtime/part", "/mnt/part"]).await;
            mount(&["--bind", "/mnt/runtime/work", "/mnt/work"]).await;
            mount(&["--bind", "/mnt", "/mnt/whole"]).await;
            let (gone, refused) = ("FileNotFoundError", "ConnectionRefusedError");
            let reached = [
                ("/mnt/runtime/s", gone),
                ("/mnt/alias/s", gone),
                ("/mnt/alias/part/s", gone),
                ("/mnt/part/s", gone),
                ("/mnt/whole/runtime/s", gone),
                ("/mnt/files/s", refused),
                ("/mnt/whole/files/s", refused),
                // Where the command works, the sockets alone are hidden.
                ("/mnt/work/s", refused),
            ];
            let done = outer
                .run(&[], &["/usr/bin/python3", "-c", CONNECT])
                .args(reached.map(|(path, _)| path))
                .env("XDG_RUNTIME_DIR", "/mnt/runtime")
                .cwd(Path::new("/mnt/work"))
                .run()
                .await;
            let expected = reached.map(|(_, outcome)| format!("{outcome}\n"));
            assert_eq!(done.succeeded(), expected.concat());
        },
    );
}

/// As that of a container's engine: the kernel tells of it in another network namespace only.
#[test]
fn a_socket_that_is_a_mount_is_hidden_whoever_listens() {
    outer(
        "sockets::a_socket_that_is_a_mount_is_hidden_whoever_listens",
        async |outer| {
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            fs::create_dir("/mnt/engine").unwrap();
            fs::write("/mnt/mounted.sock", "").unwrap();
            let listen = "import os, signal, socket\n\
                engine = socket.socket(socket.AF_UNIX)\n\
                engine.bind('/mnt/engine/engine.sock')\n\
                os.chmod('/mnt/engine/engine.sock', 0o777)\n\
                engine.listen()\n\
                print('listens', flush=True)\n\
                signal.pause()\n";
            let engine = Program::new("unshare")
                .args(["--net", "/usr/bin/python3", "-c", listen])
                .start(&outer.path("engine.log"));
            until("the engine", || {
                engine.said().contains("listens").then_some(())
            })
            .await;
            mount(&["--bind", "/mnt/engine/engine.sock", "/mnt/mounted.sock"]).await;
            // By its own name too, as it is known by now.
            let paths = ["/mnt/mounted.sock", "/mnt/engine/engine.sock"];
            let command = ["/usr/bin/python3", "-c", CONNECT];
            let outside = outer.as_nobody(command[0]).args(&command[1..]).args(paths);
            assert_eq!(outside.run().await.succeeded(), "connected\nconnected\n");
            let done = outer.run(&[], &command).args(paths).run().await;
            let refused = "ConnectionRefusedError\n".repeat(paths.len());
            assert_eq!(done.succeeded(), refused);
        },
    );
}

/// Nothing is run, since what is at this path would stay in sight.
pub(crate) async fn is_refused(program: Program, path: &str) {
    let done = program.run().await;
    assert_eq!(done.code, Some(123), "{}{}", done.text(), done.stderr);
    assert_eq!(done.text(), "");
    for part in [path, "--unconfined", "Nothing was run"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
}

/// It is in reach where it is mounted, and nothing can be mounted over what has no name.
#[test]
fn nothing_is_run_where_a_socket_that_is_a_mount_was_removed_outside() {
    outer(
        "sockets::nothing_is_run_where_a_socket_that_is_a_mount_was_removed_outside",
        async |outer| {
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            for name in ["source", "source/empty", "empty"] {
                fs::create_dir(format!("/mnt/{name}")).unwrap();
            }
            let path = "/mnt/mounted.sock";
            fs::write(path, "").unwrap();
            let _listener = listener(Path::new("/mnt/source/s"));
            mount(&["--bind", "/mnt/source/s", path]).await;
            mount(&["--bind", "/mnt/source/empty", "/mnt/empty"]).await;
            fs::remove_file("/mnt/source/s").unwrap();
            fs::remove_dir("/mnt/source/empty").unwrap();
            let command = ["/usr/bin/python3", "-c", CONNECT, path];
            let outside = outer.as_nobody(command[0]).args(&command[1..]);
            assert_eq!(outside.run().await.succeeded(), "connected\n");
            let ways: [&[&str]; 2] = [&[], &["--ro"]];
            for flags in ways {
                is_refused(outer.run(flags, &command), path).await;
                if is_root() {
                    is_refused(outer.run_as_root(flags, &command), path).await;
                }
            }
            let unmounted = Program::new("umount").args(["--lazy", path]).run().await;
            unmounted.succeeded();
            // A directory that was removed has nothing to hide, and never will have.
            for flags in ways {
                let program = outer.run(flags, &command);
                let done = program.env("XDG_RUNTIME_DIR", "/mnt/empty").run().await;
                // What is there now is a file, which is nobody's to write to.
                assert_eq!(done.succeeded(), "PermissionError\n", "{flags:?}");
            }
        },
    );
}

/// No variable says where it is, but its socket does.
#[test]
fn the_state_of_a_gateway_is_hidden_wherever_it_is() {
    outer(
        "sockets::the_state_of_a_gateway_is_hidden_wherever_it_is",
        async |outer| {
            let (state, config) = (outer.path("home/elsewhere"), outer.path("serve.yaml"));
            fs::write(&config, "probe: {interval: 0}\n").unwrap();
            let _gateway = outer
                .as_nobody(&outer.text("bin/sluicegate"))
                .args(["serve", "--config"])
                .arg(&config)
                .arg("--state-dir")
                .arg(&state)
                .start(&outer.path("serve.log"));
            until("its state", || {
                let mut names = ["admin.token", "admin.sock"].into_iter();
                names.all(|name| state.join(name).exists()).then_some(())
            })
            .await;
            let done = outer.run(&[], &["ls", "-A"]).arg(&state).run().await;
            assert_eq!(done.succeeded(), "");
        },
    );
}

/// A service that starts again binds its name anew; what was mounted over the old socket goes with that.
#[test]
fn a_socket_alone_in_its_directory_stays_hidden_when_it_is_made_anew() {
    outer(
        "sockets::a_socket_alone_in_its_directory_stays_hidden_when_it_is_made_anew",
        async |outer| {
            let directory = outer.path("home/service");
            fs::create_dir(&directory).unwrap();
            open_to_all(&directory);
            let path = directory.join("socket");
            let first = listener(&path);
            let again = || {
                drop(first);
                fs::remove_file(&path).unwrap();
                listener(&path)
            };
            let variable = ("SERVICE", directory.as_path());
            let said = after(&outer, variable, "find \"$SERVICE\"", again).await;
            assert_eq!(said, format!("began\n{}\n", directory.display()));
        },
    );
}
