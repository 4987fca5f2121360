//! From findings to a state: three that agree change it, and what is unknown changes nothing. Pure.

use super::check::Finding;

/// A state changes after so many findings in a row that agree.
const AGREEING: u8 = 3;

/// What is held true of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Works,
    Fails { reason: String, setting: String },
}

impl State {
    const fn works(&self) -> bool {
        matches!(self, Self::Works)
    }
}

/// The newest finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Last {
    pub(super) finding: Finding,
    /// Seconds of Unix time.
    pub(super) at: u64,
    /// Milliseconds.
    pub(super) took: u64,
}

/// Findings in a row that would change the state.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pending {
    works: bool,
    since: u64,
    count: u8,
}

/// One check over time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Track {
    /// Absent: nothing is established yet. With it, since when (seconds of Unix time).
    state: Option<(State, u64)>,
    pending: Option<Pending>,
    last: Option<Last>,
}

impl Track {
    /// Of what there is nothing to look at.
    pub(super) fn unasked(why: &str, at: u64) -> Self {
        let last = Last {
            finding: Finding::Unknown(why.into()),
            at,
            took: 0,
        };
        Self {
            last: Some(last),
            ..Self::default()
        }
    }

    /// What is established, and since when.
    pub(super) fn state(&self) -> Option<&(State, u64)> {
        self.state.as_ref()
    }

    /// The newest finding.
    pub(super) fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// Is there nothing to look at, or was it never found to be anything?
    pub(super) fn is_unasked(&self) -> bool {
        let unknown = |last: &Last| matches!(last.finding, Finding::Unknown(_));
        self.state.is_none() && self.pending.is_none() && self.last().is_some_and(unknown)
    }

    /// Would more of the newest finding change something?
    pub(super) fn is_moving(&self) -> bool {
        self.pending.is_some()
    }

    /// Take a finding.
    pub(super) fn observe(&mut self, last: Last) {
        let at = last.at;
        let found = match last.finding.clone() {
            Finding::Pass => Some(State::Works),
            Finding::Fail { reason, setting } => Some(State::Fails { reason, setting }),
            Finding::Unknown(_) => None,
        };
        self.last = Some(last);
        let Some(found) = found else { return };
        if let Some((state, _)) = &mut self.state
            && state.works() == found.works()
        {
            // It may fail for another reason now; the newest one helps most.
            *state = found;
            self.pending = None;
            return;
        }
        let mut pending = match self.pending.take() {
            Some(pending) if pending.works == found.works() => pending,
            Some(_) | None => Pending {
                works: found.works(),
                since: at,
                count: 0,
            },
        };
        pending.count += 1;
        if pending.count < AGREEING {
            self.pending = Some(pending);
        } else {
            self.state = Some((found, pending.since));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn last(finding: Finding, at: u64) -> Last {
        Last {
            finding,
            at,
            took: 1,
        }
    }

    fn fail(reason: &str) -> Finding {
        Finding::fail(reason, "publicUrl")
    }

    fn unknown() -> Finding {
        Finding::Unknown("not looked at".to_owned())
    }

    /// The states after each finding: `+` works, `-` fails, `?` nothing established.
    fn states(findings: &str) -> String {
        let mut track = Track::default();
        let mut out = String::new();
        for (at, letter) in findings.chars().enumerate() {
            let finding = match letter {
                '+' => Finding::Pass,
                '-' => fail("down"),
                _ => unknown(),
            };
            track.observe(last(finding, at as u64));
            out.push(match track.state() {
                None => '?',
                Some((State::Works, _)) => '+',
                Some((State::Fails { .. }, _)) => '-',
            });
        }
        out
    }

    #[test]
    fn three_in_a_row_change_it_and_unknown_neither_counts_nor_breaks_the_row() {
        for (findings, expected) in [
            ("+++", "??+"),
            ("---", "??-"),
            ("+-+-++", "??????"),
            ("+-+---", "?????-"),
            ("+++--+---", "??++++++-"),
            ("+++????", "??+++++"),
            ("+++-?-?-", "??+++++-"),
            ("????", "????"),
            ("---++-+++", "??------+"),
        ] {
            assert_eq!(states(findings), expected, "{findings}");
        }
    }

    #[test]
    fn it_fails_since_the_first_of_the_three_and_for_the_newest_reason() {
        let mut track = Track::default();
        for at in 10..13 {
            track.observe(last(fail("expired"), at));
        }
        track.observe(last(fail("another name"), 13));
        let (state, since) = track.state().unwrap();
        let State::Fails { reason, .. } = state else {
            panic!("{state:?}")
        };
        assert_eq!((reason.as_str(), *since), ("another name", 10));
        assert!(!track.is_moving());
        track.observe(last(Finding::Pass, 14));
        assert!(track.is_moving());
    }

    proptest! {
        /// Whatever is found: a state never changes on fewer than three agreeing findings.
        #[test]
        fn no_change_without_three(findings in "[+?-]{0,40}") {
            let states = states(&findings);
            let mut before = '?';
            let mut agreeing: Vec<char> = Vec::new();
            for (finding, state) in findings.chars().zip(states.chars()) {
                if finding != '?' {
                    agreeing.push(finding);
                }
                if state != before {
                    let tail: String = agreeing.iter().rev().take(3).collect();
                    prop_assert_eq!(tail, state.to_string().repeat(3));
                }
                before = state;
            }
        }
    }
}
