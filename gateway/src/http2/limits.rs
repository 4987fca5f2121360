//! Bounds of one connection.

use std::time::Duration;

use sluicegate_relay::transport::windows;

/// Bounds of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Streams open at once.
    pub streams: u32,
    /// Connections at once that carry relay streams of one session, QUIC and HTTP/3 included.
    pub of_session: u32,
    /// Bytes of a request's head, as HTTP/2 counts them (RFC 9113 §6.5.2).
    pub head_bytes: u32,
    /// Until the first request is in, the connection preface before it; on QUIC also until there is room for an answer's head.
    pub head_timeout: Duration,
    /// A connection without a stream for this long is asked to end; zero = never.
    pub idle: Duration,
    /// A peer that answers no PING for this long, after as long a silence, is gone.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            of_session: 16,
            head_bytes: 32 * 1024,
            head_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(600),
            keep_alive: Duration::from_secs(10),
        }
    }
}

/// A server within these bounds, with the windows of connections that carry relay streams.
pub fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(windows::STREAM)
        .initial_connection_window_size(windows::CONNECTION)
        .max_frame_size(windows::FRAME)
        .max_send_buffer_size(windows::SEND_BUFFER)
        .data_frame_budget(windows::SMALL_FRAMES)
        .max_header_list_size(limits.head_bytes)
        .max_concurrent_streams(limits.streams);
    builder
}
