//! How a tunnel, request or stream ended.

use serde::Serialize;

/// The end of one piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Opened, and closed by one of its ends in order.
    Completed,
    /// Opened, and reset by one of its ends.
    Reset,
    /// Never opened: refused by the gateway, with a reason.
    Refused,
    /// Never opened: the upstream failed, with a reason.
    Failed,
    /// Opened, and cut by the gateway, with a reason.
    Cut,
    /// Dropped without a word: the task ended early (a forced drain, a vanished downstream).
    Abandoned,
}

/// Who closed first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Party {
    /// The client.
    Downstream,
    /// The target or service.
    Upstream,
    /// The gateway.
    Gateway,
}
