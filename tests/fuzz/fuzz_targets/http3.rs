//! Frames read the same however the stream is cut; a request is read or refused, and a control stream too.
#![no_main]
use bytes::Bytes;
use sluicegate::http3::{Control, Frames, Piece, request, trailers};

/// Everything a stream says, and whether its connection lives on.
fn told<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Piece>, bool) {
    let (mut frames, mut told) = (Frames::new(4096), Vec::new());
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match (frames.next(&mut input), told.last_mut()) {
                (Err(_), _) => return (told, false),
                (Ok(None), _) => break,
                (Ok(Some(Piece::TooLarge)), _) => {
                    told.push(Piece::TooLarge);
                    return (told, true);
                }
                (Ok(Some(Piece::Data(more))), Some(Piece::Data(before))) => {
                    *before = [&before[..], &more[..]].concat().into();
                }
                (Ok(Some(piece)), _) => told.push(piece),
            }
        }
    }
    (told, true)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (bytes, pieces) = fuzz::pieces(input);
    let whole = told([bytes]);
    assert_eq!(whole, told(pieces));
    for piece in whole.0 {
        if let Piece::Headers(section) = piece {
            let _ = (request(&section, 4096), trailers(&section, 4096));
        }
    }
    let _ = request(bytes, 4096);
    let _ = Control::default().read(Bytes::copy_from_slice(bytes));
});
