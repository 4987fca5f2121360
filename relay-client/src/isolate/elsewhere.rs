//! File systems that are the kernel's, wherever they are mounted. What stands in the usual places is dealt with by its path; a chroot or
//! somebody's `/mnt/proc` has the same again, and a bind mount has a part of it.

use std::path::{Path, PathBuf};

use super::{devices, mountinfo::Mount};

/// Most of them are below /sys: control groups of the user's processes outside, power states, drivers, what the kernel is to run a kind of
/// program with. What is written there acts outside.
const OF_THE_KERNEL: [&str; 18] = [
    "sysfs",
    "cgroup",
    "cgroup2",
    "binfmt_misc",
    "bpf",
    "configfs",
    "debugfs",
    "efivarfs",
    "fusectl",
    "nfsd",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smackfs",
    "tracefs",
    "xenfs",
];

/// Must nobody write there?
pub(super) fn is_looked_at_only(mount: &Mount) -> bool {
    mount.path.starts_with("/sys") || OF_THE_KERNEL.contains(&&*mount.kind)
}

/// Where processes, devices and message queues of the host's are to be seen besides `/proc`, `/dev` and `/dev/mqueue`, which have rules of
/// their own: that is hidden.
pub(super) fn that_is_hidden(mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    let seen = hidden(mounts).filter(|mount| mount.is_in_sight());
    seen.map(|mount| mount.path.clone())
}

fn hidden(mounts: &[Mount]) -> impl Iterator<Item = &Mount> {
    let dev = mounts.iter().find(|one| one.path == Path::new("/dev"));
    mounts.iter().filter(move |mount| {
        let processes = mount.kind == "proc" && !mount.path.starts_with("/proc");
        // Of the IPC namespace in which it was mounted.
        let queues = mount.kind == "mqueue" && !mount.path.starts_with("/dev/mqueue");
        processes || queues || (!mount.path.starts_with("/dev") && has_devices(mount, dev))
    })
}

/// Has it devices that are not for every program? Containers have them in a tmpfs, and cover files of /proc by its `/dev/null`.
fn has_devices(mount: &Mount, dev: Option<&Mount>) -> bool {
    let same = dev.filter(|dev| dev.device == mount.device);
    let of_dev = same.and_then(|dev| mount.root.strip_prefix(&dev.root).ok());
    let of_any = || {
        let part = mount.root.strip_prefix("/").ok();
        part.filter(|_| mount.kind == "devtmpfs")
    };
    let for_all = |part: &Path| devices::KEPT.iter().any(|name| part.starts_with(name));
    of_dev.or_else(of_any).is_some_and(|part| !for_all(part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Mount, is_looked_at_only};
    use crate::isolate::mountinfo::parse;

    fn mounts(table: &str) -> Vec<Mount> {
        table.lines().map(|line| parse(line).unwrap()).collect()
    }

    fn hidden(table: &str) -> Vec<String> {
        let mounts = mounts(table);
        let found = super::hidden(&mounts);
        found.map(|one| one.path.display().to_string()).collect()
    }

    #[test]
    fn processes_devices_and_queues_are_found_by_what_they_are() {
        let table = "\
            1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 0:20 / /proc rw - proc proc rw\n\
            3 1 0:5 / /dev rw - devtmpfs udev rw\n\
            4 3 0:21 / /dev/pts rw - devpts devpts rw\n\
            5 1 0:20 / /srv/root/proc rw - proc proc rw\n\
            6 1 0:20 /sys /mnt/sysctl rw - proc proc rw\n\
            7 1 0:5 / /srv/root/dev rw - devtmpfs udev rw\n\
            8 1 0:5 /null /srv/other/dev/null rw - devtmpfs udev rw\n\
            9 1 0:5 /bus/usb /mnt/usb rw - devtmpfs udev rw\n\
            10 1 8:1 /srv /mnt/srv rw - ext4 /dev/sda1 rw\n\
            11 3 0:22 / /dev/mqueue rw - mqueue mqueue rw\n\
            12 1 0:22 / /mnt/queues rw - mqueue mqueue rw\n\
            13 1 0:22 /one /mnt/queue rw - mqueue mqueue rw";
        let expected = [
            "/srv/root/proc",
            "/mnt/sysctl",
            "/srv/root/dev",
            "/mnt/usb",
            "/mnt/queues",
            "/mnt/queue",
        ];
        assert_eq!(hidden(table), expected);
    }

    /// Their runtimes cover parts of /proc and /sys.
    #[test]
    fn what_a_container_needs_is_left() {
        let table = "\
            1 0 0:50 / / rw - overlay overlay rw\n\
            2 1 0:51 / /proc rw - proc proc rw\n\
            3 1 0:52 / /dev rw - tmpfs tmpfs rw\n\
            4 1 0:53 / /sys ro - sysfs sysfs ro\n\
            5 4 0:54 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n\
            6 3 0:5 /null /dev/null rw - devtmpfs udev rw\n\
            7 2 0:51 /sys /proc/sys ro - proc proc rw\n\
            8 2 0:52 /null /proc/kcore rw - tmpfs tmpfs rw\n\
            9 2 0:5 /null /proc/keys rw - devtmpfs udev rw\n\
            10 4 0:55 / /sys/firmware ro - tmpfs tmpfs ro\n\
            11 1 8:1 /hosts /etc/hosts rw - ext4 /dev/sda1 rw";
        assert_eq!(hidden(table), Vec::<String>::new());
        // Bound from the container's own, which is no devtmpfs.
        let bound = format!("{table}\n12 1 0:52 / /srv/root/dev rw - tmpfs tmpfs rw");
        assert_eq!(hidden(&bound), ["/srv/root/dev"]);
        // One that is part of the root's own file system.
        let table = "\
            1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
            2 1 8:1 /dev /dev rw - ext4 /dev/sda1 rw\n\
            3 1 8:1 /home /home rw - ext4 /dev/sda1 rw\n\
            4 1 8:1 /dev /srv/dev rw - ext4 /dev/sda1 rw";
        assert_eq!(hidden(table), ["/srv/dev"]);
    }

    #[test]
    fn what_acts_outside_is_looked_at_only_wherever_it_is() {
        let table = [
            ("1 0 0:4 / /mnt/sys rw - sysfs sysfs rw", true),
            ("1 0 0:4 /a /b rw - cgroup2 cgroup rw", true),
            (
                "1 0 0:4 / /proc/sys/fs/binfmt_misc rw - binfmt_misc x rw",
                true,
            ),
            ("1 0 0:4 / /sys/whatever rw - tmpfs tmpfs rw", true),
            ("1 0 0:4 / /system rw - tmpfs tmpfs rw", false),
            ("1 0 0:4 / /proc rw - proc proc rw", false),
        ];
        for (line, expected) in table {
            let found = is_looked_at_only(&parse(line).unwrap());
            assert_eq!(found, expected, "{line}");
        }
    }
}
