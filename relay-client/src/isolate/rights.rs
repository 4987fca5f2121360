//! Capabilities: those the set-up needs are carried over exec, and none that could undo it are left for the command. And
//! who may look into a process.

use std::io;

use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, capabilities, clear_ambient_capability_set,
        configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

/// Mounts, addresses and routes, ports below 1024.
fn needed() -> CapabilitySet {
    CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SETPCAP
        | CapabilitySet::DAC_OVERRIDE
}

/// What root keeps in the sandbox: its hands on files and on user ids. Nothing with which mounts, interfaces, raw sockets
/// or other processes' memory could be reached.
fn of_root() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::KILL
        | CapabilitySet::SETGID
        | CapabilitySet::SETUID
        | CapabilitySet::NET_BIND_SERVICE
}

/// From here on no other process of this user gets at this one's memory and descriptors, by tracing it or by what /proc has
/// of it (`PR_SET_DUMPABLE`, ptrace(2)). Root does, and whoever traces it already. The process itself notices nothing; what it executes
/// is open again.
///
/// # Errors
/// The kernel does not know it.
pub fn keep_others_out() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// May this process map ids that are not its own into a user namespace?
pub(super) fn may_map_ids() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Carry what the set-up needs over the next exec, where it is held.
pub(super) fn carry_over_exec() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    let carried = needed() & sets.permitted;
    sets.inheritable |= carried;
    set_capabilities(None, sets)?;
    for capability in carried.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Let go of all that the command must not have, for good: nothing it executes can give it back.
pub(super) fn let_go() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let sets = capabilities(None)?;
    let keep = if rustix::process::geteuid().is_root() {
        of_root()
    } else {
        CapabilitySet::empty()
    };
    // Those the kernel knows and this crate does not have a name for, too.
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !keep.contains(capability) {
            match remove_capability_from_bounding_set(capability) {
                // There are no more.
                Err(rustix::io::Errno::INVAL) => break,
                removed => removed?,
            }
        }
    }
    let kept = keep & sets.permitted;
    let sets = rustix::thread::CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    Ok(())
}
