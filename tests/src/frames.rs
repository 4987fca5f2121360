//! HTTP/2 frames (RFC 9113 §4.1), written byte by byte: what no library would send.

/// The client's preface (§3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// PRIORITY.
pub const PRIORITY: u8 = 2;
/// RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// GOAWAY.
pub const GOAWAY: u8 = 7;
/// WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// CONTINUATION.
pub const CONTINUATION: u8 = 9;
/// END_STREAM on HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// END_HEADERS.
pub const END_HEADERS: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals without indexing and without Huffman (RFC 7541 §6.2.2); values of up to 16 KiB.
pub fn block<T: AsRef<[u8]>>(fields: &[(T, T)]) -> Vec<u8> {
    let fields = fields.iter();
    fields
        .flat_map(|(name, value)| [vec![0], text(name.as_ref()), text(value.as_ref())].concat())
        .collect()
}

/// A string literal with a 7-bit prefix length (RFC 7541 §5.1, §5.2).
fn text(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = text.len();
    if length < 127 {
        bytes.push(u8::try_from(length).unwrap());
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push(u8::try_from(length % 128 + 128).unwrap());
            length /= 128;
        }
        bytes.push(u8::try_from(length).unwrap());
    }
    bytes.extend_from_slice(text);
    bytes
}

/// HEADERS that open a classic CONNECT stream.
pub fn connect(stream: u32, target: &str, authorization: &str) -> Vec<u8> {
    let fields = [
        (":method", "CONNECT"),
        (":authority", target),
        ("proxy-authorization", authorization),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}
