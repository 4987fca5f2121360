//! Whoever wants to know what was refused in the sandbox itself: no gateway hears of that, so none records it.

use std::{fmt, net::SocketAddr, sync::Arc};

/// Characters of a request's target that are told.
const LONGEST: usize = 100;

/// Why something is refused without asking a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is no request for a proxy, or cannot be read.
    Malformed,
    /// Its target is no host and port.
    Target,
    /// Its Host names another host than its target.
    Mismatch,
    /// Its head is too large.
    TooLarge,
    /// There are as many captured connections as descriptors allow.
    NoRoom,
    /// They are UDP, which nothing carries. Told once for each destination, when all are counted.
    Datagrams,
}

/// One such refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Noticed {
    /// What was asked for: printable, and not long.
    pub asked: String,
    /// Why not.
    pub why: Why,
    /// The program's end of its connection, where it has an address.
    pub from: Option<SocketAddr>,
}

/// Told of each such refusal. Cheap to clone; by default nobody is.
#[derive(Clone, Default)]
pub struct Notice {
    tell: Option<Tell>,
    from: Option<SocketAddr>,
}

type Tell = Arc<dyn Fn(Noticed) + Send + Sync>;

impl Notice {
    /// Tell `whom`.
    pub fn to(whom: impl Fn(Noticed) + Send + Sync + 'static) -> Self {
        Self {
            tell: Some(Arc::new(whom)),
            from: None,
        }
    }

    /// The same for one connection of a program's.
    pub(crate) fn of(&self, from: Option<SocketAddr>) -> Self {
        Self {
            tell: self.tell.clone(),
            from,
        }
    }

    pub(crate) fn refused(&self, asked: &str, why: Why) {
        let asked: String = asked
            .chars()
            .flat_map(char::escape_default)
            .take(LONGEST)
            .collect();
        tracing::debug!(asked, ?why, "refused here");
        if let Some(tell) = &self.tell {
            tell(Noticed {
                asked,
                why,
                from: self.from,
            });
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notice").field(&self.tell.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{net::SocketAddr, sync::mpsc::channel};

    use super::{LONGEST, Notice, Why};

    #[test]
    fn what_is_told_is_printable_and_short() {
        let (tell, told) = channel();
        let notice = Notice::to(move |noticed| tell.send(noticed).unwrap());
        notice.refused("/a\u{1b}[2J\u{9b}", Why::Malformed);
        assert_eq!(told.recv().unwrap().asked, "/a\\u{1b}[2J\\u{9b}");
        let from = Some(SocketAddr::from(([127, 0, 0, 1], 7)));
        notice.of(from).refused(&"x".repeat(5000), Why::TooLarge);
        let noticed = told.recv().unwrap();
        assert_eq!(noticed.asked.len(), LONGEST);
        assert_eq!((noticed.why, noticed.from), (Why::TooLarge, from));
        Notice::default().refused("nobody", Why::Malformed);
    }
}
