//! Messages for the kernel's nf_tables: what `nat` and `datagrams` have in common. The numbers are those of
//! `linux/netfilter/nf_tables.h`.

use std::io;

use rustix::{io::Errno, net::netlink};

use super::netlink::{Message, OWN_V4, OWN_V6, attributes, dump, exchange};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const GET_ELEMENTS: u16 = SUBSYSTEM << 8 | 13;
const REQUEST: u16 = 0x1;
const REQUEST_CREATE_ACKNOWLEDGED: u16 = 0x405;
const REQUEST_DUMP: u16 = 0x301;
/// At the end of what there is.
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const LOCAL_OUT: u32 = 3;
const NF_ACCEPT: u32 = 1;
const CHAIN: &[u8] = b"out\0";
/// `NFT_SET_EVAL`: rules add to it.
const DYNAMIC: u32 = 0x20;
/// `NFT_DYNSET_OP_ADD`: what is there already is counted.
const ADD: u32 = 0;
/// `NFT_REG_1`, of 16 bytes.
pub(super) const REGISTER: u32 = 1;
/// `NFT_REG32_00`: the first of those of 4 bytes, which are the same memory.
pub(super) const WORDS: u32 = 8;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const IPV6_LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A table with one chain, which looks at what is sent.
pub(super) struct Batch {
    table: &'static [u8],
    messages: Vec<u8>,
    acknowledged: usize,
    sets: u32,
}

impl Batch {
    /// `table`: its name. `kind`: its chain's, `nat` or `filter`. Both end with a zero byte.
    pub(super) fn new(table: &'static [u8], kind: &[u8], priority: i32) -> Self {
        let mut batch = Self {
            table,
            messages: header(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM).finish(),
            acknowledged: 0,
            sets: 0,
        };
        batch.add(batch.message(NEW_TABLE, 0));
        let mut hook = Message::default();
        hook.attribute(1, &LOCAL_OUT.to_be_bytes());
        hook.attribute(2, &priority.to_be_bytes());
        let mut chain = batch.message(NEW_CHAIN, 0);
        chain.attribute(3, CHAIN);
        chain.attribute(NESTED | 4, &hook.into_value());
        chain.attribute(5, &NF_ACCEPT.to_be_bytes());
        chain.attribute(7, kind);
        batch.add(chain);
        batch
    }

    /// A set that rules add to, with keys of `length` bytes and room for `size` of them.
    pub(super) fn set(&mut self, name: &[u8], length: u32, size: u32) {
        self.sets += 1;
        let mut description = Message::default();
        description.attribute(1, &size.to_be_bytes());
        let mut set = self.message(NEW_SET, 0);
        set.attribute(2, name);
        set.attribute(3, &DYNAMIC.to_be_bytes());
        // Of a type that only tools care for.
        set.attribute(4, &0u32.to_be_bytes());
        set.attribute(5, &length.to_be_bytes());
        set.attribute(NESTED | 9, &description.into_value());
        set.attribute(10, &self.sets.to_be_bytes());
        self.add(set);
    }

    /// A rule of these expressions.
    pub(super) fn rule(&mut self, expressions: &[Vec<u8>]) {
        let mut list = Message::default();
        for expression in expressions {
            list.attribute(NESTED | 1, expression);
        }
        let mut rule = self.message(NEW_RULE, APPEND);
        rule.attribute(2, CHAIN);
        rule.attribute(NESTED | 4, &list.into_value());
        self.add(rule);
    }

    /// Have it all, or nothing of it.
    ///
    /// # Errors
    /// The kernel has no nf_tables or not these expressions, or no capability is held.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let end = header(BATCH_END, REQUEST, 0, SUBSYSTEM);
        self.messages.extend(end.finish());
        exchange(Some(netlink::NETFILTER), &self.messages, self.acknowledged)
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        let flags = REQUEST_CREATE_ACKNOWLEDGED | flags;
        let mut message = header(kind, flags, NFPROTO_INET, 0);
        message.attribute(1, self.table);
        message
    }

    fn add(&mut self, message: Message) {
        self.messages.extend(message.finish());
        self.acknowledged += 1;
    }
}

/// A netlink header and `struct nfgenmsg`.
fn header(kind: u16, flags: u16, family: u8, resource: u16) -> Message {
    let mut message = Message::new(kind, flags, 1);
    message.put(&[family, 0]).put(&resource.to_be_bytes());
    message
}

/// IPv4 or IPv6, as rules see it.
pub(super) struct Family {
    number: u8,
    /// Where its header has the destination address …
    at: u32,
    /// … and that one's bytes.
    pub(super) length: u32,
    /// Of the sandbox itself: how loopback's addresses begin, and the other one.
    own: [Vec<u8>; 2],
}

impl Family {
    pub(super) fn v4() -> Self {
        Self {
            number: NFPROTO_IPV4,
            at: 16,
            length: 4,
            own: [vec![127], OWN_V4.octets().to_vec()],
        }
    }

    pub(super) fn v6() -> Self {
        Self {
            number: NFPROTO_IPV6,
            at: 24,
            length: 16,
            own: [IPV6_LOOPBACK.to_vec(), OWN_V6.octets().to_vec()],
        }
    }

    /// What of this protocol is sent to anybody else.
    pub(super) fn elsewhere(&self, protocol: u8) -> Vec<Vec<u8>> {
        let mut expressions = vec![meta(META_NFPROTO), compare(EQUAL, &[self.number])];
        for own in &self.own {
            let length = u32::try_from(own.len()).unwrap_or_default();
            expressions.push(payload(NETWORK_HEADER, self.at, length, REGISTER));
            expressions.push(compare(NOT_EQUAL, own));
        }
        expressions.push(meta(META_L4PROTO));
        expressions.push(compare(EQUAL, &[protocol]));
        expressions
    }

    /// Load the destination: its address and, after that, its port and two bytes of zero.
    pub(super) fn destination(&self) -> [Vec<u8>; 2] {
        [
            payload(NETWORK_HEADER, self.at, self.length, WORDS),
            payload(TRANSPORT_HEADER, 2, 2, WORDS + self.length / 4),
        ]
    }
}

/// An expression of a rule; the name ends with a zero byte.
pub(super) fn expression(name: &[u8], fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut data = Message::default();
    fill(&mut data);
    let mut expression = Message::default();
    expression.attribute(1, name);
    expression.attribute(NESTED | 2, &data.into_value());
    expression.into_value()
}

/// Load what is known of a packet into [`REGISTER`].
pub(super) fn meta(key: u32) -> Vec<u8> {
    expression(b"meta\0", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &key.to_be_bytes());
    })
}

fn payload(base: u32, at: u32, length: u32, register: u32) -> Vec<u8> {
    expression(b"payload\0", |data| {
        data.attribute(1, &register.to_be_bytes());
        data.attribute(2, &base.to_be_bytes());
        data.attribute(3, &at.to_be_bytes());
        data.attribute(4, &length.to_be_bytes());
    })
}

fn compare(how: u32, with: &[u8]) -> Vec<u8> {
    expression(b"cmp\0", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(2, &how.to_be_bytes());
        data.attribute(NESTED | 3, &value(with));
    })
}

/// Put these bytes into [`REGISTER`].
pub(super) fn immediate(bytes: &[u8]) -> Vec<u8> {
    expression(b"immediate\0", |data| {
        data.attribute(1, &REGISTER.to_be_bytes());
        data.attribute(NESTED | 2, &value(bytes));
    })
}

/// Count by the key that begins in `register`. Where the set is full, the rule ends here.
pub(super) fn count(set: &[u8], register: u32) -> Vec<u8> {
    expression(b"dynset\0", |data| {
        data.attribute(1, set);
        data.attribute(3, &ADD.to_be_bytes());
        data.attribute(4, &register.to_be_bytes());
        data.attribute(NESTED | 7, &expression(b"counter\0", |_| ()));
    })
}

fn value(bytes: &[u8]) -> Vec<u8> {
    let mut value = Message::default();
    value.attribute(1, bytes);
    value.into_value()
}

/// The keys of a set, and how many packets each has counted. None where there is no such set, or no nf_tables at all.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn counted(table: &[u8], set: &[u8]) -> io::Result<Vec<(Vec<u8>, u64)>> {
    let mut request = header(GET_ELEMENTS, REQUEST_DUMP, NFPROTO_INET, 0);
    request.attribute(1, table).attribute(2, set);
    match dump(Some(netlink::NETFILTER), &request.finish()) {
        Ok(answers) => Ok(answers.iter().flat_map(|one| elements(one)).collect()),
        Err(error) => match Errno::from_io_error(&error) {
            // Where nothing is captured no table is made, and then the kernel need not know of tables either.
            Some(Errno::NOENT | Errno::INVAL | Errno::PROTONOSUPPORT) => Ok(Vec::new()),
            _ => Err(error),
        },
    }
}

/// Of one answer: `struct nfgenmsg`, then attributes.
fn elements(answer: &[u8]) -> Vec<(Vec<u8>, u64)> {
    let element = |element: &[u8]| {
        let key = within(element, &[1, 1])?;
        let packets = within(element, &[7, 2, 2])?.try_into().ok()?;
        Some((key.to_vec(), u64::from_be_bytes(packets)))
    };
    let list = answer.get(4..).and_then(|answer| within(answer, &[3]));
    let list = attributes(list.unwrap_or_default());
    list.into_iter()
        .filter_map(|(_, one)| element(one))
        .collect()
}

/// The value that these attributes lead to, one in another.
fn within<'b>(bytes: &'b [u8], path: &[u16]) -> Option<&'b [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        let found = attributes(bytes)
            .into_iter()
            .find(|(kind, _)| kind == wanted);
        found.map(|(_, value)| value)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::{Batch, Family, count, elements, expression, value};
    use crate::isolate::netlink::Message;

    /// As Linux 6.18 has told of two datagrams to 8.8.8.8:53 and one to 8.8.8.8:54.
    #[test]
    fn what_a_set_has_counted() {
        let element = |port: u16, packets: u64| {
            let key = [&[8, 8, 8, 8][..], &port.to_be_bytes(), &[0; 2]].concat();
            let counter = expression(b"counter\0", |data| {
                data.attribute(1, &29u64.to_be_bytes());
                data.attribute(2, &packets.to_be_bytes());
            });
            let mut element = Message::default();
            element.attribute(0x8001, &value(&key));
            element.attribute(0x8007, &counter);
            element.into_value()
        };
        let mut list = Message::default();
        list.attribute(0x8001, &element(53, 2));
        list.attribute(0x8001, &element(54, 1));
        let mut answer = Message::default();
        answer.put(&[1, 0, 0, 0]);
        answer.attribute(1, b"table\0").attribute(2, b"set\0");
        answer.attribute(0x8003, &list.into_value());
        let answer = answer.into_value();
        let expected = [
            (vec![8, 8, 8, 8, 0, 53, 0, 0], 2),
            (vec![8, 8, 8, 8, 0, 54, 0, 0], 1),
        ];
        assert_eq!(elements(&answer), expected);
        for cut in 0..answer.len() {
            assert!(elements(&answer[..cut]).len() <= 2);
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_not_waited_for() {
        let mut batch = Batch::new(b"table\0", b"filter\0", 0);
        batch.set(b"set\0", 8, 3);
        let family = Family::v4();
        let expressions = [&family.elsewhere(17)[..], &family.destination()].concat();
        batch.rule(&[&expressions[..], &[count(b"set\0", 8)]].concat());
        assert_eq!(batch.acknowledged, 4);
        let acknowledged = |message: &[u8]| message[6] & 4 != 0;
        let (mut rest, mut found) = (&batch.messages[..], 0);
        while !rest.is_empty() {
            found += usize::from(acknowledged(rest));
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap());
            rest = &rest[length as usize..];
        }
        assert_eq!(found, batch.acknowledged);
    }
}
