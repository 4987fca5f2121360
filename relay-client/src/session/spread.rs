//! Which connection the next stream goes to, and when there should be one more. Streams are never moved.

use tokio::time::Instant;

use crate::transport::{Connection, Transport};

/// With fewer places than this the next connection is made, before a stream has to wait for it.
const AHEAD: usize = 24;
/// Bytes of the last one to two seconds that make bulk: 2 to 4 MiB/s.
const BULK: u64 = 4 * 1024 * 1024;
/// With so many connections there are no more on account of bulk: a session's places are for all of its clients.
const SPREAD: usize = 4;

/// One connection as the next stream sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Places.
    free: usize,
    /// Bytes that it has carried lately.
    load: u64,
}

/// What one more connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Places are about to run short.
    Room,
    /// All that there are carry bulk.
    Bulk,
}

impl Need {
    /// In words.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Room => "streams ran short",
            Self::Bulk => "those that are there carry bulk",
        }
    }
}

impl Seen {
    /// `lead` is the first one's transport: what goes by another is for whoever finds no room elsewhere.
    pub(super) fn of(connection: &Connection, lead: Transport, now: Instant) -> Self {
        let load = if connection.transport() == lead {
            connection.carries(now)
        } else {
            u64::MAX
        };
        let free = connection.free();
        Self { free, load }
    }

    /// What counts of its load.
    fn bulk(self) -> u64 {
        if self.load < BULK { 0 } else { self.load }
    }
}

/// The first one that has a place and carries no bulk; where all with places do, the one that carries least.
pub(super) fn choose<T>(all: impl Iterator<Item = (T, Seen)>) -> Option<T> {
    let with_room = all.filter(|(_, seen)| seen.free > 0);
    // Of several that carry as little, the first.
    let least = with_room.min_by_key(|(_, seen)| seen.bulk());
    least.map(|(one, _)| one)
}

/// Whether there should be one more, and what for.
pub(super) fn need(all: impl Iterator<Item = Seen>) -> Option<Need> {
    let (mut count, mut free, mut busy) = (0, 0, 0);
    for seen in all {
        count += 1;
        free += seen.free;
        busy += usize::from(seen.bulk() > 0);
    }
    if free < AHEAD {
        Some(Need::Room)
    } else if busy == count && count < SPREAD {
        Some(Need::Bulk)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD, BULK, Need, SPREAD, Seen, choose, need};

    /// Places and loads.
    type All = [(usize, u64)];

    fn chosen(all: &All) -> Option<usize> {
        let seen = all.iter().map(|&(free, load)| Seen { free, load });
        choose(seen.enumerate())
    }

    fn needed(all: &All) -> Option<Need> {
        need(all.iter().map(|&(free, load)| Seen { free, load }))
    }

    #[test]
    fn a_stream_goes_to_the_first_with_a_place_and_around_bulk() {
        let cases: &[(&All, Option<usize>)] = &[
            (&[], None),
            (&[(96, 0)], Some(0)),
            (&[(0, 0)], None),
            // As without bulk: what the others carry says nothing.
            (&[(1, BULK - 1), (96, 0)], Some(0)),
            (&[(0, 0), (96, 0), (96, 0)], Some(1)),
            (&[(1, BULK), (96, BULK - 1), (96, 0)], Some(1)),
            (&[(1, BULK), (0, 0), (96, 0)], Some(2)),
            (&[(1, BULK + 2), (1, BULK + 1), (1, BULK + 3)], Some(1)),
            (&[(1, BULK), (1, BULK)], Some(0)),
            // Bulk is no reason to wait.
            (&[(1, BULK), (0, 0)], Some(0)),
            (&[(0, 0), (1, BULK)], Some(1)),
            // Another transport, where there is anything else; and where there is not.
            (&[(1, BULK), (1, u64::MAX)], Some(0)),
            (&[(0, 0), (1, u64::MAX)], Some(1)),
        ];
        for &(all, goes_to) in cases {
            assert_eq!(chosen(all), goes_to, "{all:?}");
        }
    }

    #[test]
    fn there_is_one_more_where_places_run_short_or_all_carry_bulk() {
        let cases: &[(&All, Option<Need>)] = &[
            (&[], Some(Need::Room)),
            (&[(AHEAD - 1, 0)], Some(Need::Room)),
            (&[(AHEAD - 1, BULK)], Some(Need::Room)),
            (&[(AHEAD, 0)], None),
            (&[(AHEAD, BULK)], Some(Need::Bulk)),
            (&[(0, BULK), (AHEAD, BULK - 1)], None),
            (&[(0, BULK), (AHEAD, BULK)], Some(Need::Bulk)),
            (&[(0, 0), (AHEAD, BULK)], None),
        ];
        for &(all, for_what) in cases {
            assert_eq!(needed(all), for_what, "{all:?}");
        }
        let mut many = vec![(AHEAD, BULK); SPREAD - 1];
        assert_eq!(needed(&many), Some(Need::Bulk));
        many.push((AHEAD, BULK));
        assert_eq!(needed(&many), None, "enough of them");
        let full = vec![(0, BULK); SPREAD];
        assert_eq!(needed(&full), Some(Need::Room));
    }
}
