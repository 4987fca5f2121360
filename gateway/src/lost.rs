//! Why something may not be open any more, and what its record says of that.

use std::fmt;

use sluicegate_policy::{Denial, Term};

use crate::telemetry::Recorder;

/// Why something may not be open any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The reason.
    pub denial: Denial,
    /// What changed, where that is the reason.
    pub changed: Option<Changed>,
}

/// What of something open is not as it would have to be now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Its target would be refused.
    Target(Denial),
    /// What is known of its bytes would be refused.
    Bytes(Denial),
    /// The address that it was dialled at would be refused.
    Address(Denial),
    /// Its name has static answers, of which that address is none.
    Answers,
    /// Another carries what is asked for: the operator's proxy, another one, or nobody.
    Way,
    /// Its service would be refused, or a call's method.
    Service(Denial),
    /// Its service is another one in this.
    ServiceTerm(Term),
    /// The sandbox's listener would be refused.
    Listener(Denial),
    /// That is another one in this.
    ListenerTerm(Term),
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, denial) = match self {
            Self::Bytes(Denial::PolicyChanged) => {
                return f.write_str("its first bytes, which nobody looked at, would be judged now");
            }
            Self::Answers => return f.write_str("its name has other static answers now"),
            Self::Way => return f.write_str("upstreamProxy has it go another way now"),
            Self::ServiceTerm(term) => {
                return write!(f, "its service has another {} now", term.as_str());
            }
            Self::ListenerTerm(term) => {
                return write!(f, "its listener has another {} now", term.as_str());
            }
            Self::Target(denial) => ("its target", denial),
            Self::Bytes(denial) => ("what it carries", denial),
            Self::Address(denial) => ("its address", denial),
            Self::Service(denial) => ("its service", denial),
            Self::Listener(denial) => ("its listener", denial),
        };
        write!(f, "{what} would be refused now: {}", denial.reason())
    }
}

impl From<Denial> for Lost {
    fn from(denial: Denial) -> Self {
        let changed = None;
        Self { denial, changed }
    }
}

impl From<Changed> for Lost {
    fn from(changed: Changed) -> Self {
        Self {
            denial: Denial::PolicyChanged,
            changed: Some(changed),
        }
    }
}

impl Lost {
    /// The reason, after what changed is on record.
    pub fn told(self, recorder: &mut Recorder) -> Denial {
        if let Some(changed) = self.changed {
            recorder.more_detail(changed);
        }
        self.denial
    }

    /// It was open, and is cut.
    pub fn cut(self, recorder: &mut Recorder) {
        let denial = self.told(recorder);
        recorder.cut(denial);
    }
}
