//! What connections of HTTP/2 have in common wherever they are served: their bounds, how much of one's talk may be about
//! itself, and where frames begin and end. What does not live here: what their streams are.

mod answer;
mod calm;
mod frames;
mod limits;

pub use answer::answer;
pub use calm::Calm;
pub use frames::{Frame, Frames, Piece};
pub use limits::{Limits, builder, is_flood};
