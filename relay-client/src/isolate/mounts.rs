//! What the command sees of the file system: everything as it is, but for the resolver's files, the host's sockets, and
//! what belongs to whoever confines it.

use std::{
    ffi::CStr,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, open, stat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change,
        mount_remount,
    },
};

use super::{
    control::{Hidden, Plan},
    elsewhere,
    hidden::{KEPT, is_runtime},
    mountinfo::{Mount, table},
};

/// Bytes and files of the private file systems are bounded by this; they live in memory.
const SCRATCH: &CStr = c"mode=0700,size=64m";
/// One that other users of the sandbox may look into.
const OPEN: &CStr = c"mode=0755,size=64m";
/// There for whoever wants to put a lock in it.
const LOCKS: &str = "lock";
/// Below these a read-only tree stays writable: they are no disk, and programs need them.
const ALWAYS_WRITABLE: [&str; 4] = ["/proc", "/dev/shm", "/dev/mqueue", "/dev/pts"];

/// The kernel's own knobs. It looks at the user's number only, and a sandbox's root has root's: what is written there acts
/// outside.
const KERNEL: [&str; 6] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
    "/proc/asound",
];

/// Where POSIX message queues have names (mq_overview(7)).
const QUEUES: &str = "/dev/mqueue";
/// Where the user's and the session's keys are told of.
const KEYS: &str = "/proc/keys";

/// What stands where something is hidden, below the supervisor's directory.
const NOTHING: &str = "nothing";
/// For temporary files where the rest is read-only.
pub(super) const TEMPORARY: &str = "tmp";

/// Make it so. What could not be had and does no harm comes back as warnings.
///
/// # Errors
/// Something would stay visible that must not.
pub(super) fn arrange(plan: &Plan) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    // Nothing of this is to be seen outside.
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|error| told("/", error))?;
    // The supervisor's process ids are not ours: a /proc of our own, where the kernel lets us.
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let new = mount("proc", "/proc", "proc", quiet, None);
    if let Err(error) = new {
        // It has files of the user's processes outside that take what is written to them.
        look_only("/proc").map_err(|error| told("/proc", error))?;
        warnings.push(format!(
            "/proc shows the processes outside, by other numbers, and is read-only (no user namespaces inside): a new one cannot be \
             mounted here ({error})"
        ));
    }
    warnings.extend(own_queues(quiet)?);
    for path in KERNEL {
        unless_unreachable(path, look_only(path))?;
    }
    for mount in table()? {
        // What is mounted below the old one came with it, as writable as it is outside.
        let came_along = new.is_err() && mount.path.starts_with("/proc");
        if came_along || elsewhere::is_looked_at_only(&mount) {
            write_protect(&mount)?;
        }
    }
    for path in &plan.writable {
        // A mount of its own, which is left alone below.
        mount_bind_recursive(path, path).map_err(|error| told(path, error))?;
    }
    for hidden in &plan.hidden {
        match hidden {
            Hidden::Directory(path) if is_runtime(path) => cover(path)?,
            Hidden::Directory(path) => unless_unreachable(path, scratch(path))?,
            Hidden::File(_) => {}
        }
    }
    // Whatever this user runs, now or later, has its secrets there.
    fs::create_dir_all(&plan.private)?;
    scratch(&plan.private).map_err(|error| told(&plan.private, error))?;
    fs::create_dir_all(plan.directory.join(TEMPORARY))?;
    let nothing = plan.directory.join(NOTHING);
    fs::write(&nothing, "")?;
    // What is bound from it is read-only as it is: one file for all, which would hand on what is written to any of them.
    look_only(&nothing).map_err(|error| told(&nothing, error))?;
    unless_unreachable(KEYS, mount_bind(&nothing, KEYS))?;
    for (place, (path, text)) in plan.files.iter().enumerate() {
        replace(&plan.directory.join(place.to_string()), path, text)?;
    }
    for hidden in &plan.hidden {
        if let Hidden::File(path) = hidden {
            unless_unreachable(path, mount_bind(&nothing, path))?;
        }
    }
    if plan.read_only {
        read_only(plan)?;
    }
    // The working directory is looked up anew, so that it is in what was mounted over it.
    if let Ok(directory) = std::env::current_dir() {
        std::env::set_current_dir(&directory).map_err(|error| {
            let why = format!(
                "the working directory {} is in a place that is hidden from the command ({error}): start it elsewhere",
                directory.display()
            );
            io::Error::new(error.kind(), why)
        })?;
    }
    Ok(warnings)
}

/// Names of queues are those of the IPC namespace in which their file system was mounted, whoever looks at it: what is there is the host's.
fn own_queues(flags: MountFlags) -> io::Result<Option<String>> {
    match mount("mqueue", QUEUES, "mqueue", flags, None) {
        // A kernel without them has none there.
        Ok(()) | Err(Errno::NODEV) => Ok(None),
        Err(error) if is_unreachable(QUEUES, error) => Ok(None),
        Err(error) => {
            scratch(Path::new(QUEUES)).map_err(|error| told(QUEUES, error))?;
            let error = io::Error::from(error);
            Ok(Some(format!(
                "{QUEUES} does not show the message queues there are: it cannot be mounted here ({error})"
            )))
        }
    }
}

/// It cannot be written to, whoever asks. What is mounted below it is as it was.
fn look_only(path: impl AsRef<Path>) -> Result<(), Errno> {
    let path = path.as_ref();
    // With what is mounted below it, which an ordinary user may not leave out.
    mount_bind_recursive(path, path)?;
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(path, quiet | MountFlags::BIND | MountFlags::RDONLY, c"")
}

fn scratch(path: &Path) -> Result<(), Errno> {
    in_memory(path, SCRATCH)
}

fn in_memory(path: &Path, options: &CStr) -> Result<(), Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", path, "tmpfs", flags, options)
}

/// A directory in memory, for whoever gets the descriptor: this mount namespace is nobody else's.
pub(super) fn unnamed() -> io::Result<OwnedFd> {
    // Some place there is.
    let place = Path::new("/proc");
    scratch(place).map_err(|error| told(place, error))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(place, flags, Mode::empty()).map_err(|error| told(place, error))
}

/// What stays of a directory that is covered.
enum Kept {
    Link(PathBuf),
    Tree(OwnedFd),
}

/// Cover /run: empty, but for what is kept, and for places that programs expect.
fn cover(path: &Path) -> io::Result<()> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut kept = Vec::new();
    for place in KEPT.map(|name| path.join(name)) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(target) = fs::read_link(&place) {
            kept.push((place, Kept::Link(target)));
        } else if let Ok(tree) = open(&place, flags, Mode::empty()) {
            kept.push((place, Kept::Tree(tree)));
        }
    }
    let user = format!("user/{}", rustix::process::getuid().as_raw());
    let expected = [user.as_str(), LOCKS].map(|name| path.join(name));
    let expected = expected.map(|place| place.is_dir().then_some(place));
    in_memory(path, OPEN).map_err(|error| told(path, error))?;
    for (place, one) in kept {
        match one {
            Kept::Link(target) => symlink(target, &place).map_err(failed)?,
            Kept::Tree(tree) => {
                fs::create_dir(&place).map_err(failed)?;
                let from = format!("/proc/self/fd/{}", tree.as_raw_fd());
                mount_bind_recursive(from, &place).map_err(|error| told(&place, error))?;
            }
        }
    }
    for place in expected.into_iter().flatten() {
        let mode = if place.ends_with(LOCKS) {
            0o1777
        } else {
            0o700
        };
        let made = fs::create_dir_all(&place);
        let made = made.and_then(|()| fs::set_permissions(&place, PermissionsExt::from_mode(mode)));
        made.map_err(failed)?;
    }
    Ok(())
}

/// # Errors
/// It was not mounted, and what is at this path stays in reach of the command.
fn unless_unreachable(path: impl AsRef<Path>, mounted: Result<(), Errno>) -> io::Result<()> {
    let path = path.as_ref();
    match mounted {
        Err(error) if !is_unreachable(path, error) => Err(uncovered(path, error)),
        _ => Ok(()),
    }
}

/// What is not there, or cannot be reached, cannot be reached by the command either: it runs as the same user. That a mount fails so does
/// not show it: nothing can be mounted over what has no name any more (ENOENT), as the file at a mount whose source was removed or replaced
/// outside, and a security module may refuse it (EACCES).
fn is_unreachable(path: impl AsRef<Path>, error: Errno) -> bool {
    let says_so = |error: Errno| matches!(error, Errno::NOENT | Errno::ACCESS | Errno::NOTDIR);
    says_so(error)
        && match stat(path.as_ref()) {
            // A directory that was removed is empty, and stays so.
            Ok(found) => found.st_nlink == 0 && FileType::from_raw_mode(found.st_mode).is_dir(),
            Err(error) => says_so(error),
        }
}

/// Nothing can be mounted over what must not be seen.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing can be mounted over {} ({error}), so that the command would see what is there. Nothing was run.\n{remedy}\n\
     To run it without confinement, where the proxy variables are a mere request: --unconfined",
    .path.display()
)]
pub(super) struct Uncovered {
    path: PathBuf,
    error: io::Error,
    remedy: &'static str,
}

fn uncovered(path: &Path, error: Errno) -> io::Error {
    let remedy = match error {
        Errno::NOENT => {
            "It is a mount whose source was removed or replaced outside, as rotation does it. Unmount it or mount it anew (start the \
             container again); to have it replaced, mount a directory with nothing else in it, not the file."
        }
        Errno::ACCESS | Errno::NOTDIR => {
            "What is there was changed meanwhile, or a security module forbids it: see the kernel's log (dmesg)."
        }
        _ => return told(path, error),
    };
    let kind = io::Error::from(error).kind();
    let (path, error) = (path.to_owned(), error.into());
    io::Error::new(
        kind,
        Uncovered {
            path,
            error,
            remedy,
        },
    )
}

fn told(path: impl AsRef<Path>, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(
        error.kind(),
        format!("{}: {error}", path.as_ref().display()),
    )
}

/// Put `text` in the place of a file. One that was in a directory hidden by now is made anew there.
fn replace(own: &Path, path: &Path, text: &str) -> io::Result<()> {
    if path.exists() {
        fs::write(own, text)?;
        return mount_bind(own, path).map_err(|error| uncovered(path, error));
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Every mount read-only, except what is to be written to. Flags a mount has already must be given again.
fn read_only(plan: &Plan) -> io::Result<()> {
    let writable = |at: &Path| {
        let always = ALWAYS_WRITABLE.iter().map(Path::new);
        let mut all = always
            .chain(plan.writable.iter().map(PathBuf::as_path))
            .chain([plan.private.as_path()]);
        all.any(|exempt| at.starts_with(exempt))
    };
    for mount in table()? {
        if !writable(&mount.path) {
            write_protect(&mount)?;
        }
    }
    Ok(())
}

fn write_protect(mount: &Mount) -> io::Result<()> {
    let flags = mount.flags | MountFlags::BIND | MountFlags::RDONLY;
    let path = &mount.path;
    match mount_remount(path, flags, c"") {
        // Something else stands before it by now.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) if is_unreachable(path, error) => Ok(()),
        Err(error) => {
            let error = io::Error::from(error);
            let why = format!("{} cannot be made read-only: {error}", path.display());
            Err(io::Error::new(error.kind(), why))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs::{self, File},
        os::fd::AsRawFd,
    };

    use rustix::io::Errno;

    use super::is_unreachable;

    /// By its descriptor a file is found without a name, as it is where it is mounted.
    fn held(file: &File) -> String {
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }

    #[test]
    fn what_is_found_is_in_reach_whatever_mounting_over_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let (path, removed) = (directory.path().join("file"), directory.path().join("d"));
        fs::write(&path, "").unwrap();
        fs::create_dir(&removed).unwrap();
        for error in [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR] {
            assert!(!is_unreachable(&path, error), "{error}");
            assert!(!is_unreachable(&removed, error), "{error}");
            assert!(is_unreachable(path.join("none"), error), "{error}");
            assert!(is_unreachable(removed.join("none"), error), "{error}");
        }
        assert!(!is_unreachable(removed.join("none"), Errno::PERM));
        let (file, directory) = (File::open(&path).unwrap(), File::open(&removed).unwrap());
        fs::remove_file(&path).unwrap();
        fs::remove_dir(&removed).unwrap();
        assert!(!is_unreachable(held(&file), Errno::NOENT));
        assert!(is_unreachable(held(&directory), Errno::NOENT));
    }
}
