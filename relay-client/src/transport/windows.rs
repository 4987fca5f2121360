//! Windows and buffers of every HTTP/2 connection that carries relay streams, at either end.

/// Bytes one stream may have in flight and unread: enough for 80 Mbit/s at 100 ms.
pub const STREAM: u32 = 1024 * 1024;
/// Bytes a connection may have unread: 128 streams can stand still, full, before their neighbours feel it.
pub const CONNECTION: u32 = 128 * STREAM;
/// Largest DATA frame accepted.
pub const FRAME: u32 = 64 * 1024;
/// Bytes buffered for sending, per stream.
pub const SEND_BUFFER: usize = 256 * 1024;
/// h2's allowance for unread frames under 256 bytes, in missing bytes: 32,768 one-byte frames.
pub const SMALL_FRAMES: usize = 8 * 1024 * 1024;
