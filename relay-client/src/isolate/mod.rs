//! A command that has no way out but the gateway: its own user, network, mount, process and IPC namespaces, with loopback
//! as the only interface. Needs no privileges.
//!
//! The supervisor (this process, with its runtime and its connections to the gateway) starts `stage`'s two processes,
//! which set up the sandbox and hand over listeners that stand in it. Whatever the command connects to ends at one of
//! those: the proxy, a host service, the name server (`dns`, `names`, `pool`), or `capture`. The supervisor
//! carries it to the gateway from its own namespace; nothing in the sandbox is ever routed.
//!
//! Rooms: `confinement` is what is asked for, `plan` what becomes of that on this machine, `supervise` the way through, `serving` what is
//! served meanwhile, `attend` what is done while the command runs, `control` what is said to the processes inside; `netlink`, `tables`,
//! `nat`, `datagrams`, `mounts` (of what `mountinfo` tells), `rights` and `filter` are what they do to themselves; `hidden` (with its
//! `aliases`, and the state of `gateways`), `devices`, `elsewhere`, `trust` and `environment` what the command does and does not get to
//! see; `forbidden` explains a kernel that does not let us; `signals`, `terminal`, `wait` and `ended` pass on signals, stops and ends;
//! `directory` is where all of it meets, and `unnamed` what nobody else finds.

mod aliases;
mod attend;
mod capture;
mod confinement;
mod control;
mod datagrams;
mod devices;
mod directory;
mod dns;
mod elsewhere;
mod ended;
mod environment;
mod filter;
mod flags;
mod forbidden;
mod gateways;
mod hidden;
mod mountinfo;
mod mounts;
mod names;
mod nat;
mod netlink;
mod plan;
mod pool;
mod rights;
mod serving;
mod signals;
mod stage;
mod supervise;
mod tables;
mod terminal;
mod trust;
mod unnamed;
mod wait;

pub use confinement::{Confinement, IsolateError, Network, Service, Ways};
pub use directory::Directory;
pub use ended::Ended;
pub use flags::{EXIT_CODES, RunFlags};
pub use hidden::with_their_directories;
pub use rights::keep_others_out;
pub use signals::{Listening, Signals};
pub use stage::reenter;
pub use supervise::{run, runtime};
pub use unnamed::{Unnamed, UnnamedError};

/// The command could not be started, or what confines it failed. (As `env`, `timeout` and `docker run` have it.)
pub const FAILED: u8 = 125;
/// This system does not let the command be confined; nothing was run.
pub const CANNOT_CONFINE: u8 = 123;
/// There is no gateway; nothing was run.
pub const UNREACHABLE: u8 = 122;
/// It is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// It is not there.
pub const NOT_FOUND: u8 = 127;

fn exec_failure(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}
