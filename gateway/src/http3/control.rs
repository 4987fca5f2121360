//! What goes beside requests: the control streams (RFC 9114 §6.2.1) and the other unidirectional ones.

use bytes::{Bytes, BytesMut};
use sluicegate_relay_protocol::varint;

use super::{
    Code,
    frame::{self, CANCEL_PUSH, Frames, GOAWAY, MAX_PUSH_ID, Piece, SETTINGS},
};

/// Field sections larger than this need not be sent (RFC 9114 §7.2.4.1).
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
/// Extended CONNECT is served (RFC 9220 §3).
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
/// Settings of HTTP/2 that have no meaning here (RFC 9114 §7.2.4.1).
const HTTP2_ONLY: [u64; 4] = [0x2, 0x3, 0x4, 0x5];

/// What a unidirectional stream of a client is for, by its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unidirectional {
    /// Its control stream.
    Control,
    /// Insertions into our dynamic table, of which there is none.
    Encoder,
    /// What has become of our insertions: there are none.
    Decoder,
    /// Something this server knows nothing of.
    Unknown,
}

impl Unidirectional {
    /// The type at the start of `bytes`, which is consumed; `None`: more is needed.
    ///
    /// # Errors
    /// A type that no client may open.
    pub fn read(bytes: &mut BytesMut) -> Result<Option<Self>, Code> {
        let Some((kind, rest)) = varint::decode(bytes) else {
            return Ok(None);
        };
        let size = bytes.len() - rest.len();
        let found = match kind {
            0x0 => Self::Control,
            // Only servers push.
            0x1 => return Err(Code::StreamCreation),
            0x2 => Self::Encoder,
            0x3 => Self::Decoder,
            _ => Self::Unknown,
        };
        let _ = bytes.split_to(size);
        Ok(Some(found))
    }
}

/// The first bytes of our control stream: its type and SETTINGS. QPACK's capacity is zero unless it is set.
pub fn opening(max_field_section: u32) -> Bytes {
    let settings: Vec<u8> = [
        (MAX_FIELD_SECTION_SIZE, u64::from(max_field_section)),
        (ENABLE_CONNECT_PROTOCOL, 1),
    ]
    .into_iter()
    .flat_map(|(name, value)| varint::encode(name).chain(varint::encode(value)))
    .collect();
    let mut bytes: BytesMut = varint::encode(0x0).collect();
    bytes.extend_from_slice(&frame::frame(SETTINGS, &settings));
    bytes.freeze()
}

/// GOAWAY (RFC 9114 §5.2): requests on this stream and later ones are not served.
pub fn goaway(stream: u64) -> Bytes {
    let id: Vec<u8> = varint::encode(stream).collect();
    frame::frame(GOAWAY, &id)
}

/// A client's control stream, behind its type.
#[derive(Debug)]
pub struct Control {
    frames: Frames,
    settled: bool,
    /// The largest push id so far; it may not go down.
    pushes: u64,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            frames: Frames::new(0),
            settled: false,
            pushes: 0,
        }
    }
}

impl Control {
    /// Read what has come. Nothing a client says here changes what it is served.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub fn read(&mut self, mut bytes: Bytes) -> Result<(), Code> {
        while let Some(piece) = self.frames.next(&mut bytes)? {
            let Piece::Other(kind, payload) = piece else {
                return Err(Code::FrameUnexpected);
            };
            match (kind, self.settled) {
                (SETTINGS, false) => {
                    settings(&payload)?;
                    self.settled = true;
                }
                (_, false) => return Err(Code::MissingSettings),
                (GOAWAY, true) => drop(number(&payload)?),
                (MAX_PUSH_ID, true) => {
                    let most = number(&payload)?;
                    if most < self.pushes {
                        return Err(Code::Frame);
                    }
                    self.pushes = most;
                }
                // Nothing was promised that could be cancelled.
                (CANCEL_PUSH, true) => drop(number(&payload)?),
                _ => return Err(Code::FrameUnexpected),
            }
        }
        Ok(())
    }
}

/// A frame that is one number.
fn number(payload: &[u8]) -> Result<u64, Code> {
    match varint::decode(payload) {
        Some((number, [])) => Ok(number),
        _ => Err(Code::Frame),
    }
}

fn settings(mut payload: &[u8]) -> Result<(), Code> {
    let mut seen = Vec::new();
    while !payload.is_empty() {
        let (name, rest) = varint::decode(payload).ok_or(Code::Frame)?;
        let (_, rest) = varint::decode(rest).ok_or(Code::Frame)?;
        if HTTP2_ONLY.contains(&name) || seen.contains(&name) {
            return Err(Code::Settings);
        }
        seen.push(name);
        payload = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::{Bytes, BytesMut};

    use super::{Code, Control, Unidirectional, goaway, opening};

    fn read(bytes: &'static [u8]) -> Result<(), Code> {
        Control::default().read(Bytes::from_static(bytes))
    }

    #[test]
    fn what_we_say() {
        // Type 0; SETTINGS of 7 bytes: 6 = 32768 (four bytes), 8 = 1.
        assert_eq!(
            &*opening(32 * 1024),
            b"\x00\x04\x07\x06\x80\x00\x80\x00\x08\x01"
        );
        assert_eq!(&*goaway(8), b"\x07\x01\x08");
    }

    #[test]
    fn what_a_client_may_say() {
        // SETTINGS; then MAX_PUSH_ID twice, GOAWAY, CANCEL_PUSH, PRIORITY_UPDATE (RFC 9218), one of no known type.
        let good = b"\x04\x02\x06\x10\x0d\x01\x05\x0d\x01\x05\x07\x01\x00\x03\x01\x00\x80\x0f\x07\x00\x02\x00u\x21\x00";
        assert_eq!(read(good), Ok(()));
        assert_eq!(read(b"\x04\x00"), Ok(()));
        let mut control = Control::default();
        for byte in good {
            assert_eq!(control.read(Bytes::copy_from_slice(&[*byte])), Ok(()));
        }
    }

    #[test]
    fn what_it_may_not() {
        let table: [(&[u8], Code); 9] = [
            (b"\x07\x01\x00", Code::MissingSettings),
            (b"\x00\x01x", Code::FrameUnexpected),
            (b"\x04\x00\x04\x00", Code::FrameUnexpected),
            (b"\x04\x00\x00\x01x", Code::FrameUnexpected),
            (b"\x04\x02\x02\x01", Code::Settings),
            (b"\x04\x04\x06\x01\x06\x01", Code::Settings),
            (b"\x04\x01\x06", Code::Frame),
            (b"\x04\x00\x0d\x01\x05\x0d\x01\x04", Code::Frame),
            (b"\x04\x00\x07\x02\x00\x00", Code::Frame),
        ];
        for (bytes, code) in table {
            assert_eq!(read(bytes), Err(code), "{bytes:x?}");
        }
    }

    #[test]
    fn types_of_streams() {
        let read = |bytes: &[u8]| Unidirectional::read(&mut BytesMut::from(bytes));
        assert_eq!(read(b"\x00"), Ok(Some(Unidirectional::Control)));
        assert_eq!(read(b"\x40\x02"), Ok(Some(Unidirectional::Encoder)));
        assert_eq!(read(b"\x03"), Ok(Some(Unidirectional::Decoder)));
        assert_eq!(read(b"\x21"), Ok(Some(Unidirectional::Unknown)));
        assert_eq!(read(b"\x01"), Err(Code::StreamCreation));
        assert_eq!(read(b"\x40"), Ok(None));
        let mut bytes = BytesMut::from(&b"\x00\x04\x00"[..]);
        Unidirectional::read(&mut bytes).unwrap();
        assert_eq!(&bytes[..], b"\x04\x00");
    }
}
