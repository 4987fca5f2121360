//! Windows and buffers of every connection that carries relay streams, HTTP/2's and QUIC's, at either end.

use std::time::Duration;

/// Bytes one stream may have in flight and unread, where nothing says that it may have more: enough for 40 Mbit/s at 100 ms.
pub const STREAM: u32 = 512 * 1024;
/// Bytes a connection may have unread.
pub const CONNECTION: u32 = 128 * STREAM;
/// Streams that a relay client opens on one connection: three quarters of the connection's window, where all of them stand still …
pub const STREAMS: usize = 96;
/// … and, beside them, accept streams that wait for a dial. What is left is for questions: the token, names.
pub const OFFERS: usize = 8;
/// Streams that a client may open on a QUIC connection from its start; with more than half of them open it may open all that the
/// gateway takes. Twice [`STREAMS`], [`OFFERS`] and a few questions: a relay client never waits for more, nor makes room for them.
pub const AT_FIRST: u32 = 224;
/// Bytes a client's connection may have unread where its streams have larger windows: HTTP/2's, which follow the path and how many
/// streams there are, and the first on QUIC. It is the client's own memory.
pub const LARGE_CONNECTION: u32 = 288 * STREAM;
/// Bytes one stream of a client's first QUIC connection may have in flight and unread …
pub const LARGE_STREAM: u32 = 4 * STREAM;
/// … on which it opens so few: a fifth of the window is left where they and its accept streams all stand still.
pub const LARGE_STREAMS: usize = 48;
/// Streams that were reset at this end are known for so long, each with what is still under way to it …
pub const RESET_KNOWN: Duration = Duration::from_secs(5);
/// … and so many of them. To h2 a frame for one that it has forgotten is a fault of the peer's, and 1,024 of those in a connection's
/// life end it, with whatever else it carries.
pub const RESETS_KNOWN: usize = 1024;
/// Largest DATA frame accepted.
pub const FRAME: u32 = 64 * 1024;
/// Bytes buffered for sending, per stream.
pub const SEND_BUFFER: usize = 256 * 1024;
/// h2's allowance for unread frames under 256 bytes, in missing bytes: 32,768 one-byte frames.
pub const SMALL_FRAMES: usize = 8 * 1024 * 1024;
