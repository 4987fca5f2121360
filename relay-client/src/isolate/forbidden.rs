//! Where the kernel does not let us confine: which knob it is, and what to do about it.

use std::{fs, io};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What was being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A user namespace.
    User,
    /// The others, with the capabilities that come with it.
    Others,
    /// Writing the map of ids.
    Map,
}

/// How many namespaces of a kind there may be: `user.max_net_namespaces` and the like.
const KINDS: [&str; 5] = ["user", "net", "mnt", "pid", "ipc"];

/// What the system says of itself. To be read before there is a user namespace of our own, which has knobs of its own and
/// is bound by these all the same.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Knobs {
    /// `kernel.unprivileged_userns_clone` (Debian's kernels).
    unprivileged: Option<u64>,
    /// The kinds of namespaces of which there may be none.
    none: Vec<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu from 23.10).
    apparmor: Option<u64>,
    /// Is a seccomp filter in force already, as in containers?
    filtered: bool,
    /// This program.
    program: String,
}

impl Knobs {
    /// Read them.
    pub(super) fn read() -> Self {
        let number = |knob: &str| {
            let text = fs::read_to_string(format!("/proc/sys/{knob}")).ok()?;
            text.trim().parse().ok()
        };
        let kinds = KINDS.map(str::to_owned).into_iter();
        let none = kinds.filter(|kind| number(&limit(kind).replace('.', "/")) == Some(0));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let program = std::env::current_exe().unwrap_or_default();
        Self {
            unprivileged: number("kernel/unprivileged_userns_clone"),
            none: none.collect(),
            apparmor: number("kernel/apparmor_restrict_unprivileged_userns"),
            filtered: status
                .lines()
                .any(|line| line.starts_with("Seccomp:") && line.ends_with('2')),
            program: program.display().to_string(),
        }
    }

    /// Why `step` failed with `error`, and what to do.
    pub(super) fn explain(&self, step: Step, error: &io::Error) -> String {
        let remedy = self.remedy(step, error);
        let what = match step {
            Step::User => "a user namespace",
            Step::Others => "network, mount and process namespaces",
            Step::Map => "the user namespace's map of ids",
        };
        format!(
            "this system does not let an ordinary user make {what} ({error}), so the command cannot be confined. \
             Nothing was run.\n{remedy}\n\
             To run it without confinement, where the proxy variables are a mere request: --unconfined"
        )
    }

    fn remedy(&self, step: Step, error: &io::Error) -> String {
        let errno = Errno::from_io_error(error);
        if self.unprivileged == Some(0) {
            return "kernel.unprivileged_userns_clone is 0. As root: sysctl -w kernel.unprivileged_userns_clone=1".to_owned();
        }
        let matters = |kind: &&String| (*kind == "user") == (step == Step::User);
        let none: Vec<String> = self
            .none
            .iter()
            .filter(matters)
            .map(|kind| limit(kind))
            .collect();
        if !none.is_empty() {
            let remedies = none.iter().map(|limit| format!(" {limit}=15000"));
            return format!(
                "{} is 0. As root: sysctl -w{}",
                none.join(" and "),
                remedies.collect::<String>()
            );
        }
        if self.apparmor == Some(1) && step != Step::User {
            return format!(
                "kernel.apparmor_restrict_unprivileged_userns is 1: AppArmor gives user namespaces of unknown programs no \
                 rights. As root, let this program have them:\n\
                 \x20   cat >/etc/apparmor.d/sluicegate <<'EOF'\n\
                 \x20   abi <abi/4.0>,\n\
                 \x20   include <tunables/global>\n\
                 \x20   profile sluicegate {} flags=(unconfined) {{\n\
                 \x20     userns,\n\
                 \x20   }}\n\
                 \x20   EOF\n\
                 \x20   apparmor_parser -r /etc/apparmor.d/sluicegate",
                self.program
            );
        }
        match errno {
            Some(Errno::NOSPC | Errno::USERS) => {
                "There are too many namespaces, or too many inside one another: see user.max_user_namespaces, \
                 user.max_net_namespaces, user.max_mnt_namespaces, user.max_pid_namespaces and \
                 user.max_ipc_namespaces, and raise the one that is reached or end what holds them."
                    .to_owned()
            }
            Some(Errno::INVAL | Errno::NOSYS) => {
                "The kernel is built without user or network namespaces (CONFIG_USER_NS, CONFIG_NET_NS).".to_owned()
            }
            Some(Errno::ROFS) => {
                "/proc is read-only here, as it is in a sandbox or a container that cannot have one of its own: run it outside of that."
                    .to_owned()
            }
            _ if self.filtered => {
                "A seccomp filter forbids it, as container runtimes do by default. Give the container a profile that \
                 allows unshare, clone and mount (docker run --security-opt seccomp=FILE), or leave the confinement to \
                 the runtime: no network for the container but a socket to `sluicegate-relay up`."
                    .to_owned()
            }
            _ => "A security module, a chroot or a container's policy forbids it: see the kernel's log (dmesg).".to_owned(),
        }
    }
}

fn limit(kind: &str) -> String {
    format!("user.max_{kind}_namespaces")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Knobs, Step};

    #[test]
    fn the_knob_is_named() {
        let none = Knobs::default();
        let without = |kinds: &[&str]| Knobs {
            none: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            ..Knobs::default()
        };
        let apparmor = Knobs {
            apparmor: Some(1),
            program: "/opt/bin/sluicegate".into(),
            ..none.clone()
        };
        let table = [
            (
                Knobs {
                    unprivileged: Some(0),
                    ..none.clone()
                },
                Step::User,
                1,
                "sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                without(&["user", "net"]),
                Step::User,
                28,
                "user.max_user_namespaces is 0. As root: sysctl -w user.max_user_namespaces=15000\n",
            ),
            (
                without(&["net"]),
                Step::Others,
                28,
                "sysctl -w user.max_net_namespaces=15000",
            ),
            (
                without(&["mnt", "pid"]),
                Step::Others,
                28,
                "sysctl -w user.max_mnt_namespaces=15000 user.max_pid_namespaces=15000",
            ),
            (
                apparmor,
                Step::Others,
                1,
                "profile sluicegate /opt/bin/sluicegate flags=(unconfined)",
            ),
            (none.clone(), Step::User, 28, "too many namespaces"),
            (none.clone(), Step::User, 22, "CONFIG_USER_NS"),
            (
                Knobs {
                    filtered: true,
                    ..none.clone()
                },
                Step::User,
                1,
                "--security-opt seccomp",
            ),
            (none.clone(), Step::Map, 30, "/proc is read-only"),
            (none, Step::Map, 1, "dmesg"),
        ];
        for (knobs, step, errno, wanted) in table {
            let told = knobs.explain(step, &io::Error::from_raw_os_error(errno));
            assert!(told.contains(wanted), "{told}");
            assert!(told.contains("--unconfined"), "{told}");
        }
    }
}
