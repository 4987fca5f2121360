//! Names both ends agree on before a byte flows.

/// The `:protocol` of an extended CONNECT and the `Upgrade` token (draft-ietf-httpbis-connect-tcp §3).
pub const CONNECT_TCP: &str = "connect-tcp";

/// The ALPN name of HTTP/2 over TLS (RFC 9113 §3.2).
pub const ALPN_H2: &[u8] = b"h2";

/// The ALPN name of HTTP/3 (RFC 9114 §3.1).
pub const ALPN_H3: &[u8] = b"h3";

/// The ALPN name of HTTP/1.1 over TLS (RFC 7301 §6).
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The ALPN name of the relay's own protocol over QUIC: one bidirectional stream per relay stream, with QUIC's own FIN,
/// RESET_STREAM and STOP_SENDING. A change that an older peer would misread gets another number here.
pub const ALPN_RELAY: &[u8] = b"sluicegate-relay/1";

/// The field that says the stream carries capsules (RFC 9297 §3.4).
pub const CAPSULE_PROTOCOL: &str = "capsule-protocol";

/// Its only useful value: a structured-field boolean (RFC 8941 §3.3.6).
pub const CAPSULE_PROTOCOL_TRUE: &str = "?1";

/// With that value, the field by which a client says of an accept stream over HTTP that it sends an empty DATA capsule as soon
/// as it has the 101 or 200: only then is a dial known to have reached it.
pub const TAKEN: &str = "sluicegate-taken";
