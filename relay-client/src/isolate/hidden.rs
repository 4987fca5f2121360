//! What of the file system leads out, or holds secrets: hidden from the command.
//!
//! A unix socket with a path is reached from any network namespace. The well-known ones are hidden by their directories;
//! what else listens now is found in the kernel's own list, and hidden with its directory where there are only sockets.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use super::{aliases, control::Hidden, devices, directory, elsewhere, gateways, mountinfo::table};

/// Name services, buses, container engines, agents: all their sockets are below these. They are covered as a whole, since a
/// directory that is removed and made anew, as a service that starts again does it, comes into sight: what was mounted over
/// the old one goes with it. These are never removed.
const RUNTIME: [&str; 2] = ["/run", "/var/run"];
/// Below these, no way out and needed, so that they stay: the programs of NixOS, and disks that are mounted there.
pub(super) const KEPT: [&str; 6] = [
    "current-system",
    "booted-system",
    "wrappers",
    "opengl-driver",
    "opengl-driver-32",
    "media",
];
/// Displays: other directories of sockets.
const DIRECTORIES: [&str; 2] = ["/tmp/.X11-unix", "/tmp/.ICE-unix"];
/// A directory with more entries is no place of a few sockets or secrets: it is not read to its end.
const MOST: usize = 1024;
/// The kernel's list of unix sockets (proc_pid_net(5)).
const TABLE: &str = "/proc/net/unix";
/// So many times it is read.
const READINGS: usize = 3;
/// A name there is no longer (unix(7)).
const LONGEST: usize = 108;
/// `SS_UNCONNECTED` there: of a stream socket with a path, it listens or may yet.
const UNCONNECTED: &str = "01";

/// Everything to hide, each place once and nothing below another. `more` is the caller's own: files of tokens, state. `used`
/// is what the command is to work in.
///
/// # Errors
/// The kernel does not tell what listens, what devices there are, or what is mounted.
pub(super) fn find(
    more: &[PathBuf],
    used: &[PathBuf],
    variable: impl Fn(&str) -> Option<OsString>,
) -> io::Result<Vec<Hidden>> {
    let uid = rustix::process::getuid().as_raw();
    let known = RUNTIME.iter().chain(&DIRECTORIES);
    let mut directories: Vec<PathBuf> = known.map(PathBuf::from).collect();
    directories.push(format!("/tmp/tmux-{uid}").into());
    directories.extend(variable("XDG_RUNTIME_DIR").map(PathBuf::from));
    directories.extend(gateways::named(&variable));
    // Others of this user's `run`, whatever their TMPDIR.
    let private = directory::name();
    directories.extend(["/tmp", "/var/tmp"].map(|base| Path::new(base).join(&private)));
    let mut files: Vec<PathBuf> = variable("SSH_AUTH_SOCK")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let (mounts, mut more) = (table()?, more.to_vec());
    let in_use = aliases::with_other_names(in_use(used), &mounts);
    files.extend(aliases::sockets(&mounts));
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{TABLE}: {error}"));
    for socket in listed(|| fs::read(TABLE)).map_err(told)? {
        let of_a_run = |path: &&Path| path.file_name() == Some(&*private);
        match socket.ancestors().find(of_a_run) {
            Some(directory) => directories.push(directory.to_owned()),
            None => {
                more.extend(gateways::around(&socket, &in_use));
                files.push(socket);
            }
        }
    }
    // One that is bound anew, as a service that starts again does it, comes into sight; not in a directory that is hidden.
    let places: Vec<PathBuf> = files.iter().filter_map(|file| place(file)).collect();
    let socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    directories.extend(with_nothing_else(&places, &in_use, socket));
    let own = more.iter().chain(&directories).chain(&files);
    let own: BTreeSet<PathBuf> = own.filter_map(|path| fs::canonicalize(path).ok()).collect();
    more.extend(aliases::of(&own, &in_use, &mounts));
    let devices = devices::others(used)?;
    directories.extend(devices.directories);
    files.extend(devices.files);
    more.extend(elsewhere::that_is_hidden(&mounts));
    let (more_directories, more_files): (Vec<_>, Vec<_>) =
        more.into_iter().partition(|path| path.is_dir());
    directories.extend(more_directories);
    files.extend(more_files);
    Ok(settle(directories, files))
}

/// Files of secrets, and the directories in which there is nothing else: a file that is replaced by another one's new name, as
/// rotation does it, comes into sight, since what was mounted over the old one goes with it.
pub fn with_their_directories(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let places: Vec<PathBuf> = files.iter().filter_map(|file| place(file)).collect();
    // Kubernetes keeps the versions of a secret in `..data` and the like, beside links to what is in there.
    let known = |entry: &fs::DirEntry| {
        places.contains(&entry.path()) || entry.file_name().as_encoded_bytes().starts_with(b"..")
    };
    let in_use = aliases::with_other_names(in_use(&[]), &[]);
    files.extend(with_nothing_else(&places, &in_use, known));
    files
}

/// Where the command works: what is `used`, the working directory and the home.
fn in_use(used: &[PathBuf]) -> Vec<PathBuf> {
    let mut used = used.to_vec();
    used.extend(std::env::current_dir());
    used.extend(std::env::var_os("HOME").map(PathBuf::from));
    used
}

/// By the name it is replaced under, which may be a link.
fn place(file: &Path) -> Option<PathBuf> {
    let parent = std::path::absolute(file).ok()?.parent()?.to_owned();
    Some(fs::canonicalize(parent).ok()?.join(file.file_name()?))
}

/// Of the directories of these files those that have nothing but what is `known`, that belong to this user or root and that only their
/// owner writes to, and that are neither `used` nor above what is. Each is read once, and not
/// those of others: who fills a directory of his own with sockets would make every start wait for it.
fn with_nothing_else(
    places: &[PathBuf],
    used: &[PathBuf],
    known: impl Fn(&fs::DirEntry) -> bool,
) -> Vec<PathBuf> {
    let only = |directory: &Path| {
        let Ok(entries) = fs::read_dir(directory) else {
            return false;
        };
        let mut entries = entries.flatten().enumerate();
        entries.all(|(number, entry)| number < MOST && known(&entry))
    };
    let uid = rustix::process::getuid().as_raw();
    // What others may write to is not kept for this.
    let private = |directory: &Path| {
        fs::metadata(directory).is_ok_and(|found| {
            let owner = found.uid();
            found.mode() & 0o022 == 0 && (owner == uid || owner == 0)
        })
    };
    let directories: BTreeSet<&Path> = places.iter().filter_map(|place| place.parent()).collect();
    directories
        .into_iter()
        .filter(|directory| !used.iter().any(|used| used.starts_with(directory)))
        .filter(|directory| private(directory) && only(directory))
        .map(Path::to_owned)
        .collect()
}

fn settle(directories: Vec<PathBuf>, files: Vec<PathBuf>) -> Vec<Hidden> {
    let real = |path: PathBuf| fs::canonicalize(path).ok();
    let directories = directories
        .into_iter()
        .filter_map(real)
        .filter(|path| path.is_dir() && path.parent().is_some());
    let files = files
        .into_iter()
        .filter_map(real)
        .filter(|path| !path.is_dir());
    uncovered(directories.collect(), files.collect())
}

/// Of real paths those that no directory above them hides, in the order in which they are hidden.
fn uncovered(directories: BTreeSet<PathBuf>, files: BTreeSet<PathBuf>) -> Vec<Hidden> {
    let mut hidden: Vec<PathBuf> = Vec::new();
    // Sorted, a directory comes before what is below it.
    for directory in directories {
        if !hidden.iter().any(|over| covers(over, &directory)) {
            hidden.push(directory);
        }
    }
    let is_covered = |path: &PathBuf| hidden.iter().any(|over| covers(over, path));
    let files: Vec<PathBuf> = files.into_iter().filter(|path| !is_covered(path)).collect();
    let directories = hidden.into_iter().map(Hidden::Directory);
    directories
        .chain(files.into_iter().map(Hidden::File))
        .collect()
}

/// Does hiding this directory hide the path? Not what stays of a runtime directory: that has to be hidden by itself.
pub(super) fn covers(over: &Path, path: &Path) -> bool {
    let stays = |rest: &Path| KEPT.iter().any(|kept| rest.starts_with(kept));
    path.strip_prefix(over)
        .is_ok_and(|rest| !(is_runtime(over) && stays(rest)))
}

pub(super) fn is_runtime(path: &Path) -> bool {
    RUNTIME.iter().any(|one| Path::new(one) == path)
}

/// What is in a table that changes while it is read: the kernel gives a page at a time and finds its place again by counting, so that one
/// that is closed meanwhile takes another one out of sight. Not the same one each time.
///
/// # Errors
/// It cannot be read.
fn listed(mut table: impl FnMut() -> io::Result<Vec<u8>>) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for _ in 0..READINGS {
        found.extend(listening(&table()?));
    }
    Ok(found)
}

/// The paths of sockets that take connections or datagrams, or may begin to: whatever is bound and is there. Names are any
/// bytes, and anybody may bind one that is no text, or that has line ends in it.
fn listening(table: &[u8]) -> Vec<PathBuf> {
    let lines: Vec<&[u8]> = table.split(|byte| *byte == b'\n').collect();
    let socket =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate().skip(1) {
        if let Some(name) = bound(line) {
            let following = lines.get(number + 1..).unwrap_or_default();
            found.extend(readings(name, following).into_iter().filter(socket));
        }
    }
    found
}

/// How the name begins that a line tells of.
fn bound(line: &[u8]) -> Option<&[u8]> {
    // It is the rest of the line, blanks and all; abstract names begin with `@` and are a network namespace's.
    let start = line.windows(2).position(|two| two == b" /")?;
    let (columns, name) = line.split_at_checked(start + 1)?;
    let mut columns = str::from_utf8(columns).ok()?.split_ascii_whitespace();
    let (kind, state) = (columns.nth(4)?, columns.next()?);
    (kind == "0002" || state == UNCONNECTED).then_some(name)
}

/// All that a name may be that begins like this. Its line ends look like the table's own: so with as many of the lines that follow, whatever
/// they look like, as a name has room for.
fn readings(begin: &[u8], following: &[&[u8]]) -> Vec<PathBuf> {
    let mut name = begin.to_vec();
    let mut readings = vec![PathBuf::from(OsStr::from_bytes(&name))];
    for line in following {
        name.push(b'\n');
        name.extend_from_slice(line);
        if name.len() > LONGEST {
            break;
        }
        readings.push(PathBuf::from(OsStr::from_bytes(&name)));
    }
    readings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::{
        ffi::OsStr,
        fs,
        os::{
            linux::net::SocketAddrExt,
            unix::{
                ffi::OsStrExt,
                fs::PermissionsExt,
                net::{SocketAddr, UnixListener},
            },
        },
        path::PathBuf,
    };

    use super::{
        Hidden, MOST, TABLE, find, listed, listening, settle, uncovered, with_their_directories,
    };
    use crate::{isolate::control, listen::closed_private_socket};

    /// Not of sockets alone.
    fn with_another_file() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("other"), "").unwrap();
        directory
    }

    fn found() -> Vec<Hidden> {
        find(&[], &[], |_| None).unwrap()
    }

    #[test]
    fn what_listens_is_found_in_the_kernels_list() {
        let directory = with_another_file();
        let path = directory.path().join("a socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let table = fs::read(TABLE).unwrap();
        assert!(listening(&table).contains(&path));
        assert!(found().contains(&Hidden::File(path)));
        // One that does not listen yet.
        let path = directory.path().join("bound");
        let _bound = closed_private_socket(&path).unwrap();
        assert!(found().contains(&Hidden::File(path)));
        for broken in ["", "x\n", "x\ny\n", "x\n0: 2 0 zz 0001 01 5 /tmp"] {
            assert_eq!(listening(broken.as_bytes()), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn a_directory_of_sockets_alone_is_hidden_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (path, whole) = (root.join("socket"), Hidden::Directory(root.clone()));
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(found().contains(&whole));
        // Not what the command is to work in.
        let used = [root.join("below")];
        let found_used = find(&[], &used, |_| None).unwrap();
        assert!(found_used.contains(&Hidden::File(path.clone())));
        fs::write(root.join("other"), "").unwrap();
        assert!(found().contains(&Hidden::File(path)));
        fs::remove_file(root.join("other")).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(!found().contains(&whole));
    }

    /// Not of this one alone: whoever binds a name that is no text must not hide all others from us.
    #[test]
    fn names_that_are_no_text_are_found_with_the_others() {
        let directory = with_another_file();
        let path = directory.path().join("a socket");
        let odd = directory.path().join(OsStr::from_bytes(b"\xff\xfe"));
        let _listeners = [&path, &odd].map(|path| UnixListener::bind(path).unwrap());
        let name = [&b"\xff"[..], directory.path().as_os_str().as_bytes()].concat();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let _abstract = UnixListener::bind_addr(&address).unwrap();
        let found = found();
        for path in [path, odd] {
            let hidden = Hidden::File(path);
            assert!(found.contains(&hidden), "{hidden:?}");
            let said = control::encode(&hidden).unwrap();
            assert_eq!(control::decode::<Hidden>(&said[4..]).unwrap(), hidden);
        }
    }

    /// As where sockets were closed between two of its pages.
    #[test]
    fn what_one_reading_leaves_out_another_has() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| directory.path().join(name));
        let _listeners = paths
            .each_ref()
            .map(|path| UnixListener::bind(path).unwrap());
        let mut readings = 0;
        let table = || {
            readings += 1;
            let others = paths.iter().enumerate();
            let others = others.filter(|(place, _)| (place + readings) % 3 != 0);
            let lines = others.map(|(_, path)| format!("0: 2 0 1 0001 01 5 {}\n", path.display()));
            Ok(format!("Num\n{}", lines.collect::<String>()).into_bytes())
        };
        assert!(listed(table).unwrap().into_iter().eq(paths.iter().cloned()));
    }

    /// The kernel writes them as they are, so that they look like lines of its own.
    #[test]
    fn names_with_line_ends_are_found_whole() {
        let directory = with_another_file();
        let root = directory.path();
        fs::create_dir(root.join("a\nb")).unwrap();
        // The last but one looks like a whole line.
        let paths = ["x", "x\n", "x\n\ny z", "x\n0: 2 0 1 0001 03 5 y", "a\nb/x"]
            .map(|name| root.join(name));
        let _listeners: Vec<_> = paths
            .iter()
            .map(|path| UnixListener::bind(path).unwrap())
            .collect();
        let found = listening(&fs::read(TABLE).unwrap());
        for path in paths {
            assert!(found.contains(&path), "{path:?}");
        }
    }

    /// The product's own: another session's services, another gateway's operators.
    #[test]
    fn sockets_of_ours_are_found_too() {
        let directory = with_another_file();
        let path = directory.path().join("services.sock");
        let _listener = crate::listen::private_socket(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(found().contains(&Hidden::File(path)));
    }

    /// Of another run, with another directory for temporary files: all it has there.
    #[test]
    fn a_socket_of_a_run_leads_to_its_directory() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let private = root.join(crate::isolate::directory::name());
        fs::create_dir_all(private.join("a/state")).unwrap();
        let _listener = UnixListener::bind(private.join("a/state/admin.sock")).unwrap();
        assert!(found().contains(&Hidden::Directory(private)));
    }

    #[test]
    fn a_directory_of_secrets_alone_is_hidden_with_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["alone", "mixed", "mounted/..1"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in [
            "alone/token",
            "alone/key",
            "mixed/token",
            "mixed/other",
            "mounted/..1/token",
        ] {
            fs::write(root.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("..1/token", root.join("mounted/token")).unwrap();
        let files = ["alone/token", "alone/key", "mixed/token", "mounted/token"];
        let mut hidden = with_their_directories(files.map(|file| root.join(file)).to_vec());
        let directories: Vec<_> = hidden.split_off(files.len());
        let expected = ["alone", "mounted"].map(|directory| root.join(directory));
        assert_eq!(directories, expected);
    }

    #[test]
    fn a_directory_of_many_or_of_somebody_else_is_not_read_for_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let token = root.join("token");
        fs::write(&token, "").unwrap();
        let (alone, whole) = (vec![token.clone()], vec![token, root.clone()]);
        assert_eq!(with_their_directories(alone.clone()), whole);
        if rustix::process::getuid().is_root() {
            std::os::unix::fs::chown(&root, Some(65534), None).unwrap();
            assert_eq!(with_their_directories(alone.clone()), alone);
            std::os::unix::fs::chown(&root, Some(0), None).unwrap();
        }
        for number in 0..MOST {
            fs::write(root.join(format!("..{number}")), "").unwrap();
        }
        assert_eq!(with_their_directories(alone.clone()), alone);
    }

    #[test]
    fn a_directory_hides_what_is_below_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        for file in ["a/one", "two"] {
            fs::write(root.join(file), "").unwrap();
        }
        let directories = vec![
            root.join("a/b"),
            root.join("a"),
            "/".into(),
            root.join("no"),
        ];
        let files = vec![root.join("a/one"), root.join("two"), root.join("none")];
        let expected = [
            Hidden::Directory(root.join("a")),
            Hidden::File(root.join("two")),
        ];
        assert_eq!(settle(directories, files), expected);
    }

    /// Else a token on a disk that the desktop has mounted is in sight again.
    #[test]
    fn what_stays_of_a_runtime_directory_covers_nothing() {
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        let directories = [
            "/run",
            "/run/user/1000",
            "/run/media/u/disk/state",
            "/run/media/u/disk/state/more",
        ];
        let files = [
            "/run/other.sock",
            "/run/mediators",
            "/run/media/u/disk/state/token",
            "/run/media/u/disk/token",
        ];
        let expected = [
            Hidden::Directory("/run".into()),
            Hidden::Directory("/run/media/u/disk/state".into()),
            Hidden::File("/run/media/u/disk/token".into()),
        ];
        assert_eq!(uncovered(paths(&directories), paths(&files)), expected);
    }
}
