//! Is there anybody but our own user in this network namespace? It is asked of what a socket table no longer says: whose a
//! connection was that is closed already.
//!
//! What can be seen says it: processes of the namespace, and the sockets of those that are in another process namespace. Who has
//! been seen once is never forgotten.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

/// Somebody else has been seen.
static OTHERS: AtomicBool = AtomicBool::new(false);

/// Another user's process has been met.
pub(super) fn met_another() {
    OTHERS.store(true, Ordering::Relaxed);
}

/// Nobody else is here, as far as can be seen, or has been seen before.
pub(super) fn are_we(own: u32) -> bool {
    if OTHERS.load(Ordering::Relaxed) {
        return false;
    }
    match looked_through(Path::new("/proc"), own) {
        Ok(true) => true,
        Ok(false) => {
            met_another();
            false
        }
        Err(error) => {
            tracing::debug!(%error, "who else is in this network namespace cannot be seen");
            false
        }
    }
}

/// # Errors
/// What has to be read cannot be: whoever is there is not seen.
fn looked_through(proc: &Path, own: u32) -> io::Result<bool> {
    let mounts = fs::read_to_string(proc.join("self/mountinfo"))?;
    if mounts.lines().any(hides_processes) {
        return Ok(false);
    }
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = match fs::read_to_string(proc.join("self/net").join(table)) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if text.lines().skip(1).any(|row| is_anothers(row, own)) {
            return Ok(false);
        }
    }
    let here = fs::read_link(proc.join("self/ns/net"))?;
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name
            .to_str()
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        {
            continue;
        }
        // One that has ended meanwhile has no status; one that does not say where it is may be here.
        let status = match fs::read_to_string(entry.path().join("status")) {
            Ok(status) => status,
            // Says nothing of who is there, and passes.
            Err(error) if is_exhaustion(&error) => return Err(error),
            Err(_) if entry.path().exists() => return Ok(false),
            Err(_) => continue,
        };
        let elsewhere = fs::read_link(entry.path().join("ns/net")).is_ok_and(|net| net != here);
        if !elsewhere && !is_all_of(&status, own) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Nothing can be opened now, whatever it is.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM)
    )
}

/// Mounted so that it shows the processes of some and not of others (proc(5)).
fn hides_processes(mount: &str) -> bool {
    mount.contains(" - proc ") && (mount.contains("hidepid=") || mount.contains("subset="))
}

/// A socket that a process holds, of another uid (proc_pid_net(5)).
fn is_anothers(row: &str, own: u32) -> bool {
    let mut columns = row.split_ascii_whitespace();
    let uid = columns.nth(7).and_then(|uid| uid.parse::<u32>().ok());
    let inode = columns.nth(1);
    inode != Some("0") && uid != Some(own)
}

/// Real, effective, saved and filesystem uid (proc_pid_status(5)).
fn is_all_of(status: &str, own: u32) -> bool {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.is_some_and(|uids| {
        uids.split_ascii_whitespace()
            .all(|uid| uid.parse::<u32>() == Ok(own))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::{is_exhaustion, looked_through};

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn process(proc: &Path, pid: &str, uid: u32, net: &str) {
        let place = proc.join(pid);
        fs::create_dir_all(place.join("ns")).unwrap();
        let status = format!("Name:\tsh\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t0\t0\t0\t0\n");
        fs::write(place.join("status"), status).unwrap();
        symlink(net, place.join("ns/net")).unwrap();
    }

    fn sockets(proc: &Path, rows: &[(u32, u32)]) {
        let rows: String = rows
            .iter()
            .map(|(uid, inode)| {
                format!("   0: 0100007F:1F90 0100007F:C350 01 0:0 00:0 00000000 {uid} 0 {inode} 1 ffff\n")
            })
            .collect();
        fs::write(proc.join("self/net/tcp"), format!("{HEAD}{rows}")).unwrap();
    }

    /// Ourselves, root, with a socket and one that is closed.
    fn stage() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let proc = directory.path();
        process(proc, "self", 0, "net:[1]");
        process(proc, "1", 0, "net:[1]");
        fs::create_dir_all(proc.join("self/net")).unwrap();
        fs::write(
            proc.join("self/mountinfo"),
            "22 1 0:5 / /proc rw - proc proc rw\n",
        )
        .unwrap();
        sockets(proc, &[(0, 4242), (0, 0)]);
        directory
    }

    #[test]
    fn a_want_of_descriptors_is_nobody() {
        for (code, exhausted) in [(24, true), (23, true), (12, true), (13, false), (2, false)] {
            let error = std::io::Error::from_raw_os_error(code);
            assert_eq!(is_exhaustion(&error), exhausted, "{error}");
        }
    }

    #[test]
    fn whoever_can_be_seen_is_seen() {
        let (alone, in_another_network) = (stage(), stage());
        assert!(looked_through(alone.path(), 0).unwrap());
        process(in_another_network.path(), "7", 1000, "net:[2]");
        assert!(looked_through(in_another_network.path(), 0).unwrap());

        let (another, silent, socket, hidden) = (stage(), stage(), stage(), stage());
        process(another.path(), "7", 1000, "net:[1]");
        fs::create_dir(silent.path().join("7")).unwrap();
        sockets(socket.path(), &[(0, 4242), (1000, 4343)]);
        let hides = "22 1 0:5 / /proc rw - proc proc rw,hidepid=invisible\n";
        fs::write(hidden.path().join("self/mountinfo"), hides).unwrap();
        for seen in [&another, &silent, &socket, &hidden] {
            assert!(!looked_through(seen.path(), 0).unwrap());
        }
        fs::remove_file(alone.path().join("self/ns/net")).unwrap();
        assert!(looked_through(alone.path(), 0).is_err());
    }
}
