//! What namespaces do not hold: a seccomp filter for the command and all that come of it.
//!
//! - Sockets of other families than unix, IPv4, IPv6 and netlink: AF_VSOCK reaches the hypervisor from any network
//!   namespace, and others are not tied to one either.
//! - Of IPv4 and IPv6 sockets all but TCP, UDP and ICMP, which are captured, refused and never had: what a kernel has besides for everybody
//!   (UDP-Lite, SCTP, DCCP) the rules of the sandbox's network know nothing of. Raw ones are left to the kernel, which wants a right for them.
//! - io_uring, which makes sockets without a system call that a filter sees.
//! - Keys of the kernel's: its answer to `request_key` is a program that it runs as root, in the host's namespaces (of type
//!   `dns_resolver`, one that asks name servers), and the user's keyrings are those outside.
//! - TIOCSTI and TIOCLINUX, which type into the terminal that the shell outside reads.
//! - Control group namespaces. In one that a user owns, cgroup2 may be mounted anew, writable whatever is made of the mounts
//!   there are, and the user's processes outside killed or frozen in it. No other namespace gives a right to mount it.
//! - clone3, whose flags a filter cannot read: the kernel is one that does not have it, and C libraries use clone then.

use std::{collections::BTreeMap, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];
/// Those that are addressed by IP, of which protocols …
const INTERNET: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
/// … these are known to whoever captures or refuses: the type's own, and one that is TCP as well on the wire.
const PROTOCOLS: [i32; 6] = [
    libc::IPPROTO_IP,
    libc::IPPROTO_ICMP,
    libc::IPPROTO_TCP,
    libc::IPPROTO_UDP,
    libc::IPPROTO_ICMPV6,
    libc::IPPROTO_MPTCP,
];
/// The types that may be of one of these.
const TYPES: [i32; 2] = [libc::SOCK_STREAM, libc::SOCK_DGRAM];
/// And those that never are: their own protocols are others.
const FOREIGN_TYPES: [i32; 3] = [libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP];
/// Flags of sockets stand beside their type.
const TYPE: u64 = 0xf;
/// TIOCSTI and TIOCLINUX, as numbers: their type in `libc` is another one with each C library.
const TYPING: [u64; 2] = [0x5412, 0x541c];
/// The flag of clone and unshare for a control group namespace.
const CONTROL_GROUPS: u64 = 0x0200_0000;
/// Of the x32 ABI's system calls, which share the architecture's number with the others.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// Apply to this thread, for good.
///
/// # Errors
/// The kernel has no seccomp filters, or this machine's architecture is not known.
pub(super) fn apply() -> io::Result<()> {
    for program in programs().map_err(io::Error::other)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 4], seccompiler::BackendError> {
    let mut families = Vec::new();
    for family in FAMILIES {
        let family = u64::from(family.unsigned_abs());
        families.push(SeccompCondition::new(0, Length::Dword, Is::Ne, family)?);
    }
    let foreign = vec![SeccompRule::new(families)?];
    let sockets = rules([
        (libc::SYS_socket, foreign.clone()),
        (libc::SYS_socketpair, foreign),
    ]);
    let protocols = rules([(libc::SYS_socket, foreign_protocols()?)]);
    let mut typing = Vec::new();
    for request in TYPING {
        let is = SeccompCondition::new(1, Length::Dword, Is::Eq, request)?;
        typing.push(SeccompRule::new(vec![is])?);
    }
    let flag = Is::MaskedEq(CONTROL_GROUPS);
    let asked = SeccompCondition::new(0, Length::Dword, flag, CONTROL_GROUPS)?;
    let control_groups = vec![SeccompRule::new(vec![asked])?];
    let others = rules([
        (libc::SYS_ioctl, typing),
        (libc::SYS_clone, control_groups.clone()),
        (libc::SYS_unshare, control_groups),
        (libc::SYS_io_uring_setup, Vec::new()),
        (libc::SYS_add_key, Vec::new()),
        (libc::SYS_request_key, Vec::new()),
        (libc::SYS_keyctl, Vec::new()),
    ]);
    Ok([
        program(sockets, libc::EAFNOSUPPORT)?,
        program(protocols, libc::EPROTONOSUPPORT)?,
        program(others, libc::EPERM)?,
        program(rules([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?,
    ])
}

/// Arguments of `socket` that ask for a protocol of the internet which is not among [`PROTOCOLS`].
fn foreign_protocols() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let condition = |argument, is, number: i32| {
        SeccompCondition::new(argument, Length::Dword, is, number.unsigned_abs().into())
    };
    let mut rules = Vec::new();
    for family in INTERNET {
        for kind in TYPES {
            let mut conditions = vec![
                condition(0, Is::Eq, family)?,
                condition(1, Is::MaskedEq(TYPE), kind)?,
            ];
            for protocol in PROTOCOLS {
                conditions.push(condition(2, Is::Ne, protocol)?);
            }
            rules.push(SeccompRule::new(conditions)?);
        }
        for kind in FOREIGN_TYPES {
            rules.push(SeccompRule::new(vec![
                condition(0, Is::Eq, family)?,
                condition(1, Is::MaskedEq(TYPE), kind)?,
            ])?);
        }
    }
    Ok(rules)
}

fn rules<const N: usize>(of: [(i64, Vec<SeccompRule>); N]) -> BTreeMap<i64, Vec<SeccompRule>> {
    let mut rules = BTreeMap::from(of);
    #[cfg(target_arch = "x86_64")]
    {
        let again: Vec<_> = rules
            .iter()
            // ioctl has a number of its own there.
            .map(|(call, rule)| match *call {
                libc::SYS_ioctl => (X32 | 514, rule.clone()),
                call => (X32 | call, rule.clone()),
            })
            .collect();
        rules.extend(again);
    }
    rules
}

/// A call of another architecture (32-bit programs) ends its process: there socket calls look different.
fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?.try_into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_compiles_for_this_machine() {
        assert!(super::programs().is_ok());
    }
}
