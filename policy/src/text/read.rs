//! Readers: from a node to a value, or a fault and nothing.

use super::{Faults, Kind, Node, node};
use std::{ops::RangeInclusive, time::Duration};

/// Longest duration a document may name; far beyond any use, and safe to add to any clock.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Node {
    /// Text. A plain number, boolean or null is not text: it must be quoted.
    pub fn string(&self, faults: &mut Faults) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, plain }
                if !plain || !(node::is_number(text) || node::is_boolean(text)) =>
            {
                Some(text)
            }
            Kind::Scalar { .. } => {
                let message = format!("expected text, found {}", self.describe());
                faults.error_hint(&self.place, message, "put it in quotes");
                None
            }
            _ => self.expected("text", faults),
        }
    }

    /// The text of any scalar, quoted or not, whatever it looks like; null, lists and mappings are faults.
    pub fn scalar(&self, faults: &mut Faults) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => self.expected("a single value", faults),
        }
    }

    /// `true` or `false`, unquoted; nothing else (`yes`, `on`, `1` are faults).
    pub fn boolean(&self, faults: &mut Faults) -> Option<bool> {
        match &self.kind {
            Kind::Scalar { text, plain: true } if text == "true" => Some(true),
            Kind::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => self.expected("true or false", faults),
        }
    }

    /// A whole number within `range`, in decimal digits without sign or leading zero, unquoted.
    pub fn integer(&self, range: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        let value = match &self.kind {
            Kind::Scalar { text, plain: true } => decimal(text),
            _ => None,
        };
        match value {
            Some(value) if range.contains(&value) => Some(value),
            _ => self.expected(
                &format!("a whole number from {} to {}", range.start(), range.end()),
                faults,
            ),
        }
    }

    /// A span of time: `300` (seconds), `250ms`, `10s`, `5m`, `1h`, `2d`.
    pub fn duration(&self, faults: &mut Faults) -> Option<Duration> {
        const UNITS: &[(&str, u64)] = &[
            ("ms", 1),
            ("s", 1000),
            ("m", 60_000),
            ("h", 3_600_000),
            ("d", 86_400_000),
            ("", 1000),
        ];
        let value = self.with_unit(UNITS).map(Duration::from_millis);
        match value {
            Some(value) if value <= MAX_DURATION => Some(value),
            _ => self.expected(
                "a duration such as 300 (seconds), 10s, 5m, 1h or 2d",
                faults,
            ),
        }
    }

    /// A number of bytes: `4096`, `64KiB`, `1MiB`, `2GiB`, `1TiB`.
    pub fn bytes(&self, faults: &mut Faults) -> Option<u64> {
        const UNITS: &[(&str, u64)] = &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("", 1),
        ];
        match self.with_unit(UNITS) {
            Some(value) => Some(value),
            None => self.expected("a number of bytes such as 4096, 64KiB or 1MiB", faults),
        }
    }

    /// The items of a list; anything else is a fault (and empty).
    pub fn list(&self, faults: &mut Faults) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => {
                self.expected::<()>("a list", faults);
                &[]
            }
        }
    }

    /// One of a closed set of words.
    pub fn choice<T: Clone>(&self, choices: &[(&str, T)], faults: &mut Faults) -> Option<T> {
        if let Kind::Scalar { text, .. } = &self.kind
            && let Some((_, value)) = choices.iter().find(|(name, _)| name == text)
        {
            return Some(value.clone());
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.expected(&format!("one of {}", names.join(", ")), faults)
    }

    /// Report that something else was expected here. Silent where the value was reported before.
    pub fn expected<T>(&self, what: &str, faults: &mut Faults) -> Option<T> {
        let found = match &self.kind {
            Kind::Broken => return None,
            Kind::Scalar { text, .. } => quote(text),
            _ => self.describe().to_owned(),
        };
        let message = format!("expected {what}, found {found}");
        match &self.kind {
            Kind::Null => faults.error_hint(
                &self.place,
                message,
                "leave the key out, or give it a value",
            ),
            _ => faults.error(&self.place, message),
        }
        None
    }

    /// A number and its unit; the empty unit must stand last.
    fn with_unit(&self, units: &[(&str, u64)]) -> Option<u64> {
        let Kind::Scalar { text, .. } = &self.kind else {
            return None;
        };
        let (number, factor) = units
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, *factor)))?;
        decimal(number)?.checked_mul(factor)
    }
}

/// A value for a message: escaped, and not longer than a line.
pub(crate) fn quote(text: &str) -> String {
    if text.chars().count() <= 80 {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(77).collect();
    format!("{:?}", head + "...")
}

/// Decimal digits only: no sign, no leading zero (octal elsewhere), no underscore.
fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| text.parse().ok()).flatten()
}
