//! ClientHellos built byte by byte, so that each part can be spoilt alone.

/// A hello about to be written.
pub(crate) struct Hello {
    extensions: Vec<(u16, Vec<u8>)>,
}

fn long(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], content].concat()
}

/// A `server_name` extension's content (RFC 6066 §3) with these entries.
pub(crate) fn server_name(names: &[(u8, &[u8])]) -> Vec<u8> {
    let entries = names
        .iter()
        .map(|(kind, name)| [vec![*kind], long(name)].concat());
    long(&entries.collect::<Vec<_>>().concat())
}

/// A handshake message (RFC 8446 §4).
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

/// A plaintext record (RFC 8446 §5.1).
pub(crate) fn record(kind: u8, fragment: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &long(fragment)].concat()
}

/// A HelloRetryRequest (RFC 8446 §4.1.4) in its record.
pub(crate) fn retry_request() -> Vec<u8> {
    const RANDOM: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8,
        0x91, 0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8,
        0x33, 0x9c,
    ];
    let extensions = long(
        &[
            &43_u16.to_be_bytes()[..],
            &long(&[3, 4]),
            &51_u16.to_be_bytes(),
            &long(&[0, 23]),
        ]
        .concat(),
    );
    let body = [
        &[3, 3][..],
        &RANDOM,
        &[32],
        &[7; 32],
        &[0x13, 1, 0],
        &extensions,
    ]
    .concat();
    record(22, &message(2, &body))
}

impl Hello {
    /// Names `name`, offers TLS 1.3 and 1.2.
    pub(crate) fn new(name: &str) -> Self {
        Self::bare().with(0, &server_name(&[(0, name.as_bytes())]))
    }

    /// Names nobody.
    pub(crate) fn bare() -> Self {
        Self {
            extensions: vec![
                (43, vec![4, 3, 4, 3, 3]),
                (10, long(&[0, 29, 0, 23])),
                (51, long(&[])),
            ],
        }
    }

    /// One more extension.
    pub(crate) fn with(mut self, kind: u16, content: &[u8]) -> Self {
        self.extensions.push((kind, content.to_vec()));
        self
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let block = self.extensions.iter();
        let block =
            block.flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), long(content)].concat());
        let parts: [&[u8]; 6] = [
            &[3, 3],
            &[9; 32],
            &[32],
            &[7; 32],
            &[0, 4, 0x13, 1, 0x13, 2, 1, 0],
            &long(&block.collect::<Vec<u8>>()),
        ];
        message(1, &parts.concat())
    }

    /// In one record.
    pub(crate) fn wire(&self) -> Vec<u8> {
        record(22, &self.message())
    }

    /// In records of at most `most` bytes.
    pub(crate) fn records(&self, most: usize) -> Vec<u8> {
        self.message()
            .chunks(most)
            .flat_map(|part| record(22, part))
            .collect()
    }
}
