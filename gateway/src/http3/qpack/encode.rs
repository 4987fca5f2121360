//! Fields to bytes: names from the static table where they are there, everything else as it is.

use http::HeaderMap;

use super::table::STATIC;

/// A section being written.
pub(in crate::http3) struct Encoder(Vec<u8>);

impl Default for Encoder {
    fn default() -> Self {
        // Required Insert Count and Base: zero.
        Self(vec![0, 0])
    }
}

/// A section with these pseudo-header fields, then these fields.
pub(in crate::http3) fn section(pseudo: &[(&str, &str)], fields: &HeaderMap) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for (name, value) in pseudo {
        encoder.field(name.as_bytes(), value.as_bytes());
    }
    for (name, value) in fields {
        encoder.field(name.as_str().as_bytes(), value.as_bytes());
    }
    encoder.finish()
}

impl Encoder {
    pub(in crate::http3) fn field(&mut self, name: &[u8], value: &[u8]) {
        let known = |(_, (entry, _)): &(u64, &(&str, &str))| entry.as_bytes() == name;
        let mut named = (0u64..).zip(&STATIC).filter(known).peekable();
        let place = named.peek().map(|(index, _)| *index);
        if let Some((index, _)) = named.find(|(_, (_, entry))| entry.as_bytes() == value) {
            return self.integer(0b1100_0000, 6, index);
        }
        match place {
            Some(index) => self.integer(0b0101_0000, 4, index),
            None => {
                self.integer(0b0010_0000, 3, name.len() as u64);
                self.0.extend_from_slice(name);
            }
        }
        self.integer(0, 7, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(in crate::http3) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn integer(&mut self, flags: u8, prefix: u32, value: u64) {
        let most = (1u64 << prefix) - 1;
        if value < most {
            return self.0.push(flags | value as u8);
        }
        self.0.push(flags | most as u8);
        let mut rest = value - most;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }
}
