//! Capture of TCP: a rule of the sandbox's own network namespace that redirects every connection which is not to
//! loopback or to the sandbox's own address to one port there. Written to the kernel's nf_tables directly.
//!
//! ```text
//! table inet sluicegate { chain out { type nat hook output priority -100
//!     ip daddr != 127.0.0.0/8 ip daddr != OWN meta l4proto tcp redirect to :PORT
//!     ip6 daddr != ::1 ip6 daddr != OWN meta l4proto tcp redirect to :PORT } }
//! ```

use std::io;

use rustix::net::netlink;

use super::netlink::{Message, OWN_V4, OWN_V6, exchange};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const REQUEST: u16 = 0x1;
const REQUEST_CREATE_ACKNOWLEDGED: u16 = 0x405;
/// At the end of what there is.
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const LOCAL_OUT: u32 = 3;
const NAT_PRIORITY: i32 = -100;
const NF_ACCEPT: u32 = 1;
const IPPROTO_TCP: u8 = 6;
const TABLE: &[u8] = b"sluicegate\0";
const CHAIN: &[u8] = b"out\0";
/// NFT_REG_1.
const REGISTER: u32 = 1;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// NF_NAT_RANGE_PROTO_SPECIFIED.
const WITH_PORT: u32 = 2;
const IPV6_LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Redirect TCP to `port` of loopback.
///
/// # Errors
/// The kernel has no nf_tables, or no capability is held.
pub(super) fn redirect_tcp(port: u16) -> io::Result<()> {
    exchange(Some(netlink::NETFILTER), &batch(port), 4)
}

fn batch(port: u16) -> Vec<u8> {
    let mut batch = header(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM).finish();
    let mut table = header(NEW_TABLE, REQUEST_CREATE_ACKNOWLEDGED, NFPROTO_INET, 0);
    table.attribute(1, TABLE);
    batch.extend(table.finish());
    let mut hook = Message::default();
    hook.attribute(1, &LOCAL_OUT.to_be_bytes());
    hook.attribute(2, &NAT_PRIORITY.to_be_bytes());
    let mut chain = header(NEW_CHAIN, REQUEST_CREATE_ACKNOWLEDGED, NFPROTO_INET, 0);
    chain.attribute(1, TABLE).attribute(3, CHAIN);
    chain.attribute(NESTED | 4, &hook.into_value());
    chain.attribute(5, &NF_ACCEPT.to_be_bytes());
    chain.attribute(7, b"nat\0");
    batch.extend(chain.finish());
    // Destination addresses: byte 16 of an IPv4 header, whose first octet is 127 on loopback; bytes 24 to 39 of IPv6's.
    let (v4, v6) = (OWN_V4.octets(), OWN_V6.octets());
    batch.extend(rule(NFPROTO_IPV4, 16, [&[127], &v4], port));
    batch.extend(rule(NFPROTO_IPV6, 24, [&IPV6_LOOPBACK, &v6], port));
    batch.extend(header(BATCH_END, REQUEST, 0, SUBSYSTEM).finish());
    batch
}

/// A netlink header and `struct nfgenmsg`.
fn header(kind: u16, flags: u16, family: u8, resource: u16) -> Message {
    let mut message = Message::new(kind, flags, 1);
    message.put(&[family, 0]).put(&resource.to_be_bytes());
    message
}

fn rule(family: u8, offset: u32, except: [&[u8]; 2], port: u16) -> Vec<u8> {
    let load = |length: usize| {
        let length = u32::try_from(length).unwrap_or_default();
        expression(b"payload\0", |data| {
            data.attribute(1, &REGISTER.to_be_bytes());
            data.attribute(2, &NETWORK_HEADER.to_be_bytes());
            data.attribute(3, &offset.to_be_bytes());
            data.attribute(4, &length.to_be_bytes());
        })
    };
    let [loopback, own] = except;
    let expressions = [
        load_meta(META_NFPROTO),
        compare(EQUAL, &[family]),
        load(loopback.len()),
        compare(NOT_EQUAL, loopback),
        load(own.len()),
        compare(NOT_EQUAL, own),
        load_meta(META_L4PROTO),
        compare(EQUAL, &[IPPROTO_TCP]),
        expression(b"immediate\0", |data| {
            data.attribute(1, &REGISTER.to_be_bytes());
            data.attribute(NESTED | 2, &value(&port.to_be_bytes()));
        }),
        expression(b"redir\0", |data| {
            data.attribute(1, &REGISTER.to_be_bytes());
            data.attribute(3, &WITH_PORT.to_be_bytes());
        }),
    ];
    let mut list = Message::default();
    for expression in expressions {
        list.attribute(NESTED | 1, &expression);
    }
    let flags = REQUEST_CREATE_ACKNOWLEDGED | APPEND;
    let mut rule = header(NEW_RULE, flags, NFPROTO_INET, 0);
    rule.attribute(1, TABLE).attribute(2, CHAIN);
    rule.attribute(NESTED | 4, &list.into_value());
    rule.finish()
}

fn expression(name: &[u8], fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut data = Message::default();
    fill(&mut data);
    let mut expression = Message::default();
    expression.attribute(1, name);
    expression.attribute(NESTED | 2, &data.into_value());
    expression.into_value()
}

fn load_meta(key: u32) -> Vec<u8> {
    expression(b"meta\0", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &key.to_be_bytes());
    })
}

fn compare(how: u32, with: &[u8]) -> Vec<u8> {
    expression(b"cmp\0", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &how.to_be_bytes());
        data.attribute(NESTED | 3, &value(with));
    })
}

fn value(bytes: &[u8]) -> Vec<u8> {
    let mut value = Message::default();
    value.attribute(1, bytes);
    value.into_value()
}
