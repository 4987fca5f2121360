//! What of the host's devices is there.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use super::outer::{is_root, outer};

const KEPT: [&str; 7] = ["full", "null", "ptmx", "random", "tty", "urandom", "zero"];

/// One that is not for everybody.
pub(crate) fn another() -> Option<String> {
    let entries = fs::read_dir("/dev").unwrap().flatten();
    let mut devices = entries.filter(|entry| entry.file_type().unwrap().is_char_device());
    devices.find_map(|device| {
        let name = device.file_name().into_string().ok()?;
        (!KEPT.contains(&name.as_str())).then_some(name)
    })
}

#[test]
fn no_device_is_there_but_what_every_program_needs() {
    outer(
        "devices::no_device_is_there_but_what_every_program_needs",
        async |outer| {
            // In no directory that is another mount: terminals, shared memory, what is covered. What an entry is must be asked of
            // itself: its directory tells what is below the mount.
            let script = "import os, stat\n\
                own = os.stat('/dev').st_dev\n\
                for top, inside, files in os.walk('/dev'):\n\
                \x20   inside[:] = [one for one in inside if os.lstat(os.path.join(top, one)).st_dev == own]\n\
                \x20   for name in files:\n\
                \x20       path = os.path.join(top, name)\n\
                \x20       mode = os.lstat(path).st_mode\n\
                \x20       if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): print(os.path.relpath(path, '/dev'))\n";
            let find = ["/usr/bin/python3", "-c", script];
            let mut runs = vec![outer.run(&[], &find).run().await];
            if is_root() {
                runs.push(outer.run_as_root(&[], &find).run().await);
            }
            for run in runs {
                let found = run.succeeded();
                assert!(found.contains("null\n"), "{found}");
                for name in found.lines() {
                    assert!(KEPT.contains(&name), "{name} of {found}");
                }
            }
            // And these do what they do elsewhere.
            let script = "import os\n\
                master, other = os.openpty()\n\
                assert os.ttyname(other).startswith('/dev/pts/')\n\
                open('/dev/null', 'w').write('x')\n\
                assert open('/dev/zero', 'rb').read(1) == b'\\0' and len(os.listdir('/dev/fd')) > 2\n";
            let done = outer.run(&[], &["/usr/bin/python3", "-c", script]);
            done.run().await.succeeded();
        },
    );
}

/// What stands in the place of hidden things is one and the same, and must not carry anything from one program to another.
#[test]
fn what_is_hidden_takes_nothing() {
    outer("devices::what_is_hidden_takes_nothing", async |outer| {
        let socket = outer.path("home/host.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&socket, mode).unwrap();
        let mut paths = vec![
            outer.text("home/host.sock"),
            "/run/sluicegate-run/nothing".to_owned(),
        ];
        paths.extend(another().map(|name| format!("/dev/{name}")));
        let script = "import errno, os, sys\n\
            def tried(call):\n\
            \x20   try: return call()\n\
            \x20   except OSError as error: return errno.errorcode[error.errno]\n\
            for path in sys.argv[1:]:\n\
            \x20   print(tried(lambda: open(path, 'ab').write(b'x')), tried(lambda: os.truncate(path, 5)), tried(lambda: os.chmod(path, 0o777)))\n\
            for path in sys.argv[1:]: print(open(path, 'rb').read())\n";
        let python = ["/usr/bin/python3", "-c", script];
        let expected = "EROFS EROFS EROFS\n".repeat(paths.len()) + &"b''\n".repeat(paths.len());
        let mut runs = vec![outer.run(&[], &python).args(&paths).run().await];
        if is_root() {
            runs.push(outer.run_as_root(&[], &python).args(&paths).run().await);
        }
        for run in runs {
            assert_eq!(run.succeeded(), expected, "{paths:?}");
        }
    });
}

#[test]
fn a_device_that_is_named_is_there() {
    outer("devices::a_device_that_is_named_is_there", async |outer| {
        if let Some(name) = another() {
            let path = format!("/dev/{name}");
            let there = ["sh", "-c", "test -c \"$0\" && echo there; true", &path];
            let table: [(&[&str], &str); 3] = [
                (&[], ""),
                (&["--device", &path], "there\n"),
                (&["--ro", "--rw", &path], "there\n"),
            ];
            for (flags, expected) in table {
                let done = outer.run(flags, &there).run().await;
                assert_eq!(done.succeeded(), expected, "{flags:?} {path}");
            }
        }
        for path in ["/dev/no-such-device", "/etc/passwd"] {
            let done = outer.run(&["--device", path], &["true"]).run().await;
            assert_eq!(done.code, Some(2), "{path}: {}", done.stderr);
            assert!(done.stderr.contains(path), "{path}: {}", done.stderr);
        }
    });
}
