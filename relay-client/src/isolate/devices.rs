//! What of `/dev` a command gets to see. A device is a way out that no namespace holds (a modem, a radio, a channel to the
//! hypervisor, a disk that others read), and nobody knows all there are: so those that every program needs, and no others.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const DEVICES: &str = "/dev";
/// What programs count on. Terminals and shared memory are the host's all the same: see the threat model. Message
/// queues are not: what is mounted there for the command is its own namespace's.
pub(super) const KEPT: [&str; 10] = [
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue",
];

/// What is not for the command.
#[derive(Default)]
pub(super) struct Others {
    pub(super) directories: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

/// All that is there now, but for what every program needs, what is `used`, and what standard input and output lead to.
///
/// # Errors
/// It cannot be listed.
pub(super) fn others(used: &[PathBuf]) -> io::Result<Others> {
    let root = Path::new(DEVICES);
    let mut kept: Vec<PathBuf> = KEPT.iter().map(|name| root.join(name)).collect();
    // A console, or a serial line.
    let streams = (0..3).map(|number| fs::read_link(format!("/proc/self/fd/{number}")));
    let below = |path: &PathBuf| path.starts_with(root) && path != root;
    kept.extend(streams.flatten().chain(used.iter().cloned()).filter(below));
    let mut others = Others::default();
    others.find(root, &kept)?;
    Ok(others)
}

impl Others {
    fn find(&mut self, directory: &Path, kept: &[PathBuf]) -> io::Result<()> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            // What a link leads to is hidden by itself.
            if kind.is_symlink() || kept.iter().any(|one| path.starts_with(one)) {
                continue;
            }
            if !kind.is_dir() {
                self.files.push(path);
            } else if kept.iter().any(|one| one.starts_with(&path)) {
                self.find(&path, kept)?;
            } else {
                self.directories.push(path);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::Others;

    #[test]
    fn what_is_kept_is_left_and_all_around_it_is_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for directory in ["bus/usb", "net", "pts"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["null", "kvm", "bus/usb/1", "bus/usb/2", "net/tun", "pts/0"] {
            fs::write(root.join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("kvm", root.join("link")).unwrap();
        let kept = ["null", "pts", "bus/usb/2"].map(|name| root.join(name));
        let mut others = Others::default();
        others.find(root, &kept).unwrap();
        others.files.sort();
        assert_eq!(
            others.files,
            ["bus/usb/1", "kvm"].map(|name| root.join(name))
        );
        assert_eq!(others.directories, [root.join("net")]);
        // Nothing is there at all.
        others.find(&root.join("none"), &kept).unwrap();
    }
}
