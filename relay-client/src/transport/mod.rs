//! Connections to the gateway: HTTP/2, and for middleboxes HTTP/1.1 upgraded anew for each stream; over TLS, or without
//! it on a private network.

mod endpoint;
mod error;
mod h2;
pub mod upgrade;
pub mod windows;

pub use self::h2::Connection;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Answer, ConnectError, OpenError, Refused};
