//! An HTTP proxy inside the sandbox, for programs that read `HTTPS_PROXY` and hold no credential.
//!
//! Each CONNECT, and each target of absolute-form requests, is one `connect-tcp` stream to the gateway's egress pipeline,
//! opened with the session's own egress credential. Nothing is decided here but who may ask: the gateway judges target,
//! first bytes and requests, and its refusals reach the program as they are.
//!
//! Rooms: `serve` accepts and answers, `forward` carries absolute-form requests, `answer` is what is said in HTTP, `notice` who
//! hears of what is refused here.

mod answer;
mod forward;
mod notice;
mod serve;

pub use answer::refusal;
pub use notice::{Notice, Noticed, Why};
pub use serve::{Proxy, serve};
