//! The `:authority` of programs that dial a unix socket.
//!
//! gRPC's C core (Python, Ruby, PHP, C++) sends the path of the socket there, percent-encoded, and `http` takes a `%` for
//! malformed (RFC 3986 §3.2.2 has it; an HTTP origin has no use for it). Nothing here reads the field, and services are told their
//! own address. So each `%` of it becomes a `-` as it comes in: no longer and no shorter, in a string that is not
//! Huffman-coded (RFC 7541 §5.2), the tables of both ends stay the same.

use crate::http2::{Frame, Frames, Piece};

const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Stream dependency and weight (RFC 9113 §6.2).
const PRIORITY_LENGTH: usize = 5;
const NAME: &[u8] = b":authority";
/// Its place in the static table (RFC 7541, appendix A).
const INDEX: u8 = 1;

/// Follows the field blocks of a connection, in bytes that come in pieces.
#[derive(Debug)]
pub(super) struct Authority {
    frames: Frames,
    /// Bytes of the frame's payload still to come, without those of padding.
    block: usize,
    /// The next byte says how much padding there is.
    padded: bool,
    /// Bytes that stand before the block itself.
    priority: usize,
    at: At,
}

/// Where in a field block.
#[derive(Clone, Copy, Debug)]
enum At {
    /// A field begins.
    Field,
    /// An index goes on; a value follows, or the next field.
    Index { value: bool },
    /// The length of a string begins.
    Length { name: bool, ours: bool },
    /// It goes on.
    Longer {
        name: bool,
        ours: bool,
        length: usize,
        shift: u32,
    },
    /// In a string: what is left of it, and how much of [`NAME`] was there.
    Text {
        name: bool,
        ours: bool,
        left: usize,
        seen: usize,
    },
    /// It cannot be followed any more. Whoever decodes it will say why.
    Lost,
}

impl Authority {
    pub(super) const fn new() -> Self {
        Self {
            frames: Frames::of_client(),
            block: 0,
            padded: false,
            priority: 0,
            at: At::Field,
        }
    }

    /// The next bytes of the connection.
    pub(super) fn pass(&mut self, mut bytes: &mut [u8]) {
        while let Some((piece, taken)) = self.frames.next(bytes) {
            let (these, rest) = std::mem::take(&mut bytes).split_at_mut(taken);
            match piece {
                Piece::Head(frame) => self.begin(frame),
                Piece::Payload => self.payload(these),
            }
            bytes = rest;
        }
    }

    fn begin(&mut self, frame: Frame) {
        (self.block, self.padded, self.priority) = (0, false, 0);
        match frame.kind {
            Frame::HEADERS => {
                if !matches!(self.at, At::Lost) {
                    self.at = At::Field;
                }
                self.block = frame.length;
                self.padded = frame.flags & PADDED != 0;
                if frame.flags & PRIORITY != 0 {
                    self.priority = PRIORITY_LENGTH;
                }
            }
            Frame::CONTINUATION => self.block = frame.length,
            _ => {}
        }
    }

    fn payload(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            let Some(left) = self.block.checked_sub(1) else {
                return;
            };
            self.block = left;
            if std::mem::take(&mut self.padded) {
                match left.checked_sub(usize::from(*byte)) {
                    Some(block) => self.block = block,
                    None => (self.block, self.at) = (0, At::Lost),
                }
            } else if let Some(priority) = self.priority.checked_sub(1) {
                self.priority = priority;
            } else {
                self.at = self.at.after(byte);
            }
        }
    }
}

impl At {
    fn after(self, byte: &mut u8) -> Self {
        match self {
            // RFC 7541 §6: how many bits of the first byte are the index, and what follows it.
            Self::Field => match *byte {
                0x80.. => Self::indexed(*byte, 0x7f),
                0x40.. => Self::literal(*byte, 0x3f),
                0x20.. => Self::indexed(*byte, 0x1f),
                _ => Self::literal(*byte, 0x0f),
            },
            Self::Index { value } if *byte & 0x80 == 0 => {
                if value {
                    Self::Length {
                        name: false,
                        ours: false,
                    }
                } else {
                    Self::Field
                }
            }
            Self::Length { name, ours } => {
                let ours = ours && *byte & 0x80 == 0;
                let length = usize::from(*byte & 0x7f);
                if length == 0x7f {
                    Self::Longer {
                        name,
                        ours,
                        length,
                        shift: 0,
                    }
                } else {
                    Self::text(name, ours, length)
                }
            }
            Self::Longer {
                name,
                ours,
                length,
                shift,
            } => {
                // No block that is taken is near that long.
                if shift > 21 {
                    return Self::Lost;
                }
                let length = length + (usize::from(*byte & 0x7f) << shift);
                if *byte & 0x80 == 0 {
                    Self::text(name, ours, length)
                } else {
                    Self::Longer {
                        name,
                        ours,
                        length,
                        shift: shift + 7,
                    }
                }
            }
            Self::Text {
                name,
                mut ours,
                left,
                seen,
            } => {
                if name {
                    ours = ours && NAME.get(seen) == Some(&*byte);
                } else if ours && *byte == b'%' {
                    *byte = b'-';
                }
                match left - 1 {
                    0 => Self::behind(name, ours),
                    left => Self::Text {
                        name,
                        ours,
                        left,
                        seen: seen + 1,
                    },
                }
            }
            Self::Index { .. } | Self::Lost => self,
        }
    }

    /// An index alone, or a size.
    const fn indexed(byte: u8, mask: u8) -> Self {
        if byte & mask == mask {
            Self::Index { value: false }
        } else {
            Self::Field
        }
    }

    /// A name, by index or as a string, and a value.
    const fn literal(byte: u8, mask: u8) -> Self {
        match byte & mask {
            0 => Self::Length {
                name: true,
                ours: true,
            },
            index if index == mask => Self::Index { value: true },
            index => Self::Length {
                name: false,
                ours: index == INDEX,
            },
        }
    }

    fn text(name: bool, ours: bool, length: usize) -> Self {
        let ours = ours && (!name || length == NAME.len());
        if length == 0 {
            return Self::behind(name, ours);
        }
        Self::Text {
            name,
            ours,
            left: length,
            seen: 0,
        }
    }

    /// A string is over.
    const fn behind(name: bool, ours: bool) -> Self {
        if name {
            Self::Length { name: false, ours }
        } else {
            Self::Field
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Authority, Frame, PADDED, PRIORITY};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len())
            .unwrap_or_default()
            .to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn text(text: &[u8]) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap_or_default();
        [&[length], text].concat()
    }

    /// As gRPC's C core sends it.
    fn block(authority: &[u8]) -> Vec<u8> {
        let fields = [
            (&b":path"[..], &b"/a.B/C%25"[..]),
            (b":authority", authority),
            (b":authoritx", b"a%2Fb"),
        ];
        let mut block = vec![0x3f, 0x00, 0x83, 0x86];
        for (name, value) in fields {
            block.extend([&[0x40][..], &text(name), &text(value)].concat());
        }
        // The same by the static table, without being kept and never to be; and another name of it.
        for (index, value) in [
            (0x41, authority),
            (0x01, authority),
            (0x11, authority),
            (0x44, b"/%41"),
        ] {
            block.extend([&[index][..], &text(value)].concat());
        }
        block
    }

    #[test]
    fn escapes_of_the_authority_alone_are_mended_in_whatever_pieces() {
        let (came, goes) = (block(b"tmp%2Fa%20b.sock"), block(b"tmp-2Fa-20b.sock"));
        let connection = |block: &[u8]| {
            let (first, rest) = block.split_at(40);
            let padded = [&[3, 0, 0, 0, 0, 1], block, b"%%%"].concat();
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(4, 0, &[0, 1, 0, 0, 0, 0]),
                frame(Frame::HEADERS, 4, block),
                frame(0, 0, b"A\x0atmp%2Fdata"),
                frame(Frame::HEADERS, 0, first),
                frame(Frame::CONTINUATION, 4, rest),
                frame(Frame::HEADERS, 4 | PADDED | PRIORITY, &padded),
                frame(Frame::HEADERS, 5, block),
            ]
            .concat()
        };
        let (came, goes) = (connection(&came), connection(&goes));
        for size in 1..=came.len() {
            let mut bytes = came.clone();
            let mut authority = Authority::new();
            for piece in bytes.chunks_mut(size) {
                authority.pass(piece);
            }
            assert_eq!(bytes, goes, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_block_is_left_as_it_is() {
        let blocks: [&[u8]; 5] = [
            b"\x40\xff%%%%",
            b"\x41\x7f\xff\xff\xff\xff\xff\x01%%%%",
            b"\x41\x8a%%%%%%%%%%",
            b"\x40\x8a:authority\x04%%%%",
            b"",
        ];
        for block in blocks {
            for flags in [4, 4 | PADDED, 4 | PRIORITY, 4 | PADDED | PRIORITY] {
                let frames = frame(Frame::HEADERS, flags, block);
                let came = [
                    &[b'x'; 24][..],
                    &frames,
                    &frame(Frame::CONTINUATION, 4, b"%"),
                ]
                .concat();
                let mut bytes = came.clone();
                Authority::new().pass(&mut bytes);
                assert_eq!(bytes, came, "{block:?} {flags:#x}");
            }
        }
    }
}
