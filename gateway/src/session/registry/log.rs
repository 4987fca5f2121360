//! What a runtime says about a session, line by line: appended by runtimes, read by operators, bounded per session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Behalf, Registry, RegistryError};
use crate::{clock, session::SessionKey, store::Appended};

/// Records of one session; with one more, the oldest is dropped.
const LOG_KEPT: u64 = 4096;

/// One line of a session's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogRecord {
    /// RFC 3339: when the runtime says it was, else when it came.
    pub time: String,
    /// `stdout`, `stderr` or `runtime`.
    pub stream: String,
    /// What was said.
    pub text: String,
    /// The generation that was the present one when it came.
    pub generation: u64,
}

/// One line as a runtime brings it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// When, if the runtime says so.
    pub time: Option<String>,
    /// One of [`LogLine::STREAMS`].
    pub stream: &'static str,
    /// What was said.
    pub text: String,
}

impl LogLine {
    /// Where a line can come from.
    pub const STREAMS: [&'static str; 3] = ["stdout", "stderr", "runtime"];
}

impl Registry {
    /// Append to a session's log; of a stopped one too, for its last words. Its own oldest records make room where its owner, or its
    /// namespace, would hold more than it may. Returns the number of the last record.
    ///
    /// # Errors
    /// Unknown session, no room even so, or the store.
    pub fn append_log_at(
        &self,
        by: &Behalf,
        key: &SessionKey,
        lines: Vec<LogLine>,
        now: SystemTime,
    ) -> Result<u64, RegistryError> {
        // Under the writer's lock: a session that is reaped meanwhile must not leave its log behind.
        let _writer = self
            .writer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = self.entry_of(by, key)?;
        let row_key = entry.record.row_key();
        let record = |line: LogLine| {
            let record = LogRecord {
                time: line.time.unwrap_or_else(|| clock::rfc3339(now)),
                stream: line.stream.into(),
                text: line.text,
                generation: entry.record.lease.generation,
            };
            serde_json::to_vec(&record).map_err(|source| RegistryError::Row {
                key: row_key.clone(),
                source,
            })
        };
        let records = lines
            .into_iter()
            .map(record)
            .collect::<Result<Vec<_>, _>>()?;
        let new: u64 = records.iter().map(|record| record.len() as u64).sum();
        let room = self.room_for_log(&entry.record, new)?;
        let Appended { last, dropped } =
            self.store.append_log(&row_key, &records, LOG_KEPT, room)?;
        let mut logged = self.log_bytes();
        let bytes = (logged.of(key) + new).saturating_sub(dropped);
        logged.set(&entry.record, bytes);
        drop(logged);
        self.logged.send_modify(|count| *count += 1);
        Ok(last)
    }

    /// Records after a number, oldest first: `{records, next, first, last, dropped}`. Where there is none yet, it is
    /// waited for at most so long.
    ///
    /// # Errors
    /// Unknown session, or the store.
    pub async fn log(
        self: &Arc<Self>,
        by: &Behalf,
        key: SessionKey,
        after: u64,
        limit: usize,
        wait: Duration,
    ) -> Result<Value, RegistryError> {
        // Subscribed before the store is read, so that nothing falls between.
        let mut logged = self.logged.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            logged.mark_unchanged();
            let asked = key.clone();
            let page = self
                .change(by, move |registry, by, _| {
                    let row_key = registry.entry_of(by, &asked)?.record.row_key();
                    Ok(registry.store.log(&row_key, after, limit)?)
                })
                .await?;
            let over = page.records.is_empty()
                && tokio::time::timeout_at(deadline, logged.changed())
                    .await
                    .is_ok_and(|changed| changed.is_ok());
            if over {
                continue;
            }
            let next = page.records.last().map_or(after, |(number, _)| *number);
            let records = page.records.iter().map(|(number, body)| {
                let mut record: Value = serde_json::from_slice(body).unwrap_or_default();
                if let Some(fields) = record.as_object_mut() {
                    fields.insert("number".into(), (*number).into());
                }
                record
            });
            return Ok(json!({
                "records": records.collect::<Vec<_>>(),
                "next": next,
                "first": page.first,
                "last": page.last,
                "dropped": page.first.saturating_sub(1),
            }));
        }
    }
}

#[cfg(test)]
mod tests;
