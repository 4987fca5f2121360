//! Connections to the gateway. One transport so far: HTTP/2 over TLS, or without it on a private network.

mod endpoint;
mod error;
mod h2;
pub mod windows;

pub use self::h2::Connection;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ConnectError, OpenError, Refused};
