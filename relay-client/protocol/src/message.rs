//! What is said on the control stream once it is accepted, and in front of a client's bytes on an accept stream:
//! `{ Type (i), Length (i), Value (..) }`, integers as in RFC 9000 §16. A type that is not known is passed over, so that a newer
//! peer may say more.

use crate::varint;

/// Longest value; a longer one breaks the protocol.
pub const VALUE_MAX: usize = 16 * 1024;

const DRAIN: u64 = 1;
const TAKEN: u64 = 2;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// From the gateway: it goes down soon. Streams that are open go on; new ones belong on another connection.
    Drain,
    /// From the client, on an accept stream whose acceptance asks for it, in front of anything else: it has the dial.
    Taken,
    /// Something newer than this version.
    Unknown(u64),
}

/// A message longer than [`VALUE_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message is too long")]
pub struct TooLong;

impl Message {
    /// The bytes.
    pub fn encode(self) -> Vec<u8> {
        let kind = match self {
            Self::Drain => DRAIN,
            Self::Taken => TAKEN,
            Self::Unknown(kind) => kind,
        };
        varint::encode(kind).chain(varint::encode(0)).collect()
    }

    /// Read from the front of what has come so far: the message and its length. `None`: more is needed.
    ///
    /// # Errors
    /// [`TooLong`], as soon as the length is there.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, TooLong> {
        let Some((kind, rest)) = varint::decode(bytes) else {
            return Ok(None);
        };
        let Some((length, rest)) = varint::decode(rest) else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > VALUE_MAX {
            return Err(TooLong);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = match kind {
            DRAIN => Self::Drain,
            TAKEN => Self::Taken,
            other => Self::Unknown(other),
        };
        Ok(Some((message, bytes.len() - rest.len() + length)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::{Message, TooLong, VALUE_MAX};
    use proptest::prelude::*;

    #[test]
    fn on_the_wire() {
        assert_eq!(Message::Drain.encode(), [1, 0]);
        assert_eq!(Message::Taken.encode(), [2, 0]);
        assert_eq!(Message::decode(&[2, 0]), Ok(Some((Message::Taken, 2))));
        assert_eq!(Message::decode(&[1, 0, 9]), Ok(Some((Message::Drain, 2))));
        // A value that is not expected is passed over with its message.
        assert_eq!(Message::decode(&[1, 1, 9]), Ok(Some((Message::Drain, 3))));
        assert_eq!(
            Message::decode(&[7, 2, 0, 0, 1]),
            Ok(Some((Message::Unknown(7), 4)))
        );
        assert_eq!(Message::decode(&[7, 2, 0]), Ok(None));
        let long = [1, 0x80, 0, 0x40, 1];
        assert_eq!(VALUE_MAX + 1, 0x4001);
        assert_eq!(Message::decode(&long), Err(TooLong));
    }

    proptest! {
        #[test]
        fn never_reads_past_what_is_there(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, length))) = Message::decode(&bytes) {
                prop_assert!(length <= bytes.len());
                prop_assert!(matches!(Message::decode(&bytes[..length - 1]), Ok(None)));
            }
        }
    }
}
