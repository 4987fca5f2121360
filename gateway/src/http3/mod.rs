//! HTTP/3 (RFC 9114) as bytes: frames, settings, field sections, error codes, and requests read out of them. Pure.
//!
//! What lives here is what a server needs. What does not: QUIC, streams, and what is done with a request
//! (`front/h3`). Nothing is pushed, and the dynamic table of QPACK is never used.

mod code;
mod control;
mod frame;
mod qpack;
mod request;

pub use code::Code;
pub use control::{Control, Unidirectional, goaway, opening};
pub use frame::{Frames, Piece, data_head};
pub use request::{Asked, Unasked, answer, behind, carry_on, request, trailers};
