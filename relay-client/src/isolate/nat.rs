//! Capture of TCP: a rule of the sandbox's own network namespace that redirects every connection which is not to
//! loopback or to the sandbox's own address to one port there. Written to the kernel's nf_tables directly.
//!
//! ```text
//! table inet sluicegate { chain out { type nat hook output priority -100
//!     ip daddr != 127.0.0.0/8 ip daddr != OWN meta l4proto tcp redirect to :PORT
//!     ip6 daddr != ::1 ip6 daddr != OWN meta l4proto tcp redirect to :PORT } }
//! ```

use std::io;

use super::tables::{Batch, Family, REGISTER, expression, immediate};

const TABLE: &[u8] = b"sluicegate\0";
const PRIORITY: i32 = -100;
const IPPROTO_TCP: u8 = 6;
/// NF_NAT_RANGE_PROTO_SPECIFIED.
const WITH_PORT: u32 = 2;

/// Redirect TCP to `port` of loopback.
///
/// # Errors
/// The kernel has no nf_tables, or no capability is held.
pub(super) fn redirect_tcp(port: u16) -> io::Result<()> {
    let mut batch = Batch::new(TABLE, b"nat\0", PRIORITY);
    for family in [Family::v4(), Family::v6()] {
        let mut expressions = family.elsewhere(IPPROTO_TCP);
        expressions.push(immediate(&port.to_be_bytes()));
        expressions.push(expression(b"redir\0", |data| {
            data.attribute(1, &REGISTER.to_be_bytes());
            data.attribute(3, &WITH_PORT.to_be_bytes());
        }));
        batch.rule(&expressions);
    }
    batch.commit()
}
