//! The history of events: one order for all of them, and bounded as a whole. What is too much goes of the namespace that holds most,
//! its oldest first: nobody's noise pushes out what others did.

use std::collections::HashMap;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use super::META;
use crate::store::{Dropped, NewEvent};

/// By cursor: the event.
pub(super) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// By namespace and cursor: whose it is. Older versions know none of the tables from here on; what they did meanwhile is seen
/// at the next start.
const OWN: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("events_own");
/// By how many there are and how old the oldest is (the older, the larger): which namespace. The last is the next to give.
const RANK: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("events_rank");
/// By namespace: events held, events dropped, and the cursor of the last that was.
const SHARE: TableDefinition<'_, &str, (u64, u64, u64)> = TableDefinition::new("events_share");
/// In `META`: the last event that the other tables know of.
const KNOWN: &str = "events_known";
/// Events that one commit drops at most beyond as many as it brings.
const CATCHING_UP: usize = 1000;

/// Append, and drop what is too much then, in several commits where it is far too much. Returns the cursor of the last event.
pub(super) fn append(
    write: &WriteTransaction,
    new: &[NewEvent],
    keep: Option<u64>,
) -> Result<u64, redb::Error> {
    let mut events = write.open_table(EVENTS)?;
    let mut cursor = events.last()?.map_or(0, |(cursor, _)| cursor.value());
    // Cursors go on from the last event: one is always there once there was any.
    let keep = keep.map_or(u64::MAX, |keep| keep.max(1));
    if new.is_empty() && events.len()? <= keep {
        return Ok(cursor);
    }
    let mut own = write.open_table(OWN)?;
    let mut rank = write.open_table(RANK)?;
    let mut share = write.open_table(SHARE)?;
    for event in new {
        cursor += 1;
        let of = event.of.as_str();
        events.insert(cursor, event.body.as_slice())?;
        let oldest = first(&own, of)?;
        own.insert((of, cursor), ())?;
        let found = share.get(of)?.map(|row| row.value());
        let (held, dropped, last) = found.unwrap_or_default();
        share.insert(of, (held + 1, dropped, last))?;
        if let Some(oldest) = oldest {
            rank.remove((held, age(oldest)))?;
        }
        rank.insert((held + 1, age(oldest.unwrap_or(cursor))), of)?;
    }
    // Where fewer are kept than before, later commits drop the rest: all other changes wait for this one.
    let drops = new.len() + CATCHING_UP;
    for _ in 0..drops {
        if events.len()? <= keep {
            break;
        }
        let most = rank
            .last()?
            .map(|(key, of)| (key.value(), of.value().to_owned()));
        let Some(((held, oldest), of)) = most else {
            break;
        };
        let of = of.as_str();
        rank.remove((held, oldest))?;
        let gone = age(oldest);
        events.remove(gone)?;
        own.remove((of, gone))?;
        let dropped = share.get(of)?.map_or(0, |row| row.value().1);
        share.insert(of, (held.saturating_sub(1), dropped + 1, gone))?;
        if let Some(next) = first(&own, of)? {
            rank.insert((held.saturating_sub(1), age(next)), of)?;
        }
    }
    write.open_table(META)?.insert(KNOWN, cursor)?;
    Ok(cursor)
}

/// The larger, the older; and back.
const fn age(cursor: u64) -> u64 {
    u64::MAX - cursor
}

/// The oldest event of a namespace.
fn first(own: &Table<'_, (&'static str, u64), ()>, of: &str) -> Result<Option<u64>, redb::Error> {
    let found = match own.range((of, 0)..=(of, u64::MAX))?.next() {
        Some(row) => Some(row?.0.value().1),
        None => None,
    };
    Ok(found)
}

/// What a namespace has lost of its history.
pub(super) fn dropped(database: &Database, of: &str) -> Result<Dropped, redb::Error> {
    let read = database.begin_read()?;
    let found = read.open_table(SHARE)?.get(of)?.map(|row| row.value());
    let (_, events, last) = found.unwrap_or_default();
    Ok(Dropped { events, last })
}

/// Make the tables, and count anew what an older version has written since. Whose its events were it did not say: together
/// they are one share, the gateway's own.
pub(super) fn take_up(write: &WriteTransaction) -> Result<(), redb::Error> {
    let events = write.open_table(EVENTS)?;
    let mut own = write.open_table(OWN)?;
    let mut rank = write.open_table(RANK)?;
    let mut share = write.open_table(SHARE)?;
    let mut meta = write.open_table(META)?;
    let last = events.last()?.map_or(0, |(cursor, _)| cursor.value());
    let known = meta.get(KNOWN)?.map_or(0, |row| row.value());
    if known == last && own.len()? == events.len()? {
        return Ok(());
    }
    let mut whose = HashMap::new();
    for row in own.iter()? {
        let key = row?.0;
        let (namespace, cursor) = key.value();
        whose.insert(cursor, namespace.to_owned());
    }
    let mut lost = HashMap::new();
    for row in share.iter()? {
        let (namespace, counts) = row?;
        let (_, dropped, last) = counts.value();
        lost.insert(namespace.value().to_owned(), (dropped, last));
    }
    own.retain(|_, ()| false)?;
    rank.retain(|_, _| false)?;
    share.retain(|_, _| false)?;
    let mut held: HashMap<String, (u64, u64)> = HashMap::new();
    for row in events.iter()? {
        let cursor = row?.0.value();
        let namespace = whose.remove(&cursor).unwrap_or_default();
        own.insert((namespace.as_str(), cursor), ())?;
        held.entry(namespace).or_insert((0, cursor)).0 += 1;
    }
    // What is left of these was dropped since.
    for (cursor, namespace) in whose {
        let (dropped, last) = lost.entry(namespace).or_default();
        (*dropped, *last) = (*dropped + 1, cursor.max(*last));
    }
    for (namespace, (count, oldest)) in held {
        let (dropped, last) = lost.remove(&namespace).unwrap_or_default();
        share.insert(namespace.as_str(), (count, dropped, last))?;
        rank.insert((count, age(oldest)), namespace.as_str())?;
    }
    for (namespace, (dropped, last)) in lost {
        share.insert(namespace.as_str(), (0, dropped, last))?;
    }
    meta.insert(KNOWN, last)?;
    Ok(())
}

#[cfg(test)]
mod tests;
