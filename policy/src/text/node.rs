//! The tree a text becomes.

use super::{Place, Position};

/// A value with its position and its path.
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) place: Place,
    /// Where its key stands, in a mapping.
    pub(super) key: Option<Position>,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `null`, `~` or nothing at all after a colon. Never the same as an absent key.
    Null,
    /// Text, with whether it was written without quotes (and may thus be a number or a boolean).
    Scalar {
        /// The text, unescaped.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written; no key twice.
    Map(Vec<(String, Node)>),
    /// Already reported as a fault: readers return nothing and stay silent.
    Broken,
}

impl Node {
    /// Where it starts.
    #[must_use]
    pub fn position(&self) -> Position {
        self.place.position
    }

    /// Its path, e.g. `egress.allowedHosts[2]`.
    #[must_use]
    pub fn path(&self) -> String {
        self.place.path.to_string()
    }

    /// Position and path, to keep for faults found later.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The same, but pointing at the key: for faults about the key itself.
    #[must_use]
    pub fn key_place(&self) -> Place {
        Place {
            position: self.key.unwrap_or(self.place.position),
            path: self.place.path.clone(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Is it `null`?
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// Is it a mapping? For keys that may be written in a short and a long form.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map(_))
    }

    /// Is it a list? For keys that take one value or several.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List(_))
    }

    /// A word for messages.
    pub(super) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "null",
            Kind::Scalar { text, plain: true } if is_number(text) => "a number",
            Kind::Scalar { text, plain: true } if is_boolean(text) => "a boolean",
            Kind::Scalar { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Broken => "nothing readable",
        }
    }
}

/// `null` of the YAML 1.2 core schema (§10.3.2), when written without quotes.
pub(super) fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// A boolean of the core schema, when written without quotes.
pub(super) fn is_boolean(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// An integer or float of the core schema, when written without quotes.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    let starts = digits.strip_prefix('.').unwrap_or(digits);
    starts.starts_with(|c: char| c.is_ascii_digit()) && digits.parse::<f64>().is_ok()
}
