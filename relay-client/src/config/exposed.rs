//! Files of secrets that others can read.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file of a secret that another user than its owner and root can read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExposedFile {
    /// Which file, as it was given.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Everybody, or only its group.
    pub to_all: bool,
}

impl std::fmt::Display for ExposedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let who = match self.to_all {
            true => "every user",
            false => "its group",
        };
        write!(
            f,
            "{who} can read the token in {} (mode {:04o}), and use its session: chmod 600, or the volume's defaultMode: 0400",
            self.path.display(),
            self.mode
        )
    }
}

impl ExposedFile {
    /// Is it one? Links are followed. What is no file (a pipe of the shell's) is nobody else's.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let real = fs::canonicalize(path).ok()?;
        let found = fs::metadata(&real).ok().filter(fs::Metadata::is_file)?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        let directories = real.ancestors().skip(1);
        let modes = directories.map(|directory| fs::metadata(directory).map(|found| found.mode()));
        let modes: Result<Vec<u32>, _> = modes.collect();
        Some(Self {
            path: path.to_owned(),
            mode: found.mode() & 0o777,
            to_all: is_exposed_to_all(found.mode(), own, &modes.ok()?)?,
        })
    }
}

/// Of a file's mode and those of the directories above it: directories that keep others out do so. A group that reads what is another
/// user's is there so that we can.
fn is_exposed_to_all(file: u32, own: bool, directories: &[u32]) -> Option<bool> {
    let passed = |by: u32| directories.iter().all(|mode| mode & by != 0);
    let all = file & 0o004 != 0 && passed(0o001);
    let group = file & 0o040 != 0 && own && passed(0o011);
    (all || group).then_some(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use super::{ExposedFile, is_exposed_to_all};

    #[test]
    fn a_file_is_exposed_by_its_mode_and_by_the_way_to_it() {
        let table = [
            (0o600, true, [0o755, 0o755], None),
            (0o400, true, [0o755, 0o755], None),
            (0o644, true, [0o755, 0o755], Some(true)),
            (0o604, true, [0o755, 0o755], Some(true)),
            (0o640, true, [0o755, 0o755], Some(false)),
            (0o644, true, [0o750, 0o755], Some(false)),
            (0o644, true, [0o711, 0o711], Some(true)),
            (0o644, true, [0o700, 0o755], None),
            (0o644, true, [0o755, 0o700], None),
            // By its group we read what is root's, as a volume with an fsGroup has it.
            (0o640, false, [0o755, 0o755], None),
            (0o644, false, [0o755, 0o755], Some(true)),
        ];
        for (file, own, directories, expected) in table {
            let found = is_exposed_to_all(file, own, &directories);
            assert_eq!(found, expected, "{file:o} {own} {directories:?}");
        }
    }

    #[test]
    fn links_are_followed_and_what_is_no_file_is_not_looked_at() {
        let root = tempfile::tempdir().unwrap();
        let (file, link) = (root.path().join("token"), root.path().join("link"));
        fs::write(&file, "sgh_token").unwrap();
        symlink(&file, &link).unwrap();
        let modes = [(0o700, 0o644), (0o755, 0o600)];
        for (directory, mode) in modes {
            fs::set_permissions(root.path(), Permissions::from_mode(directory)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(ExposedFile::at(&file), None);
            assert_eq!(ExposedFile::at(&link), None);
        }
        for other in ["/no/such/file", "/dev/null", "/"] {
            assert_eq!(ExposedFile::at(Path::new(other)), None, "{other}");
        }
    }
}
