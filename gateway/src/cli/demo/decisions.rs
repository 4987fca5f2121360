//! The decision log: the access records of the tour, read back from where an operator would read them.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use serde_json::Value;

use crate::{
    cli::output::{table, text},
    telemetry::Telemetry,
};

/// Records are written when the work ends, which may be a moment after the client knows.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The file of access records.
pub(super) struct Decisions {
    path: PathBuf,
    telemetry: Telemetry,
}

impl Decisions {
    pub(super) fn new(path: PathBuf, telemetry: Telemetry) -> Self {
        Self { path, telemetry }
    }

    /// Every record so far, in the order the work ended.
    fn read(&self) -> Vec<Value> {
        self.telemetry.access().flush();
        let log = std::fs::read_to_string(&self.path).unwrap_or_default();
        log.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The records, once they are as `wanted`.
    pub(super) async fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> anyhow::Result<Vec<Value>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let records = self.read();
            if wanted(&records) {
                return Ok(records);
            }
            if tokio::time::Instant::now() >= deadline {
                bail!(
                    "{} records and not {what} within {PATIENCE:?}",
                    records.len()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// One short line per record.
pub(super) fn lines(records: &[Value]) -> String {
    let mut rows = vec![
        [
            "TIME", "WHO", "FRONT", "TARGET", "OUTCOME", "REASON", "UP", "DOWN",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for record in records {
        let session = record.get("session").cloned().unwrap_or_default();
        let who = match text(&session, "id").as_str() {
            "-" => "-".to_owned(),
            id => format!("{id}/{}", text(&session, "generation")),
        };
        let target = match record.get("target") {
            Some(_) => text(record, "target"),
            None => text(record, "service"),
        };
        let time = text(record, "time");
        let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time);
        rows.push(vec![
            time.trim_end_matches('Z').to_owned(),
            who,
            text(record, "front"),
            target,
            text(record, "outcome"),
            text(record, "reason"),
            text(record, "bytesUp"),
            text(record, "bytesDown"),
        ]);
    }
    table(&rows)
}
