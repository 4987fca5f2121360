//! Which front a connection is for: its listener says.

use std::sync::Arc;

use super::{Context, http1, socks};
use crate::listen::Accepted;

/// What a listener's connections speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Everything that begins as HTTP.
    Http,
    /// SOCKS5.
    Socks,
}

/// Serve one connection to its end.
pub async fn serve(entry: Entry, accepted: Accepted, context: Arc<Context>) {
    match entry {
        Entry::Http => http1::serve(accepted, context).await,
        Entry::Socks => socks::serve(accepted, context).await,
    }
}
