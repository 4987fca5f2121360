//! What is hidden has other names: a bind mount shows the same once more (a chroot's `/run`, a container's `/host/run`), or a part of it, or
//! what it is in. And sockets that are mounts themselves: the kernel's list need not have them, as whoever listens may be in another network
//! namespace (an engine's socket in a container).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    hidden::{covers, is_runtime},
    mountinfo::Mount,
};

/// File systems that are made for the one place: of what else is mounted in a hidden directory, the rest of the machine may be made.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// No program does without these, and they are the host's all the same: see the threat model.
const NEEDED: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Sockets that are mounted.
pub(super) fn sockets(mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    // A whole file system has a directory at its root. It is not looked at, since its server may be gone.
    let parts = mounts.iter().filter(|mount| mount.root != Path::new("/"));
    let sockets = parts.filter(|mount| {
        let found = fs::symlink_metadata(&mount.path);
        found.is_ok_and(|found| found.file_type().is_socket())
    });
    sockets.map(|mount| mount.path.clone())
}

/// Where else what is at these real paths is to be seen. A mount of a part of it stays where the command is to work: it is `used`, or above
/// what is.
pub(super) fn of(places: &BTreeSet<PathBuf>, used: &[PathBuf], mounts: &[Mount]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for place in places {
        let aliases = aliases(place, mounts).into_iter();
        let aliases = aliases.filter(|alias| alias.is_to_be_hidden(place, used));
        found.extend(aliases.map(|alias| alias.path));
    }
    found
}

/// These places with all their other names; the real one of a link, too.
pub(super) fn with_other_names(mut places: Vec<PathBuf>, mounts: &[Mount]) -> Vec<PathBuf> {
    let real: BTreeSet<PathBuf> = places
        .iter()
        .filter_map(|place| fs::canonicalize(place).ok())
        .collect();
    for place in real {
        let aliases = aliases(&place, mounts).into_iter();
        let aliases = aliases.filter(|alias| alias.of == place && !alias.is_part);
        places.extend(aliases.map(|alias| alias.path));
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Another name, by the table of mounts.
#[derive(Debug)]
struct Alias {
    path: PathBuf,
    /// What is there, by its name at the hidden place.
    of: PathBuf,
    /// Is it a mount of something that is below the place?
    is_part: bool,
}

impl Alias {
    fn is_to_be_hidden(&self, place: &Path, used: &[PathBuf]) -> bool {
        if NEEDED.iter().any(|one| Path::new(one) == self.path) {
            return false;
        }
        if !self.is_part {
            return self.is_in_sight();
        }
        let is_used = used.iter().any(|used| used.starts_with(&self.path));
        // A single file of a runtime directory leads nowhere (/etc/resolv.conf of containers).
        let is_harmless = is_runtime(place) && self.path.is_file();
        !is_used && !is_harmless
    }

    /// Something else may be mounted over it, or over what it is another name of.
    fn is_in_sight(&self) -> bool {
        let number = |path: &Path| {
            let found = fs::symlink_metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        number(&self.path).is_some_and(|found| number(&self.of) == Some(found))
    }
}

/// What is to be seen at a path: a file system, from `root` on.
struct Shown<'m> {
    path: PathBuf,
    device: &'m str,
    root: PathBuf,
}

/// All that is at a place, with what is mounted in memory below it.
fn shown<'m>(place: &Path, mounts: &'m [Mount]) -> impl Iterator<Item = Shown<'m>> {
    let above = mounts.iter().filter(|mount| place.starts_with(&mount.path));
    let nearest = above.max_by_key(|mount| mount.path.as_os_str().len());
    let here = nearest.and_then(|mount| {
        let rest = place.strip_prefix(&mount.path).ok()?;
        Some(Shown {
            path: place.to_owned(),
            device: &mount.device,
            root: below(&mount.root, rest),
        })
    });
    let inside = mounts.iter().filter(move |mount| {
        let kind = mount.kind.as_str();
        IN_MEMORY.contains(&kind) && mount.path != place && mount.path.starts_with(place)
    });
    here.into_iter().chain(inside.map(|mount| Shown {
        path: mount.path.clone(),
        device: &mount.device,
        root: mount.root.clone(),
    }))
}

fn aliases(place: &Path, mounts: &[Mount]) -> Vec<Alias> {
    let mut found = Vec::new();
    for shown in shown(place, mounts) {
        for other in mounts.iter().filter(|other| other.device == shown.device) {
            let alias = if let Ok(rest) = shown.root.strip_prefix(&other.root) {
                Alias {
                    path: below(&other.path, rest),
                    of: shown.path.clone(),
                    is_part: false,
                }
            } else if let Ok(rest) = other.root.strip_prefix(&shown.root) {
                Alias {
                    path: other.path.clone(),
                    of: below(&shown.path, rest),
                    is_part: true,
                }
            } else {
                continue;
            };
            // Not the place itself, nor what is kept of it.
            if covers(place, &alias.of) && !covers(place, &alias.path) {
                found.push(alias);
            }
        }
    }
    found
}

/// Without a slash behind it where nothing follows: that would be a directory's name.
fn below(base: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(rest)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::{Alias, aliases, of, sockets, with_other_names};
    use crate::isolate::mountinfo::{Mount, parse};

    const TABLE: &str = "\
        1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:20 / /run rw - tmpfs tmpfs rw\n\
        3 2 0:21 / /run/user/1000 rw - tmpfs tmpfs rw\n\
        4 1 0:20 / /host/run rw - tmpfs tmpfs rw\n\
        5 1 0:20 /user /mnt/user rw - tmpfs tmpfs rw\n\
        6 1 0:21 / /mnt/thousand rw - tmpfs tmpfs rw\n\
        7 1 0:20 /wrappers /mnt/wrappers rw - tmpfs tmpfs rw\n\
        8 1 8:1 / /mnt/disk rw - ext4 /dev/sda1 rw\n\
        9 2 8:1 /home /run/host/home rw - ext4 /dev/sda1 rw\n\
        10 1 8:1 /home/u /homes rw - ext4 /dev/sda1 rw\n\
        11 1 0:22 / /dev/shm rw - tmpfs tmpfs rw\n\
        12 2 0:22 / /run/shm rw - tmpfs tmpfs rw";

    fn mounts(table: &str) -> Vec<Mount> {
        table.lines().map(|line| parse(line).unwrap()).collect()
    }

    fn found(place: &str) -> Vec<(String, String, bool)> {
        let text = |path: &Path| path.display().to_string();
        let found = aliases(Path::new(place), &mounts(TABLE)).into_iter();
        found
            .map(|one| (text(&one.path), text(&one.of), one.is_part))
            .collect()
    }

    fn alias(path: &str, of: &str, is_part: bool) -> (String, String, bool) {
        (path.to_owned(), of.to_owned(), is_part)
    }

    #[test]
    fn a_directory_has_the_names_of_all_mounts_that_show_it() {
        // What a disk holds that is mounted below it as well is not of it.
        let expected = [
            alias("/host/run", "/run", false),
            alias("/mnt/user", "/run/user", true),
            alias("/mnt/thousand", "/run/user/1000", false),
            alias("/dev/shm", "/run/shm", false),
        ];
        assert_eq!(found("/run"), expected);
        let state = "/home/u/state";
        let expected = [
            alias("/mnt/disk/home/u/state", state, false),
            alias("/run/host/home/u/state", state, false),
            alias("/homes/state", state, false),
        ];
        assert_eq!(found(state), expected);
        assert_eq!(found("/home/u")[2], alias("/homes", "/home/u", false));
        assert_eq!(found("/home")[2], alias("/homes", "/home/u", true));
        assert!(found("/").is_empty());
    }

    #[test]
    fn a_file_has_them_too() {
        let expected = [
            alias("/host/run/user/socket", "/run/user/socket", false),
            alias("/mnt/user/socket", "/run/user/socket", false),
        ];
        assert_eq!(found("/run/user/socket"), expected);
        assert_eq!(found("/mnt/user/socket").len(), 2);
    }

    #[test]
    fn what_is_needed_or_used_stays() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("work/deep")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let part = |name: &str| Alias {
            path: root.join(name),
            of: Path::new("/run").join(name),
            is_part: true,
        };
        let (runtime, other) = (Path::new("/run"), Path::new("/other"));
        assert!(part("work").is_to_be_hidden(runtime, &[]));
        assert!(!part("work").is_to_be_hidden(runtime, &[root.join("work/deep")]));
        assert!(!part("file").is_to_be_hidden(runtime, &[]));
        assert!(part("file").is_to_be_hidden(other, &[]));
        let whole = |path: &str, of: &str| Alias {
            path: path.into(),
            of: of.into(),
            is_part: false,
        };
        assert!(whole("/proc", "/proc").is_to_be_hidden(other, &["/proc/self".into()]));
        assert!(!whole("/proc", "/").is_to_be_hidden(other, &[]));
        assert!(!whole("/proc/none", "/none").is_to_be_hidden(other, &[]));
        assert!(!whole("/tmp", "/tmp").is_to_be_hidden(other, &[]));
    }

    #[test]
    fn a_place_that_is_used_has_other_names_as_well() {
        let table = "1 0 0:9 / / rw - ext4 d rw\n2 1 0:9 / /mnt rw - ext4 d rw";
        let mounts = mounts(table);
        // There on every system.
        let found = with_other_names(vec!["/proc/sys".into(), "/no/such".into()], &mounts);
        let expected = ["/proc/sys", "/no/such", "/mnt/proc/sys"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    /// As homes are on systems that keep them in `/var/home`.
    #[test]
    fn a_place_that_is_used_by_a_link_is_known_by_its_real_name_too() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let found = with_other_names(vec![root.join("link")], &[]);
        assert_eq!(found, [root.join("link"), root.join("real")]);
    }

    /// The table says that one directory is another, and the file system that it is not.
    #[test]
    fn nothing_is_hidden_that_is_not_in_sight() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("one")).unwrap();
        fs::create_dir_all(root.join("two")).unwrap();
        let table = format!(
            "1 0 0:9 /x {0}/one rw - tmpfs t rw\n2 0 0:9 /x {0}/two rw - tmpfs t rw",
            root.display()
        );
        let places = BTreeSet::from([root.join("one")]);
        let mounts = mounts(&table);
        assert_eq!(aliases(&root.join("one"), &mounts).len(), 1);
        assert!(of(&places, &[], &mounts).is_empty());
    }

    #[test]
    fn a_socket_that_is_mounted_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let line = |name: &str, seen: &str| {
            format!("1 0 0:9 {seen} {}/{name} rw - tmpfs t rw\n", root.display())
        };
        let table = line("socket", "/s") + &line("file", "/f") + &line("none", "/n");
        let found: Vec<_> = sockets(&mounts(&table)).collect();
        assert_eq!(found, [root.join("socket")]);
        // Not asked for.
        assert_eq!(sockets(&mounts(&line("socket", "/"))).count(), 0);
    }
}
