//! Host names as asked for and as configured.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, LazyLock},
};

#[cfg(test)]
mod tests;

/// A canonical host name: ASCII labels `[a-z0-9_-]`, lower case, no trailing dot, at most 253 octets.
///
/// Cheap to clone. Never an address literal: a name whose last label is numeric is none.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HostName(Arc<str>);

/// Why a text is not a host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No characters.
    #[error("empty host name")]
    Empty,
    /// Two dots in a row, or a dot at the start.
    #[error("empty label in host name")]
    EmptyLabel,
    /// A label of more than 63 octets (RFC 1035 §2.3.4).
    #[error("label longer than 63 octets in host name")]
    LabelTooLong,
    /// More than 253 octets, the trailing dot aside (RFC 1035 §2.3.4).
    #[error("host name longer than 253 octets")]
    NameTooLong,
    /// Something other than ASCII letters, digits, `-`, `_` and dots. On the wire that includes every `%` and all Unicode.
    #[error("character not allowed in host name")]
    Character,
    /// A label that begins or ends with a hyphen (RFC 1123 §2.1, RFC 952).
    #[error("label begins or ends with a hyphen")]
    Hyphen,
    /// An `xn--` label that is no valid A-label (RFC 5890 §2.3.2.1): undecodable, decoding to ASCII, or not round-tripping.
    #[error("xn-- label is not a valid A-label")]
    ALabel,
    /// The last label is a number (WHATWG URL, "ends in a number"): other parsers would read an IPv4 address.
    #[error("host name ends in a number; an address is written as four plain decimal numbers")]
    NumericLast,
    /// A bracketed text that is no IPv6 address, or one with a zone.
    #[error("not an IPv6 address in brackets")]
    Ipv6,
}

impl HostName {
    /// Parse a name as it came on the wire: ASCII case folded, one trailing dot dropped, nothing else repaired.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(if text.is_empty() {
                HostError::Empty
            } else {
                HostError::EmptyLabel
            });
        }
        if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(HostError::Character);
        }
        if name.len() > 253 {
            return Err(HostError::NameTooLong);
        }
        let name = name.to_ascii_lowercase();
        name.split('.').try_for_each(check_label)?;
        if name.rsplit('.').next().is_some_and(is_numeric) {
            return Err(HostError::NumericLast);
        }
        if name.split('.').any(|label| label.starts_with("xn--")) && !has_valid_a_labels(&name) {
            return Err(HostError::ALabel);
        }
        Ok(Self(name.into()))
    }

    /// Parse a name written in configuration: Unicode is converted (UTS #46) and reported in the second value.
    pub fn parse_configured(text: &str) -> Result<(Self, Option<String>), HostError> {
        if text.is_ascii() {
            return Ok((Self::parse(text)?, None));
        }
        // Ideographic full stops are mapped to dots; what else the mapping leaves is judged as on the wire.
        let ascii = Uts46::new()
            .to_ascii(
                text.as_bytes(),
                AsciiDenyList::EMPTY,
                Hyphens::Allow,
                DnsLength::Ignore,
            )
            .map_err(|_| HostError::Character)?;
        let name = Self::parse(&ascii)?;
        let warning = format!("{text:?} is read as \"{name}\"");
        Ok((name, Some(warning)))
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is this name one or more whole labels below `suffix`?
    #[must_use]
    pub fn is_below(&self, suffix: &Self) -> bool {
        self.0
            .strip_suffix(suffix.as_str())
            .is_some_and(|rest| rest.ends_with('.'))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An exact name, or `*.` and a suffix: one or more whole labels, never the apex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum HostPattern {
    /// This name only.
    Exact(HostName),
    /// Any name below this one.
    Below(HostName),
}

impl HostPattern {
    /// Parse a pattern written in configuration; the second value says what was converted.
    pub fn parse_configured(text: &str) -> Result<(Self, Option<String>), HostError> {
        match text.strip_prefix("*.") {
            Some(suffix) => {
                HostName::parse_configured(suffix).map(|(name, note)| (Self::Below(name), note))
            }
            None => HostName::parse_configured(text).map(|(name, note)| (Self::Exact(name), note)),
        }
    }

    /// Does it cover this name?
    #[must_use]
    pub fn covers(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name.is_below(suffix),
        }
    }

    /// Does it cover every name `other` covers?
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.covers(name),
            (Self::Below(outer), Self::Below(inner)) => inner == outer || inner.is_below(outer),
            (Self::Exact(_), Self::Below(_)) => false,
        }
    }

    /// The name, without the `*.`.
    #[must_use]
    pub fn name(&self) -> &HostName {
        match self {
            Self::Exact(name) | Self::Below(name) => name,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// What the public suffix list knows of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suffix {
    /// Somebody's own name.
    None,
    /// Registries give names out below it (ICANN section).
    Public,
    /// A company gives names out below it (private section).
    Private,
    /// Somebody's own name, but not all that is below it: there the private section has suffixes (`amazonaws.com`).
    Shared,
    /// A single label no list knows: `internal`, `corp`.
    Unlisted,
}

/// What stands above suffixes of the private section and is none itself. The library answers for a name, and cannot be asked what lies
/// below it. A test holds this against the list.
static SHARED: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("host/shared.txt").lines().collect());

/// Is `name` itself a public suffix, or are names directly below it?
pub(crate) fn suffix(name: &HostName) -> Suffix {
    let known = |text: &str| {
        psl::suffix(text.as_bytes())
            .filter(|suffix| suffix.as_bytes() == text.as_bytes() && suffix.is_known())
            .and_then(|suffix| suffix.typ())
    };
    // `*.ck` in the list makes every `x.ck` a suffix; a probe label stands for all of them.
    let below = || known(&format!("x.{name}"));
    match known(name.as_str()).or_else(below) {
        Some(psl::Type::Icann) => Suffix::Public,
        Some(psl::Type::Private) => Suffix::Private,
        None if SHARED.contains(name.as_str()) => Suffix::Shared,
        None if name.as_str().contains('.') => Suffix::None,
        None => Suffix::Unlisted,
    }
}

fn check_label(label: &str) -> Result<(), HostError> {
    match label.len() {
        0 => Err(HostError::EmptyLabel),
        1..=63 if label.starts_with('-') || label.ends_with('-') => Err(HostError::Hyphen),
        1..=63 => Ok(()),
        _ => Err(HostError::LabelTooLong),
    }
}

/// WHATWG URL "ends in a number checker": decimal digits, or `0x` and hexadecimal digits (even none).
fn is_numeric(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
        || label
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Every `xn--` label decodes to Unicode, and the whole name (bidi is a rule of whole names) encodes back to itself.
fn has_valid_a_labels(name: &str) -> bool {
    let uts46 = Uts46::new();
    let decodes = name
        .split('.')
        .filter(|label| label.starts_with("xn--"))
        .all(|label| {
            let (unicode, outcome) =
                uts46.to_unicode(label.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow);
            outcome.is_ok() && !unicode.is_ascii()
        });
    decodes
        && uts46
            .to_ascii(
                name.as_bytes(),
                AsciiDenyList::EMPTY,
                Hyphens::Allow,
                DnsLength::Ignore,
            )
            .is_ok_and(|ascii| ascii == name)
}
