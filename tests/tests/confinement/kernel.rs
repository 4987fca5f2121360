//! File systems of the kernel's, wherever they are mounted. All mounts here are of the test's own namespace, and none is in its temporary
//! directory: what is removed with that must never be the host's.

use std::fs;
use std::os::unix::fs::MetadataExt;

use e2e::{Program, until};

use super::devices;
use super::outer::{Outer, is_root, outer};

async fn mounted(arguments: &[&str]) -> bool {
    Program::new("mount").args(arguments).run().await.code == Some(0)
}

pub(crate) async fn mount(arguments: &[&str]) {
    let done = Program::new("mount").args(arguments).run().await;
    assert_eq!(done.code, Some(0), "mount {arguments:?}: {}", done.stderr);
}

/// What Python says to this as an ordinary user, and as root.
async fn asked(outer: &Outer, flags: &[&str], script: &str, words: &[String]) -> Vec<String> {
    let python = ["/usr/bin/python3", "-c", script];
    let mut said = vec![outer.run(flags, &python).args(words).run().await];
    if is_root() {
        said.push(outer.run_as_root(flags, &python).args(words).run().await);
    }
    said.into_iter().map(|done| done.succeeded()).collect()
}

/// By way of binfmt_misc root's command would have the kernel run its own program for whoever starts another outside.
#[test]
fn below_an_old_proc_nothing_is_writable() {
    outer(
        "kernel::below_an_old_proc_nothing_is_writable",
        async |outer| {
            // Covered as in a container: the old one stays.
            mount(&["-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/proc/tty"]).await;
            // Below what is protected by its path, and below that.
            mount(&["-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/proc/sys/fs"]).await;
            let mut places = vec!["/proc/tty".to_owned(), "/proc/sys/fs".to_owned()];
            let programs = "/proc/sys/fs/binfmt_misc";
            fs::create_dir(programs).unwrap();
            // Not every kernel has it, nor gives it to everybody.
            if mounted(&["-t", "binfmt_misc", "binfmt_misc", programs]).await {
                places.push(programs.to_owned());
            }
            let script = "import errno, os, sys\n\
                for place in sys.argv[1:]:\n\
                \x20   try: open(place + '/written', 'w')\n\
                \x20   except OSError as error: outcome = errno.errorcode[error.errno]\n\
                \x20   else: outcome = 'written'\n\
                \x20   print(place, bool(os.statvfs(place).f_flag & os.ST_RDONLY), outcome)\n";
            let expected = places.iter().map(|place| format!("{place} True EROFS\n"));
            let expected: String = expected.collect();
            let ways: [&[&str]; 2] = [&["--quiet"], &["--ro"]];
            for flags in ways {
                for said in asked(&outer, flags, script, &places).await {
                    assert_eq!(said, expected, "{flags:?}");
                }
            }
            // Outside they are as they were.
            fs::write("/proc/sys/fs/written", "").unwrap();
        },
    );
}

#[test]
fn elsewhere_they_are_hidden_or_read_only_as_well() {
    outer(
        "kernel::elsewhere_they_are_hidden_or_read_only_as_well",
        async |outer| {
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            let directory = |name: &str| {
                let path = format!("/mnt/{name}");
                fs::create_dir(&path).unwrap();
                path
            };
            let file = |name: &str| {
                let path = format!("/mnt/{name}");
                fs::write(&path, "").unwrap();
                path
            };
            // Processes and devices, whole and in part.
            let hidden = [directory("proc"), directory("knobs"), directory("dev")];
            mount(&["-t", "proc", "proc", &hidden[0]]).await;
            mount(&["--bind", "/proc/sys", &hidden[1]]).await;
            mount(&["--rbind", "/dev", &hidden[2]]).await;
            // One that every kernel has: it is not empty.
            let mut files = vec![file("knob")];
            mount(&["--bind", "/proc/sys/kernel/hostname", &files[0]]).await;
            // Not a console that is a terminal's, as containers have it.
            let of_dev = |name: &String| {
                let device = fs::metadata(format!("/dev/{name}")).unwrap();
                device.dev() == fs::metadata("/dev").unwrap().dev()
            };
            if let Some(device) = devices::another().filter(of_dev) {
                let path = file("device");
                mount(&["--bind", &format!("/dev/{device}"), &path]).await;
                files.push(path);
            }
            // What every program needs, as chroots have it.
            mount(&["--bind", "/dev/null", &file("null")]).await;
            // Those that this kernel has, and gives to who runs this.
            let mut read_only = Vec::new();
            for kind in [
                "sysfs",
                "cgroup2",
                "binfmt_misc",
                "bpf",
                "configfs",
                "debugfs",
                "efivarfs",
                "fusectl",
                "pstore",
                "securityfs",
                "tracefs",
            ] {
                let path = directory(kind);
                if mounted(&["-t", kind, kind, &path]).await {
                    read_only.push(path);
                }
            }
            assert!(!read_only.is_empty());
            let script = "import errno, os, sys\n\
                hidden, files, read_only = (words.split(',') for words in sys.argv[1:])\n\
                for path in hidden: print(path, os.listdir(path))\n\
                for path in files:\n\
                \x20   try: open(path, 'ab')\n\
                \x20   except OSError as error: print(path, errno.errorcode[error.errno], open(path, 'rb').read())\n\
                \x20   else: print(path, 'opened')\n\
                for path in read_only: print(path, bool(os.statvfs(path).f_flag & os.ST_RDONLY))\n\
                print(open('/mnt/null', 'w').write('x'))\n";
            let words = [hidden.join(","), files.join(","), read_only.join(",")];
            let mut expected: Vec<String> = Vec::new();
            expected.extend(hidden.iter().map(|path| format!("{path} []")));
            expected.extend(files.iter().map(|path| format!("{path} EROFS b''")));
            expected.extend(read_only.iter().map(|path| format!("{path} True")));
            expected.push("1".to_owned());
            for said in asked(&outer, &[], script, &words).await {
                assert_eq!(said.lines().collect::<Vec<_>>(), expected);
            }
        },
    );
}

/// Their names are in a file system of the namespace in which it was mounted. A `/dev` of the shell's own, since the host may have none there.
#[test]
fn message_queues_are_the_commands_own() {
    outer(
        "kernel::message_queues_are_the_commands_own",
        async |outer| {
            let known = fs::read_to_string("/proc/filesystems").unwrap();
            if !known.contains("\tmqueue\n") {
                return;
            }
            let script = "mount -t tmpfs -o mode=0755 tmpfs /mnt\n\
                mkdir /mnt/mqueue\n\
                for name in null zero full random urandom tty; do\n\
                touch /mnt/$name; mount --bind /dev/$name /mnt/$name; done\n\
                mount --move /mnt /dev\n\
                mount -t mqueue mqueue /dev/mqueue\n\
                mount -t tmpfs -o mode=0755 tmpfs /mnt\n\
                mkdir /mnt/queues\n\
                mount -t mqueue mqueue /mnt/queues\n\
                touch /dev/mqueue/outside\n\
                chmod 666 /dev/mqueue/outside\n\
                \"$@\"\n\
                ls /dev/mqueue";
            let look = "import os\n\
                places = '/dev/mqueue', '/mnt/queues'\n\
                for place in places: print(os.listdir(place))\n\
                for place in places:\n\
                \x20   try: os.open(place + '/outside', os.O_RDWR)\n\
                \x20   except OSError as error: print(type(error).__name__)\n\
                \x20   else: print('opened')\n\
                os.close(os.open('/dev/mqueue/own', os.O_RDWR | os.O_CREAT, 0o600))\n\
                print(os.listdir('/dev/mqueue'))\n";
            let command = ["/usr/bin/python3", "-c", look];
            let expected = "[]\n[]\nFileNotFoundError\nFileNotFoundError\n['own']\noutside\n";
            let ways: [&[&str]; 2] = [&[], &["--ro"]];
            for flags in ways {
                let done = outer.run_within(script, flags, &command).run().await;
                assert_eq!(done.succeeded(), expected, "{flags:?}");
            }
        },
    );
}

/// Also where mounts are shared with all that come of them, as systemd has it.
#[test]
fn what_is_mounted_outside_later_does_not_arrive() {
    outer(
        "kernel::what_is_mounted_outside_later_does_not_arrive",
        async |outer| {
            mount(&["--make-rshared", "/"]).await;
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"]).await;
            fs::create_dir("/mnt/later").unwrap();
            let script = "echo began; until test -e home/later; do sleep 0.05; done; ls -A /mnt/later; echo seen";
            let log = outer.path("later.log");
            let mut running = outer.run(&["--quiet"], &["sh", "-c", script]).start(&log);
            until("the command", || {
                running.said().contains("began").then_some(())
            })
            .await;
            mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt/later"]).await;
            fs::write("/mnt/later/arrived", "").unwrap();
            fs::write(outer.path("home/later"), "").unwrap();
            assert_eq!(running.wait("the command's end").await, 0);
            assert_eq!(running.said(), "began\nseen\n");
        },
    );
}
