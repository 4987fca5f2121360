//! An HTTP proxy inside the sandbox, for programs that read `HTTPS_PROXY` and hold no credential.
//!
//! Each CONNECT, and each target of absolute-form requests, is one `connect-tcp` stream to the gateway's egress pipeline,
//! opened with the session's own egress credential. Nothing is decided here but who may ask: the gateway judges target,
//! first bytes and requests, and its refusals reach the program as they are.
//!
//! Rooms: `serve` accepts and answers, `strict` lets through what can be read one way, `named` is whom a request names, `forward`
//! carries absolute-form requests and `upload` their bodies, `answer` is what is said in HTTP, `notice` who hears of what is refused
//! here.

mod answer;
mod forward;
mod named;
mod notice;
mod serve;
mod strict;
mod upload;

pub use answer::refusal;
pub use notice::{Notice, Noticed, Why};
pub use serve::{Proxy, serve};
