//! Which front a connection is for: its listener says.

use std::sync::Arc;

use super::{Captured, Context, captured, http1, socks};
use crate::listen::Accepted;

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

/// Serve one connection to its end.
pub async fn serve(entry: Entry, accepted: Accepted, context: Arc<Context>) {
    match entry {
        Entry::Http { secure } => http1::serve(accepted, secure, context).await,
        // Apart: an HTTP connection need not hold room for them.
        Entry::Socks => Box::pin(socks::serve(accepted, context)).await,
        Entry::Captured(captured) => {
            Box::pin(captured::serve(accepted, context, &captured)).await;
        }
    }
}
