//! Huffman-coded strings (RFC 7541, Appendix B, which RFC 9204 §4.1.2 takes over). Only decoding: what is sent is plain.

use std::sync::LazyLock;

/// Bits of each symbol's code; the last one is EOS. The code is canonical: lengths are all there is to know of it.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const LONGEST: usize = 30;
const EOS: u16 = 256;

/// Codes of one length follow each other, in the order of their symbols.
#[derive(Clone, Copy, Default)]
struct Row {
    /// The first code of this length.
    first: u32,
    /// How many there are.
    count: u32,
    /// Where the symbol of the first one stands in [`Code::symbols`].
    at: usize,
}

struct Code {
    rows: [Row; LONGEST + 1],
    symbols: Vec<u16>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut code = Code {
        rows: [Row::default(); LONGEST + 1],
        symbols: Vec::with_capacity(LENGTHS.len()),
    };
    let mut next = 0u32;
    for (length, row) in code.rows.iter_mut().enumerate() {
        next <<= 1;
        *row = Row {
            first: next,
            count: 0,
            at: code.symbols.len(),
        };
        let symbols = (0u16..).zip(LENGTHS);
        for (symbol, _) in symbols.filter(|(_, bits)| usize::from(*bits) == length) {
            code.symbols.push(symbol);
            row.count += 1;
        }
        next += row.count;
    }
    code
});

/// The string, or `None` where it is no such code: EOS inside, or padding that is not the start of EOS (RFC 7541 §5.2).
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    // The shortest code has five bits.
    let mut text = Vec::with_capacity(bytes.len() * 8 / 5);
    let (mut bits, mut length) = (0u32, 0usize);
    for byte in bytes {
        for place in (0..8).rev() {
            bits = bits << 1 | u32::from(byte >> place & 1);
            length += 1;
            let row = CODE.rows.get(length)?;
            let offset = bits.wrapping_sub(row.first);
            if offset < row.count {
                match *CODE.symbols.get(row.at + offset as usize)? {
                    EOS => return None,
                    symbol => text.push(u8::try_from(symbol).ok()?),
                }
                (bits, length) = (0, 0);
            }
        }
    }
    // What is left is padding: ones, and less than a byte of them.
    (length < 8 && bits == (1 << length) - 1).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn examples_of_the_rfc() {
        // RFC 7541, C.4 and C.6.
        let table: [(&[u8], &str); 4] = [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (
                &[
                    0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae,
                    0x82, 0xae, 0x43, 0xd3,
                ],
                "https://www.example.com",
            ),
        ];
        for (coded, text) in table {
            assert_eq!(decode(coded).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(decode(&[]).as_deref(), Some(&[][..]));
    }

    #[test]
    fn what_is_no_code() {
        // EOS itself, a whole byte of padding, padding of zeros.
        for coded in [&[0xff, 0xff, 0xff, 0xfc][..], &[0x64, 0x02, 0xff], &[0x00]] {
            assert_eq!(decode(coded), None, "{coded:x?}");
        }
    }
}
