//! What is mounted, as the kernel tells it (proc_pid_mountinfo(5)).

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use rustix::{
    fs::{major, minor},
    mount::MountFlags,
};

const TABLE: &str = "/proc/self/mountinfo";

/// A mount there is.
pub(super) struct Mount {
    pub(super) path: PathBuf,
    /// What of its file system is seen there: `/`, but for bind mounts of parts.
    pub(super) root: PathBuf,
    /// Its file system's number, `MAJOR:MINOR`.
    pub(super) device: String,
    pub(super) flags: MountFlags,
    /// Its file system's type.
    pub(super) kind: String,
}

impl Mount {
    /// Is its file system what is found under its path? Something may stand before it, and who looks may not get there.
    pub(super) fn is_in_sight(&self) -> bool {
        let found = fs::symlink_metadata(&self.path).map(|found| found.dev());
        found.is_ok_and(|device| self.device == format!("{}:{}", major(device), minor(device)))
    }
}

/// All there are; of several at one place the last, which is the one that is seen.
///
/// # Errors
/// The table cannot be read.
pub(super) fn table() -> io::Result<Vec<Mount>> {
    let table = fs::read(TABLE)
        .map_err(|error| io::Error::new(error.kind(), format!("{TABLE}: {error}")))?;
    // Names are any bytes. Those that are no ASCII are written as the kernel writes blanks.
    let table: String = table
        .iter()
        .map(|byte| match byte.is_ascii() {
            true => char::from(*byte).to_string(),
            false => format!("\\{byte:03o}"),
        })
        .collect();
    let mounts = table.lines().filter_map(parse);
    let by_place: BTreeMap<_, _> = mounts.map(|mount| (mount.path.clone(), mount)).collect();
    Ok(by_place.into_values().collect())
}

/// A line.
pub(super) fn parse(line: &str) -> Option<Mount> {
    let (line, of_the_file_system) = line.split_once(" - ")?;
    let mut columns = line.split(' ');
    let device = columns.nth(2)?.to_owned();
    let (root, path) = (unescape(columns.next()?), unescape(columns.next()?));
    let mut flags = MountFlags::empty();
    for option in columns.next()?.split(',') {
        flags |= match option {
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        };
    }
    let kind = of_the_file_system.split(' ').next()?.to_owned();
    Some(Mount {
        path,
        root,
        device,
        flags,
        kind,
    })
}

/// Blanks, line ends and backslashes stand as three octal digits there.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(escaped) if byte == b'\\' => {
                bytes.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

    use rustix::mount::MountFlags;

    #[test]
    fn a_line_of_mountinfo() {
        let line =
            "36 35 98:0 /mnt1 /mnt\\040a\\134b rw,nosuid,noatime master:1 - ext3 /dev/root rw";
        let found = super::parse(line).unwrap();
        assert_eq!(found.path, Path::new("/mnt a\\b"));
        assert_eq!(found.root, Path::new("/mnt1"));
        assert_eq!(found.device, "98:0");
        assert_eq!(found.flags, MountFlags::NOSUID | MountFlags::NOATIME);
        assert_eq!(found.kind, "ext3");
        let odd = super::parse("36 35 98:0 / /a\\012b\\377 rw - tmpfs x rw").unwrap();
        assert_eq!(odd.path, Path::new(OsStr::from_bytes(b"/a\nb\xff")));
        assert!(super::parse("36 35 98:0").is_none());
    }

    #[test]
    fn what_is_mounted_is_in_sight_unless_something_stands_before_it() {
        let mounts = super::table().unwrap();
        let mut proc = mounts
            .into_iter()
            .find(|mount| mount.path == Path::new("/proc"))
            .unwrap();
        assert_eq!(proc.kind, "proc");
        assert!(proc.is_in_sight());
        proc.device = "0:0".to_owned();
        assert!(!proc.is_in_sight());
        proc.path = "/no/such/place".into();
        assert!(!proc.is_in_sight());
    }
}
