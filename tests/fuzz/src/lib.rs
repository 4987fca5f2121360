//! What the fuzz targets share: cutting the input, and telling a stream's story without its cuts.

use sluicegate::sniff::{Event, RequestStream};

/// Input and a cut: the last byte is the length of the pieces, so that plain files serve as seeds.
pub fn pieces(input: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let (size, bytes) = input
        .split_last()
        .map_or((1, input), |(size, bytes)| (usize::from(*size) + 1, bytes));
    (bytes, bytes.chunks(size))
}

/// Everything a request stream says about some bytes, fed as a caller feeds it: a buffer that grows and is consumed.
pub fn requests<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Vec<String> {
    let (mut stream, mut buffer, mut told, mut body) =
        (RequestStream::new(), Vec::new(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let taken = match stream.step(&buffer) {
                Event::NeedMore => break,
                Event::Head(head) => {
                    told.push(format!("{head:?}"));
                    head.len()
                }
                Event::Body(count) => {
                    body += count;
                    count
                }
                Event::End => {
                    told.push(format!(
                        "{body} {:?}",
                        stream.trailers().collect::<Vec<_>>()
                    ));
                    body = 0;
                    0
                }
                last @ (Event::Opaque | Event::Malformed(_)) => {
                    told.push(format!("{last:?}"));
                    return told;
                }
            };
            buffer.drain(..taken);
        }
    }
    told
}
