//! How far each webhook has come, and what was given up.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

/// By webhook: the last event it is done with.
pub(super) const HOOKS: TableDefinition<'_, &str, u64> = TableDefinition::new("webhooks");
/// By webhook and event: what was given up.
pub(super) const DEAD: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("dead");
/// Dead letters of one webhook.
pub(super) const DEAD_KEPT: u64 = 200;

pub(super) fn cursor(database: &Database, name: &str) -> Result<Option<u64>, redb::Error> {
    let read = database.begin_read()?;
    let found = read.open_table(HOOKS)?.get(name)?;
    Ok(found.map(|cursor| cursor.value()))
}

pub(super) fn settle(
    write: &WriteTransaction,
    name: &str,
    cursor: u64,
    dead: Option<&[u8]>,
) -> Result<(), redb::Error> {
    write.open_table(HOOKS)?.insert(name, cursor)?;
    if let Some(dead) = dead {
        let mut letters = write.open_table(DEAD)?;
        letters.insert((name, cursor), dead)?;
        let stale = match letters
            .range((name, 0)..=(name, u64::MAX))?
            .rev()
            .nth(DEAD_KEPT as usize)
        {
            Some(row) => Some(row?.0.value().1),
            None => None,
        };
        if let Some(stale) = stale {
            letters.retain_in((name, 0)..=(name, stale), |_, _| false)?;
        }
    }
    Ok(())
}

pub(super) fn letter(
    write: &WriteTransaction,
    name: &str,
    cursor: u64,
    dead: Option<&[u8]>,
) -> Result<(), redb::Error> {
    let mut letters = write.open_table(DEAD)?;
    // One that was crowded out meanwhile is not to come back.
    let there = letters.remove((name, cursor))?.is_some();
    if let (true, Some(dead)) = (there, dead) {
        letters.insert((name, cursor), dead)?;
    }
    Ok(())
}

pub(super) fn dead(
    database: &Database,
    name: &str,
    limit: usize,
) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let read = database.begin_read()?;
    let letters = read.open_table(DEAD)?;
    let mut found = Vec::new();
    for row in letters
        .range((name, 0)..=(name, u64::MAX))?
        .rev()
        .take(limit)
    {
        let (key, body) = row?;
        found.push((key.value().1, body.value().to_vec()));
    }
    found.reverse();
    Ok(found)
}
