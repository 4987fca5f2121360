#![allow(clippy::unwrap_used)]

use bytes::{BufMut, Bytes, BytesMut};

use super::{DATA, Frames, GOAWAY, HEADERS, Piece, SETTINGS, data_head, frame};
use crate::http3::Code;

/// All pieces, the stream given in parts of this size.
fn pieces(stream: &[u8], part: usize) -> Result<Vec<Piece>, Code> {
    let mut frames = Frames::new(64);
    let mut found: Vec<Piece> = Vec::new();
    for part in stream.chunks(part) {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(piece) = frames.next(&mut input)? {
            if piece == Piece::TooLarge {
                found.push(piece);
                return Ok(found);
            }
            match (found.last_mut(), piece) {
                (Some(Piece::Data(before)), Piece::Data(more)) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (_, piece) => found.push(piece),
            }
        }
        assert!(input.is_empty());
    }
    assert!(frames.between());
    Ok(found)
}

#[test]
fn however_it_is_cut_it_reads_the_same() {
    let mut stream = BytesMut::new();
    stream.put(frame(HEADERS, b"head"));
    // A type nobody knows, long enough for a two-byte length; and one without a payload.
    stream.put(frame(0x21 + 0x1f * 1000, &[7; 100]));
    stream.put(frame(0x21, &[]));
    stream.put(data_head(300));
    stream.put_bytes(b'x', 300);
    stream.put(data_head(0));
    stream.put(frame(GOAWAY, &[0]));
    stream.put(frame(HEADERS, &[]));
    let wanted = vec![
        Piece::Headers(Bytes::from_static(b"head")),
        Piece::Data(vec![b'x'; 300].into()),
        Piece::Other(GOAWAY, Bytes::from_static(&[0])),
        Piece::Headers(Bytes::new()),
    ];
    for part in 1..stream.len() {
        assert_eq!(pieces(&stream, part).as_ref(), Ok(&wanted), "{part}");
    }
}

#[test]
fn heads_take_integers_of_any_length() {
    let stream = b"\x40\x01\x80\x00\x00\x02ab\xc0\x00\x00\x00\x00\x00\x00\x00\xc0\x00\x00\x00\x00\x00\x00\x01z";
    let wanted = vec![
        Piece::Headers(Bytes::from_static(b"ab")),
        Piece::Data(Bytes::from_static(b"z")),
    ];
    for part in 1..=stream.len() {
        assert_eq!(pieces(stream, part).as_ref(), Ok(&wanted), "{part}");
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_kept() {
    assert_eq!(pieces(&frame(HEADERS, &[0; 64]), 100).unwrap().len(), 1);
    let large = frame(HEADERS, &[0; 65]);
    assert_eq!(pieces(&large, 100), Ok(vec![Piece::TooLarge]));
    assert_eq!(
        pieces(&frame(SETTINGS, &[0; 5000]), 100),
        Err(Code::ExcessiveLoad)
    );
    // DATA may be as long as it likes: nothing of it is kept.
    let mut frames = Frames::new(64);
    let mut input = Bytes::from_static(b"\x00\xff\xff\xff\xff\xff\xff\xff\xffabc");
    let piece = frames.next(&mut input).unwrap();
    assert_eq!(piece, Some(Piece::Data(Bytes::from_static(b"abc"))));
    assert!(!frames.between());
    for kind in [2, 6, 8, 9] {
        assert_eq!(pieces(&frame(kind, &[]), 9), Err(Code::FrameUnexpected));
    }
    assert_eq!(DATA, 0);
}
