//! Where the frames of a connection begin and end, in bytes that come in pieces.

/// What stands before a frame's payload (RFC 9113 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its type, known or not.
    pub kind: u8,
    /// What they mean depends on the type.
    pub flags: u8,
    /// Bytes of payload.
    pub length: usize,
    /// The stream it belongs to; 0: the connection.
    pub stream: u32,
}

impl Frame {
    /// RFC 9113 §6.1.
    pub const DATA: u8 = 0;
    /// RFC 9113 §6.2.
    pub const HEADERS: u8 = 1;
    /// RFC 9113 §6.4.
    pub const RST_STREAM: u8 = 3;
    /// RFC 9113 §6.10.
    pub const CONTINUATION: u8 = 9;
}

/// What the first of the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// The end of what stands before a frame's payload, or all of it.
    Head(Frame),
    /// Payload of the frame whose head came last.
    Payload,
}

/// The client's connection preface (RFC 9113 §3.4) comes before its frames.
const PREFACE: usize = 24;
const HEAD: usize = 9;

/// Finds the frames of one direction. Nothing is kept of them but a head that has come in part.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface still to come.
    preface: usize,
    head: [u8; HEAD],
    have: usize,
    /// Bytes of payload still to come.
    payload: usize,
}

impl Frames {
    /// From a client's first byte on.
    pub const fn of_client() -> Self {
        Self::after(PREFACE)
    }

    /// From a server's first byte on.
    pub const fn of_server() -> Self {
        Self::after(0)
    }

    const fn after(preface: usize) -> Self {
        Self {
            preface,
            head: [0; HEAD],
            have: 0,
            payload: 0,
        }
    }

    /// What comes first in these, the next bytes of the connection, and with how many of them it ends; the next call is for those
    /// behind. `None`: they end before the next head does, and all of them are taken.
    pub fn next(&mut self, bytes: &[u8]) -> Option<(Piece, usize)> {
        if self.payload > 0 {
            let taken = self.payload.min(bytes.len());
            self.payload -= taken;
            return (taken > 0).then_some((Piece::Payload, taken));
        }
        let before = self.preface.min(bytes.len());
        self.preface -= before;
        let bytes = bytes.get(before..).unwrap_or_default();
        let wanted = self.head.get_mut(self.have..).unwrap_or_default();
        let taken = wanted.len().min(bytes.len());
        wanted
            .iter_mut()
            .zip(bytes)
            .for_each(|(at, byte)| *at = *byte);
        self.have += taken;
        if self.have < HEAD {
            return None;
        }
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let frame = Frame {
            kind,
            flags,
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            // Its first bit is reserved (RFC 9113 §4.1).
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
        };
        (self.have, self.payload) = (0, frame.length);
        Some((Piece::Head(frame), before + taken))
    }

    /// The heads in the next bytes of the connection; payload is passed over.
    pub fn heads(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        while let Some((piece, taken)) = self.next(bytes) {
            if let Piece::Head(frame) = piece {
                seen(frame);
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frame, Frames, Piece};

    #[test]
    fn a_head_is_read_field_by_field() {
        let bytes = [1, 0, 2, 0xfa, 0x25, 0xff, 0, 0, 3];
        let frame = Frame {
            kind: 0xfa,
            flags: 0x25,
            length: 0x01_0002,
            stream: 0x7f00_0003,
        };
        let mut frames = Frames::of_server();
        assert_eq!(frames.next(&bytes), Some((Piece::Head(frame), 9)));
        assert_eq!(frames.next(&[]), None);
        assert_eq!(frames.next(&[9; 40]), Some((Piece::Payload, 40)));
    }

    #[test]
    fn only_a_client_sends_a_preface() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let of_client = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
        let taken = |mut frames: Frames, bytes: &[u8]| frames.next(bytes).map(|(_, taken)| taken);
        assert_eq!(taken(Frames::of_client(), &of_client), Some(33));
        assert_eq!(taken(Frames::of_server(), &settings), Some(9));
    }

    proptest! {
        /// However the bytes are cut, the frames are the same, and each byte of payload is shown once.
        #[test]
        fn pieces_make_no_difference(
            sent in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<u8>()), 0..20),
            cuts in prop::collection::vec(1..50_usize, 1..200),
            preface in 0..30_usize,
        ) {
            let mut bytes = vec![0xaa; preface];
            for (payload, kind) in &sent {
                let short = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
                bytes.extend(short.get(1..).unwrap_or_default());
                bytes.extend([*kind, 0, 0, 0, 0, 1]);
                bytes.extend(payload);
            }
            let (mut frames, mut heads) = (Frames::after(preface), Frames::after(preface));
            let (mut found, mut counted) = (Vec::<(Vec<u8>, u8)>::new(), Vec::new());
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (mut piece, after) = rest.split_at((*cut).min(rest.len()));
                heads.heads(piece, |frame| counted.push((frame.length, frame.kind)));
                while let Some((what, taken)) = frames.next(piece) {
                    let (these, more) = piece.split_at(taken);
                    match (what, found.last_mut()) {
                        (Piece::Head(frame), _) => {
                            prop_assert_eq!(frame.stream, 1);
                            found.push((Vec::new(), frame.kind));
                        }
                        (Piece::Payload, Some((payload, _))) => payload.extend(these),
                        (Piece::Payload, None) => return Err(TestCaseError::fail("payload of no frame")),
                    }
                    piece = more;
                }
                if after.is_empty() {
                    break;
                }
                rest = after;
            }
            let lengths: Vec<_> = sent.iter().map(|(payload, kind)| (payload.len(), *kind)).collect();
            prop_assert_eq!(found, sent);
            prop_assert_eq!(counted, lengths);
        }
    }
}
