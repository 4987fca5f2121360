//! Whoever wants to know what was refused in the sandbox itself: no gateway hears of that, so none records it.

use std::{fmt, sync::Arc};

/// Characters of a request's target that are told.
const LONGEST: usize = 100;

/// What a request is that is none for a proxy.
const MALFORMED: &str = "malformed_request";

/// Told of each such refusal. Cheap to clone; by default nobody is.
#[derive(Clone, Default)]
pub struct Notice(Option<Tell>);

type Tell = Arc<dyn Fn(String, &'static str) + Send + Sync>;

impl Notice {
    /// Tell `whom` what was asked for, printable and not long, and the reason.
    pub fn to(whom: impl Fn(String, &'static str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(whom)))
    }

    pub(super) fn malformed(&self, asked: &str) {
        self.refused(asked, MALFORMED);
    }

    pub(crate) fn refused(&self, asked: &str, reason: &'static str) {
        let asked: String = asked
            .chars()
            .flat_map(char::escape_default)
            .take(LONGEST)
            .collect();
        tracing::debug!(asked, reason, "refused here");
        if let Some(tell) = &self.0 {
            tell(asked, reason);
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notice").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::channel;

    use super::{LONGEST, Notice};

    #[test]
    fn what_is_told_is_printable_and_short() {
        let (tell, told) = channel();
        let notice = Notice::to(move |asked, _| tell.send(asked).unwrap());
        notice.malformed("/a\u{1b}[2J\u{9b}");
        assert_eq!(told.recv().unwrap(), "/a\\u{1b}[2J\\u{9b}");
        notice.malformed(&"x".repeat(5000));
        assert_eq!(told.recv().unwrap().len(), LONGEST);
        Notice::default().malformed("nobody");
    }
}
