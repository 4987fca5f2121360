//! The door: a system's name and its text go in; our document and notes, or faults, come out.

use super::{docker, dreadnode, gestalt, gondolin, just_bash, smokescreen};
use crate::{
    GrantDocument,
    text::{self, Fault, Faults},
};

/// A system whose policy documents can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum System {
    /// Gestalt: `{allowedHosts, defaultAction}`.
    Gestalt,
    /// Dreadnode: `egress.allow`.
    Dreadnode,
    /// just-bash: `allowedUrlPrefixes`.
    JustBash,
    /// Gondolin: `allowedHosts`.
    Gondolin,
    /// Smokescreen: an ACL of version `v1`.
    Smokescreen,
    /// Docker, E2B, Modal and their like: lists of hosts and ranges.
    Docker,
}

impl System {
    /// Every system, with the name it is chosen by.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("gestalt", Self::Gestalt),
        ("dreadnode", Self::Dreadnode),
        ("just-bash", Self::JustBash),
        ("gondolin", Self::Gondolin),
        ("smokescreen", Self::Smokescreen),
        ("docker", Self::Docker),
    ];
}

/// What the person who imports has to say, where a document leaves it open.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// The role of a Smokescreen ACL to read.
    pub role: Option<String>,
    /// Drop what cannot be enforced here (methods and paths inside TLS, denies under report mode, that a wildcard is one label), each with a note,
    /// instead of refusing it. The result then allows more than the source did.
    pub widen: bool,
}

/// A document read from another system's.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The document; only its `egress` is filled.
    pub document: GrantDocument,
    /// Where it is stricter than the source, or where somebody should look; positions are those of the source.
    pub notes: Vec<Fault>,
}

/// Read another system's document.
///
/// # Errors
/// Everything that is wrong with it, or that cannot be kept, at once and with its place in the source.
pub fn import(system: System, source: &str, choices: &Choices) -> Result<Imported, Faults> {
    let mut faults = Faults::default();
    let root = text::parse(source, &mut faults);
    let draft = match system {
        System::Gestalt => gestalt::read(&root, &mut faults),
        System::Dreadnode => dreadnode::read(&root, &mut faults),
        System::JustBash => just_bash::read(&root, choices, &mut faults),
        System::Gondolin => gondolin::read(&root, &mut faults),
        System::Smokescreen => smokescreen::read(&root, choices, &mut faults),
        System::Docker => docker::read(&root, choices, &mut faults),
    };
    if !faults.is_clean() {
        return Err(faults);
    }
    let document = draft.finish(&mut faults);
    if !faults.is_clean() {
        return Err(faults);
    }
    Ok(Imported {
        document,
        notes: faults.warnings,
    })
}
