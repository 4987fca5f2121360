//! What a record says of a tunnel's first bytes.

use serde::Deserialize;
use sluicegate_policy::{Denial, FirstBytes, Hello};

/// What is known of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Bytes {
    /// There were none, or they were requests that have records of their own.
    None,
    /// They were these.
    Began(FirstBytes),
    /// They were cut for this, and pass nowhere but where nobody looks.
    Unreadable(Denial),
    /// The record does not say: it is of an earlier version.
    Unknown,
}

/// The part of a record that they are read from.
#[derive(Deserialize)]
pub(super) struct Began {
    r#as: String,
    sni: Option<Box<str>>,
    #[serde(default)]
    ech: bool,
    #[serde(default, rename = "echDraft")]
    ech_draft: bool,
}

impl Began {
    fn read(&self) -> Option<FirstBytes> {
        match self.r#as.as_str() {
            "unseen" => Some(FirstBytes::Unseen),
            "other" => Some(FirstBytes::Other),
            "tls" => Some(FirstBytes::Tls(Hello {
                sni: self.sni.clone(),
                ech: self.ech,
                ech_draft: self.ech_draft,
            })),
            _ => None,
        }
    }
}

/// For which first bytes a tunnel was cut.
pub(super) fn cut_for(outcome: &str, reason: Option<&str>) -> Option<Denial> {
    const REASONS: [Denial; 9] = [
        Denial::TlsRequired,
        Denial::TlsMalformed,
        Denial::SniMissing,
        Denial::SniMismatch,
        Denial::EchDenied,
        Denial::FirstBytesTimeout,
        Denial::MethodNotAllowed,
        Denial::MalformedRequest,
        Denial::UnsupportedProtocol,
    ];
    let reason = reason.filter(|_| outcome == "cut")?;
    REASONS.into_iter().find(|known| known.reason() == reason)
}

/// Of a tunnel: what its record says, why it was cut, and how many bytes went each way.
pub(super) fn of_tunnel(
    began: Option<&Began>,
    cut: Option<Denial>,
    (up, down): (Option<u64>, Option<u64>),
) -> Bytes {
    match cut {
        Some(
            denial @ (Denial::TlsMalformed
            | Denial::FirstBytesTimeout
            | Denial::MalformedRequest
            | Denial::UnsupportedProtocol),
        ) => return Bytes::Unreadable(denial),
        None if (up, down) == (Some(0), Some(0)) => return Bytes::None,
        _ => {}
    }
    if let Some(began) = began {
        return began.read().map_or(Bytes::Unknown, Bytes::Began);
    }
    match cut {
        // What it says is all there is to know of them.
        Some(Denial::TlsRequired) => Bytes::Began(FirstBytes::Other),
        // The client said nothing: whoever speaks last is no TLS client.
        None if up == Some(0) => Bytes::Began(FirstBytes::Other),
        _ => Bytes::Unknown,
    }
}
