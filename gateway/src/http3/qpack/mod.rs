//! Field sections (RFC 9204) without a dynamic table: its capacity is zero, so nothing a peer sends is remembered, and no
//! section ever waits for another stream.

mod decode;
mod encode;
mod huffman;
mod table;

pub(super) use decode::decode;
#[cfg(test)]
pub(super) use encode::Encoder;
pub(super) use encode::section;

/// A field as it stands in a section: any bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Why a section cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// QPACK_DECOMPRESSION_FAILED: an error of the connection.
    Coding,
    /// More than was allowed.
    TooLarge,
}
