//! One message of a binary protocol, read from everything received so far: whole, not yet, or never.

/// One message, as far as it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<T> {
    /// Not whole yet.
    NeedMore,
    /// Read, and how many bytes it took.
    Whole(T, usize),
    /// No such message.
    Malformed,
}

impl<T> Message<T> {
    /// Is there something to say about it already?
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::NeedMore)
    }

    /// The message and its length; `None` where there is none.
    pub fn whole(self) -> Option<(T, usize)> {
        match self {
            Self::Whole(message, taken) => Some((message, taken)),
            Self::NeedMore | Self::Malformed => None,
        }
    }
}

/// A step of a reader: `Err` is malformed, `Ok(None)` not whole yet.
pub(super) type Step<T> = Result<Option<T>, ()>;

/// Reads bytes in order; `None` is "not there yet".
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.all.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// A length in one byte, and so many bytes.
    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.byte()?;
        self.take(count.into())
    }

    /// A length in two bytes, and so many bytes.
    pub(super) fn counted_wide(&mut self) -> Option<&'a [u8]> {
        let count = u16::from_be_bytes(self.array()?);
        self.take(count.into())
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.all.get(self.at..).unwrap_or_default()
    }
}

/// Read one message from its first byte.
pub(super) fn message<'a, T>(
    all: &'a [u8],
    read: impl FnOnce(&mut Bytes<'a>) -> Step<T>,
) -> Message<T> {
    let mut bytes = Bytes { all, at: 0 };
    match read(&mut bytes) {
        Ok(Some(whole)) => Message::Whole(whole, bytes.at),
        Ok(None) => Message::NeedMore,
        Err(()) => Message::Malformed,
    }
}
