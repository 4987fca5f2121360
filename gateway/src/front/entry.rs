//! Which front a connection is for: its listener says.

use std::sync::Arc;

use super::{Captured, Current, captured, http1, socks};
use crate::listen::{Accepted, Carrying};

/// What a listener's connections speak.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Everything that begins as HTTP.
    Http {
        /// Inside TLS.
        secure: bool,
    },
    /// SOCKS5.
    Socks,
    /// Whatever was meant for somebody else.
    Captured(Arc<Captured>),
}

/// Serve one connection until it is known what it carries; that is left to be awaited.
pub async fn serve(entry: Entry, accepted: Accepted, current: Arc<Current>) -> Option<Carrying> {
    match entry {
        Entry::Http { secure } => http1::serve(accepted, secure, current).await,
        Entry::Socks => socks::serve(accepted, current).await,
        Entry::Captured(captured) => captured::serve(accepted, current, &captured).await,
    }
}
