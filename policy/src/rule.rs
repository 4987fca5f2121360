//! A rule and its attributes.

use crate::{Denial, HostName, path};
use std::{fmt, sync::Arc};

/// Allow or deny, where no rule matches and `allowedHosts` is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Action {
    /// Let through.
    Allow,
    /// Refuse.
    #[default]
    Deny,
}

/// Enforce, or let pass and record what would be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Refusals are refusals.
    #[default]
    Enforce,
    /// Refusals by lists and rules of whoever wrote it, and of those below, are only recorded. What others have written above holds,
    /// and the operator's ceiling, and the judgement of addresses.
    Report,
}

/// Whose document says something, from the one that binds all others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Origin {
    /// The operator's: the configuration's own, a provider's, a ceiling. Also that of a document that stands alone.
    #[default]
    Operator,
    /// A capability's of the operator's catalogue.
    Capability,
    /// The session's own.
    Session,
}

impl Origin {
    /// All of them, in this order.
    pub(crate) const ALL: [Self; 3] = [Self::Operator, Self::Capability, Self::Session];

    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Capability => "capability",
            Self::Session => "session",
        }
    }
}

/// What the first bytes of a tunnel must be, from the strictest on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TlsRule {
    /// TLS with SNI = target.
    Require,
    /// TLS with SNI = target, HTTP with Host = target, or other bytes.
    Auto,
    /// Any bytes.
    Opaque,
}

impl TlsRule {
    /// As documents have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::Auto => "auto",
            Self::Opaque => "opaque",
        }
    }

    /// Where no rule says otherwise: `require` on 443, `auto` elsewhere.
    #[must_use]
    pub const fn default_for(port: u16) -> Self {
        if port == 443 {
            Self::Require
        } else {
            Self::Auto
        }
    }
}

/// What an Encrypted ClientHello's outer name may be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum EchRule {
    /// The target.
    #[default]
    Outer,
    /// No ECH extension at all.
    Deny,
    /// The target or one of these.
    PublicNames(Box<[HostName]>),
}

/// Methods and path prefixes, where they can be enforced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpRule {
    /// Empty = any.
    pub methods: Vec<String>,
    /// Empty = any; whole segments.
    pub path_prefixes: Vec<String>,
}

impl HttpRule {
    /// Judge one request: method (case-sensitive, RFC 9110 §9.1) and path as sent, with its query.
    ///
    /// Where there are path prefixes, a path two parsers could read differently is refused.
    pub fn judge(&self, method: &str, path: &str) -> Result<(), Denial> {
        if !self.methods.is_empty() && !self.methods.iter().any(|allowed| allowed == method) {
            return Err(Denial::MethodNotAllowed);
        }
        let path = path.split('?').next().unwrap_or_default();
        if !self.path_prefixes.is_empty() && !path::covered(&self.path_prefixes, path) {
            return Err(Denial::PathNotAllowed);
        }
        Ok(())
    }
}

/// The entry that decided, as written in the document, with the list it stands in: `allowedHosts[2] "*.wild.test"`.
///
/// Cheap to clone: all entries of a list share their texts.
#[derive(Clone)]
pub struct RuleId {
    list: Arc<RuleTexts>,
    index: u32,
}

/// The texts of a list's entries, one after the other.
#[derive(Debug, Default)]
pub(crate) struct RuleTexts {
    text: Box<str>,
    /// Where each ends.
    ends: Box<[u32]>,
    /// Whose each is.
    origins: Box<[Origin]>,
}

impl FromIterator<(String, Origin)> for RuleTexts {
    fn from_iter<T: IntoIterator<Item = (String, Origin)>>(texts: T) -> Self {
        let (mut text, mut ends, mut origins) = (String::new(), Vec::new(), Vec::new());
        for (one, origin) in texts {
            text.push_str(&one);
            ends.push(text.len() as u32);
            origins.push(origin);
        }
        Self {
            text: text.into(),
            ends: ends.into(),
            origins: origins.into(),
        }
    }
}

impl RuleId {
    /// Name a rule of the operator's.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::by(text, Origin::Operator)
    }

    /// Name a rule that stands in no list, and whose it is.
    pub(crate) fn by(text: &str, origin: Origin) -> Self {
        let list = Arc::new(std::iter::once((text.to_owned(), origin)).collect());
        Self { list, index: 0 }
    }

    /// Whose document it stands in.
    #[must_use]
    pub fn origin(&self) -> Origin {
        let origin = self.list.origins.get(self.index as usize);
        origin.copied().unwrap_or_default()
    }

    /// Entry `index` of a list.
    pub(crate) fn of(list: &Arc<RuleTexts>, index: u32) -> Self {
        let list = Arc::clone(list);
        Self { list, index }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let index = self.index as usize;
        let end = |index: usize| self.list.ends.get(index).map(|end| *end as usize);
        let start = index.checked_sub(1).and_then(end).unwrap_or_default();
        end(index)
            .and_then(|end| self.list.text.get(start..end))
            .unwrap_or_default()
    }
}

impl PartialEq for RuleId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RuleId {}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RuleId").field(&self.as_str()).finish()
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
