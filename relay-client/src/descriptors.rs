//! File descriptors: as many as this user may have.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Fewer connections than this are not kept, however scarce descriptors are …
const LEAST: u64 = 64;
/// … and no more than this.
const MOST: u64 = 16 * 1024;
/// A program's connection may need two: its own, and over HTTP/1.1 one to the gateway. The rest is for everything else.
const SHARE: u64 = 4;
/// `run` has some thirty before its command begins, and the gateway in it keeps sixteen back.
const OF_RUN: u64 = 64;

/// There are fewer than it takes.
#[derive(Debug, thiserror::Error)]
pub enum Scarce {
    /// No more may be asked for.
    #[error(
        "only {0} files may be open (ulimit -n), and run needs {needed}: raise the hard bound (ulimit -Hn, LimitNOFILE=, \
         docker's --ulimit nofile=)",
        needed = OF_RUN
    )]
    TooFew(u64),
    /// More may be asked for, and were refused.
    #[error("cannot raise the bound on open files")]
    Raise(#[source] io::Error),
}

/// Ask for as many as this user may have. Returns how many there may be, `None` = without a bound.
///
/// # Errors
/// The kernel does not say, or does not allow it.
pub fn raise() -> io::Result<Option<u64>> {
    let now = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: now.maximum,
        ..now
    };
    if now.current != now.maximum {
        setrlimit(Resource::Nofile, all)?;
    }
    Ok(all.current)
}

/// See to it that there are as many as `run` needs: where there are fewer, [`raise`]. Returns how many there were then, for the
/// command, whose bound is not to change.
///
/// # Errors
/// This user may not have that many.
pub fn for_run() -> Result<Option<u64>, Scarce> {
    let few = match getrlimit(Resource::Nofile).current {
        Some(few) if few < OF_RUN => few,
        _ => return Ok(None),
    };
    match raise().map_err(Scarce::Raise)? {
        Some(most) if most < OF_RUN => Err(Scarce::TooFew(most)),
        _ => Ok(Some(few)),
    }
}

/// Have no more than so many.
pub(crate) fn lower(to: u64) -> io::Result<()> {
    let now = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(to),
        ..now
    };
    Ok(setrlimit(Resource::Nofile, few)?)
}

/// So many connections of one kind may be open, and there are descriptors left for the others.
pub(crate) fn share() -> usize {
    bounded(getrlimit(Resource::Nofile).current)
}

fn bounded(limit: Option<u64>) -> usize {
    let share = limit.map_or(MOST, |limit| (limit / SHARE).clamp(LEAST, MOST));
    usize::try_from(share).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{bounded, raise};

    #[test]
    fn a_share_leaves_the_others_theirs() {
        for (limit, share) in [
            (Some(256), 64),
            (Some(1024), 256),
            (Some(20_000), 5000),
            (Some(1 << 20), 16_384),
            (None, 16_384),
        ] {
            assert_eq!(bounded(limit), share, "{limit:?}");
        }
    }

    #[test]
    fn as_many_as_are_allowed() {
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        assert_eq!(raise().ok(), Some(most));
    }
}
