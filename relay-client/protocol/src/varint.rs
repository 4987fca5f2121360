//! QUIC integers (RFC 9000 §16).

/// The largest value there is.
pub const MAX: u64 = (1 << 62) - 1;

/// The shortest encoding. Values above [`MAX`] do not exist in the format and are clamped.
pub fn encode(value: u64) -> impl Iterator<Item = u8> {
    let value = value.min(MAX);
    // The two top bits of the first byte say how many bytes there are.
    let (size, prefix) = match value {
        0..0x40 => (1, 0),
        0x40..0x4000 => (2, 0x40),
        0x4000..0x4000_0000 => (4, 0x80),
        _ => (8, 0xc0),
    };
    value
        .to_be_bytes()
        .into_iter()
        .skip(8 - size)
        .enumerate()
        .map(move |(place, byte)| if place == 0 { byte | prefix } else { byte })
}

/// An integer from the front: (value, what follows it). Any encoding length is accepted.
pub fn decode(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let size = 1usize << (first >> 6);
    let (number, rest) = bytes.split_at_checked(size)?;
    let value = number
        .iter()
        .enumerate()
        .fold(0u64, |value, (place, byte)| {
            let byte = if place == 0 { byte & 0x3f } else { *byte };
            value << 8 | u64::from(byte)
        });
    Some((value, rest))
}
