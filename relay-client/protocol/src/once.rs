//! An open that must not happen twice: what a client says before its open is answered may reach the service, and when the
//! connection dies instead of an answer, the client does not know. It asks again with the same number; the gateway, which
//! remembers the numbers it has opened, knows.
//!
//! On QUIC both are fields of the stream's head, on HTTP the fields [`ONCE`] and [`INSTANCE`], in hexadecimal.

use std::fmt;

/// The request field that says which open this is.
pub const ONCE: &str = "sluicegate-once";
/// The field of the answer to a proof that says which process of the gateway answers.
pub const INSTANCE: &str = "sluicegate-instance";

/// As many processes may have got an open before.
const TRIED_MAX: usize = 4;
const NUMBER: usize = 8;
const NAME: usize = 16;

/// One process of a gateway, as it calls itself at its start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance([u8; NAME]);

/// Which open this is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Once {
    /// The client's random number for it.
    pub number: u64,
    /// Who may have got it before, with bytes behind it. To them it is the same open.
    pub tried: Vec<Instance>,
}

impl Instance {
    /// By this random name.
    pub const fn new(name: [u8; NAME]) -> Self {
        Self(name)
    }

    /// The name.
    pub const fn name(&self) -> &[u8; NAME] {
        &self.0
    }

    /// Read what stands in [`INSTANCE`] or its field on QUIC.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Read it as text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        unhex(text).and_then(|bytes| Self::decode(&bytes))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Once {
    /// May somebody else be added to those who were tried?
    pub fn has_room(tried: usize) -> bool {
        tried < TRIED_MAX
    }

    /// `{ Number (64), Instance (128) ... }`
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.number.to_be_bytes().to_vec();
        for instance in &self.tried {
            bytes.extend_from_slice(&instance.0);
        }
        bytes
    }

    /// Read it back; `None` where it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
        let (tried, beyond) = rest.as_chunks::<NAME>();
        (beyond.is_empty() && tried.len() <= TRIED_MAX).then(|| Self {
            number: u64::from_be_bytes(*number),
            tried: tried.iter().copied().map(Instance).collect(),
        })
    }

    /// Read it as text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        unhex(text).and_then(|bytes| Self::decode(&bytes))
    }
}

impl fmt::Display for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.encode(), f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, odd) = text.as_chunks::<2>();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    odd.is_empty()
        .then(|| pairs.iter().map(byte).collect())
        .flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Instance, Once, TRIED_MAX};
    use proptest::prelude::*;

    #[test]
    fn on_the_wire() {
        let first = Once {
            number: 0x0102_0304_0506_0708,
            tried: Vec::new(),
        };
        assert_eq!(first.to_string(), "0102030405060708");
        let again = Once {
            tried: vec![Instance::new([0xab; 16])],
            ..first
        };
        let text = format!("0102030405060708{}", "ab".repeat(16));
        assert_eq!(again.to_string(), text);
        assert_eq!(Once::parse(text.as_bytes()), Some(again));
        let name = "ab".repeat(16);
        assert_eq!(
            Instance::parse(name.as_bytes()),
            Some(Instance::new([0xab; 16]))
        );
    }

    #[test]
    fn what_is_none() {
        let too_many = vec![0; 8 + 16 * (TRIED_MAX + 1)];
        for bytes in [&[][..], &[0; 7], &[0; 9], &[0; 23], &too_many] {
            assert_eq!(Once::decode(bytes), None, "{}", bytes.len());
        }
        for text in [
            "0",
            "0102030405060708a",
            "010203040506070G",
            "010203040506070F",
        ] {
            assert_eq!(Once::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Instance::parse(b"abab"), None);
    }

    proptest! {
        #[test]
        fn it_comes_back(number in any::<u64>(), names in proptest::collection::vec(any::<[u8; 16]>(), 0..=TRIED_MAX)) {
            let once = Once { number, tried: names.into_iter().map(Instance::new).collect() };
            prop_assert_eq!(Once::decode(&once.encode()).unwrap(), once.clone());
            prop_assert_eq!(Once::parse(once.to_string().as_bytes()).unwrap(), once);
        }
    }
}
