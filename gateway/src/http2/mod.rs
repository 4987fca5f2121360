//! What connections of HTTP/2 have in common wherever they are served: their bounds, and how much of one's talk may be about
//! itself. What does not live here: what their streams are.

mod answer;
mod calm;
mod limits;

pub use answer::answer;
pub use calm::Calm;
pub use limits::{Limits, builder, is_flood};
