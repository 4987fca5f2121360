//! State of gateways on this machine: keys, tokens, the operators' socket. Variables and defaults say where one may be; of another place its
//! process alone knows, and its socket tells of it.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The operators' socket, in the state directory of each that runs.
const SOCKET: &str = "admin.sock";
/// What else is there, of which any tells that it is one.
const SECRETS: [&str; 6] = [
    "admin.token",
    "ca.key",
    "keys",
    "quic-reset.key",
    "sluicegate.redb",
    "listeners",
];

/// Where the state of one is, by what `serve` goes by.
pub(super) fn named(variable: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = PathBuf> {
    let below = |name: &str, rest: &str| variable(name).map(|base| Path::new(&base).join(rest));
    let directories = [
        below("SLUICEGATE_STATE_DIR", ""),
        below("STATE_DIRECTORY", ""),
        below("XDG_STATE_HOME", "sluicegate"),
        below("HOME", ".local/state/sluicegate"),
    ];
    directories.into_iter().flatten()
}

/// The state of the one whose socket this is: its directory; where the command is to work in that, or below, what is secret of it. Nothing
/// where others may write: no gateway keeps its state there.
pub(super) fn around(socket: &Path, used: &[PathBuf]) -> Vec<PathBuf> {
    let directory = socket.parent().filter(|_| socket.ends_with(SOCKET));
    // What is used is known by its real name, and the socket by the one it was bound by.
    let directory = directory.and_then(|directory| fs::canonicalize(directory).ok());
    let Some(directory) = directory.filter(|directory| is_one(directory)) else {
        return Vec::new();
    };
    if used.iter().any(|used| used.starts_with(&directory)) {
        return SECRETS.map(|name| directory.join(name)).to_vec();
    }
    vec![directory]
}

fn is_one(directory: &Path) -> bool {
    let private = fs::metadata(directory).is_ok_and(|found| found.mode() & 0o022 == 0);
    private && SECRETS.iter().any(|name| directory.join(name).exists())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::{Path, PathBuf},
    };

    use super::{SECRETS, around};

    #[test]
    fn a_socket_beside_secrets_tells_of_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let root = root.as_path();
        let socket = root.join("admin.sock");
        let none: Vec<PathBuf> = Vec::new();
        assert_eq!(around(&socket, &[]), none);
        for name in ["admin.token", "sluicegate.redb"] {
            fs::write(root.join(name), "").unwrap();
            assert_eq!(around(&socket, &[]), [root]);
            assert_eq!(around(&root.join("other.sock"), &[]), none);
            fs::remove_file(root.join(name)).unwrap();
        }
        fs::create_dir(root.join("keys")).unwrap();
        assert_eq!(around(&socket, &[Path::new("/elsewhere").into()]), [root]);
        // The home of whoever serves there.
        for used in [root.to_owned(), root.join("work")] {
            assert_eq!(
                around(&socket, &[used]),
                SECRETS.map(|name| root.join(name))
            );
        }
        // Its socket was bound by a link.
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link");
        symlink(root, &link).unwrap();
        assert_eq!(
            around(&link.join("admin.sock"), &[root.join("work")]),
            SECRETS.map(|name| root.join(name))
        );
        assert_eq!(around(&link.join("admin.sock"), &[]), [root]);
        fs::set_permissions(root, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(around(&socket, &[]), none);
    }
}
