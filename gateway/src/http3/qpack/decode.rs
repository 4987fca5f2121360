//! Bytes to fields.

use super::{Field, Unreadable, huffman, table::STATIC};

/// What each field counts for besides its bytes (RFC 9114 §4.2.2).
const OVERHEAD: usize = 32;

/// Decode a whole section; all fields together count for at most `limit`.
pub(in crate::http3) fn decode(section: &[u8], limit: usize) -> Result<Vec<Field>, Unreadable> {
    let mut bytes = Reader(section);
    // Required Insert Count: nothing was ever inserted. Base: then any will do (RFC 9204 §4.5.1.2).
    let (_, required) = bytes.integer(8)?;
    bytes.integer(7)?;
    if required != 0 {
        return Err(Unreadable::Coding);
    }
    let (mut fields, mut size) = (Vec::new(), 0usize);
    while let Some(first) = bytes.0.first() {
        let field = bytes.field(*first)?;
        size = size.saturating_add(field.name.len() + field.value.len() + OVERHEAD);
        if size > limit {
            return Err(Unreadable::TooLarge);
        }
        fields.push(field);
    }
    Ok(fields)
}

struct Reader<'s>(&'s [u8]);

impl Reader<'_> {
    /// One representation (RFC 9204 §4.5.2 to §4.5.6). Those that point into a dynamic table point at nothing.
    fn field(&mut self, first: u8) -> Result<Field, Unreadable> {
        if first & 0b1100_0000 == 0b1100_0000 {
            let (_, index) = self.integer(6)?;
            let (name, value) = entry(index)?;
            return Ok(Field {
                name: name.as_bytes().to_vec(),
                value: value.as_bytes().to_vec(),
            });
        }
        if first & 0b1101_0000 == 0b0101_0000 {
            let (_, index) = self.integer(4)?;
            let name = entry(index)?.0.as_bytes().to_vec();
            let value = self.string(7)?;
            return Ok(Field { name, value });
        }
        if first & 0b1110_0000 == 0b0010_0000 {
            let name = self.string(3)?;
            let value = self.string(7)?;
            return Ok(Field { name, value });
        }
        Err(Unreadable::Coding)
    }

    /// A string whose length has `prefix` bits, with the Huffman flag before them (RFC 9204 §4.1.2).
    fn string(&mut self, prefix: u32) -> Result<Vec<u8>, Unreadable> {
        let (first, length) = self.integer(prefix)?;
        let length = usize::try_from(length).map_err(|_| Unreadable::Coding)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unreadable::Coding)?;
        self.0 = rest;
        if first >> prefix & 1 == 0 {
            return Ok(text.to_vec());
        }
        huffman::decode(text).ok_or(Unreadable::Coding)
    }

    /// An integer with a prefix of so many bits (RFC 7541 §5.1), and the byte it begins in.
    fn integer(&mut self, prefix: u32) -> Result<(u8, u64), Unreadable> {
        let first = self.byte()?;
        let most = (1u64 << prefix) - 1;
        let mut value = u64::from(first) & most;
        if value < most {
            return Ok((first, value));
        }
        // Nothing here is longer than a section: more bits than this are an attack.
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((first, value));
            }
        }
        Err(Unreadable::Coding)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable::Coding)?;
        self.0 = rest;
        Ok(*first)
    }
}

fn entry(index: u64) -> Result<(&'static str, &'static str), Unreadable> {
    usize::try_from(index)
        .ok()
        .and_then(|index| STATIC.get(index).copied())
        .ok_or(Unreadable::Coding)
}

#[cfg(test)]
mod tests {
    use super::{Field, Unreadable, decode};
    use crate::http3::qpack::Encoder;

    fn field(name: &str, value: &str) -> Field {
        Field {
            name: name.into(),
            value: value.into(),
        }
    }

    #[test]
    fn an_example_of_the_rfc() {
        // RFC 9204, B.1.
        let section = b"\x00\x00\x51\x0b/index.html";
        assert_eq!(
            decode(section, 100),
            Ok(vec![field(":path", "/index.html")])
        );
        assert_eq!(decode(section, 47), Err(Unreadable::TooLarge));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut encoder = Encoder::default();
        let long = "v".repeat(5000);
        let fields = [
            (":status", "200"),
            (":status", "407"),
            ("content-type", "application/json"),
            ("x-made-up", ""),
            ("via", long.as_str()),
        ];
        for (name, value) in fields {
            encoder.field(name.as_bytes(), value.as_bytes());
        }
        let wanted: Vec<_> = fields.map(|(n, v)| field(n, v)).into();
        assert_eq!(decode(&encoder.finish(), 10_000), Ok(wanted));
    }

    #[test]
    fn what_cannot_be_read() {
        let table: [&[u8]; 9] = [
            b"",
            b"\x00",
            // A section that waits for an insertion.
            b"\x01\x00\xc0",
            // The dynamic table: indexed, post-base, names of either.
            b"\x00\x00\x80",
            b"\x00\x00\x10",
            b"\x00\x00\x40\x00",
            b"\x00\x00\x00\x00",
            // Entry 99, and an integer without an end.
            b"\x00\x00\xff\x24",
            b"\x00\x00\xff\xff\xff\xff\xff\xff\xff",
        ];
        for section in table {
            assert_eq!(
                decode(section, 1000),
                Err(Unreadable::Coding),
                "{section:x?}"
            );
        }
    }
}
