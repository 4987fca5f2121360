//! Access records, read back, as `telemetry::Recorder` writes them.

use std::{
    io::{self, BufRead},
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;
use serde_json::Value;
use sluicegate_policy::{Denial, Target};

use crate::{egress::Asked, message::overrides};

mod bytes;

pub(crate) use bytes::Bytes;

/// Longest line taken; a record is far shorter.
const MAX_LINE: usize = 1 << 20;

/// Malformed lines that are named; the rest is counted.
const NAMED: usize = 20;

/// What policy said of a target when it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It passed; with the reason where report mode would have refused it otherwise.
    Passed { would_refuse: Option<String> },
    /// It was refused, with the reason.
    Refused(String),
    /// It was refused for its address, or for what its name resolved to, with the reason.
    Address(String),
}

/// One judged target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) target: Target,
    pub(crate) verdict: Verdict,
    /// What its name resolved to: the address dialled, or all of them where one was refused. Empty where the log does not
    /// say.
    pub(crate) answers: Vec<IpAddr>,
    /// A plain HTTP request, by all the methods and paths (without their queries) it may be read as.
    pub(crate) request: Option<Asked>,
    /// Of a tunnel: what it began with.
    pub(crate) bytes: Bytes,
    /// It was cut for that.
    pub(crate) cut: Option<Denial>,
    /// Bytes of a tunnel went on, of which no record says what they were.
    pub(crate) opaque: bool,
    /// The upstream's name led to no address.
    pub(crate) unresolved: bool,
    /// What went on in it was not what may go there.
    pub(crate) misused: bool,
}

/// What one line is.
#[derive(Debug, PartialEq)]
enum Line {
    Judged(Box<Seen>),
    /// A record in which policy had no say: a relay stream, a bad credential, a malformed request, a limit.
    Unjudged,
    /// Another session's.
    Elsewhere,
}

/// Lines that held no judged target.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Records in which policy had no say.
    pub(crate) unjudged: usize,
    /// Lines that are no records.
    pub(crate) malformed: usize,
    /// `line N: why`, for the first of them.
    pub(crate) named: Vec<String>,
}

/// The part of a record that is needed. Other keys may come and go.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    outcome: String,
    target: Option<String>,
    reason: Option<String>,
    rule: Option<String>,
    address: Option<SocketAddr>,
    #[serde(default)]
    answers: Vec<IpAddr>,
    would_refuse: Option<String>,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    also_read_as: Vec<(String, String)>,
    bytes_up: Option<u64>,
    bytes_down: Option<u64>,
    session: Option<Session>,
    kind: Option<String>,
    began: Option<bytes::Began>,
}

#[derive(Deserialize)]
struct Session {
    id: Option<String>,
}

/// Read a log, one record per line, giving each judged target of `session` (or of all) to `found`.
pub(crate) fn read_lines(
    mut reader: impl BufRead,
    session: Option<&str>,
    mut found: impl FnMut(Seen),
) -> io::Result<Passed> {
    let mut passed = Passed::default();
    let mut number = 0_usize;
    let mut line = Vec::new();
    while next_line(&mut reader, &mut line)? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line = judge_line(&line, session);
        passed.take(line, || format!("line {number}"), &mut found);
    }
    Ok(passed)
}

/// The same of records that are read already.
pub(crate) fn read_values(
    records: impl IntoIterator<Item = Value>,
    mut found: impl FnMut(Seen),
) -> Passed {
    let mut passed = Passed::default();
    for (index, record) in records.into_iter().enumerate() {
        let record = serde_json::from_value::<Record>(record).map_err(|error| no_record(&error));
        let line = record.and_then(|record| judge(record, None));
        passed.take(line, || format!("record {}", index + 1), &mut found);
    }
    passed
}

impl Passed {
    fn take(
        &mut self,
        line: Result<Line, String>,
        place: impl FnOnce() -> String,
        found: &mut impl FnMut(Seen),
    ) {
        match line {
            Ok(Line::Judged(seen)) => found(*seen),
            Ok(Line::Unjudged) => self.unjudged += 1,
            Ok(Line::Elsewhere) => {}
            Err(why) => {
                self.malformed += 1;
                if self.named.len() < NAMED {
                    self.named.push(format!("{}: {why}", place()));
                }
            }
        }
    }
}

/// The next line without its end; false at the end of the log. Of a line that is too long one byte too many is kept.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = (MAX_LINE + 1).saturating_sub(line.len());
        line.extend(part.iter().take(room));
        let used = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

fn judge_line(line: &[u8], session: Option<&str>) -> Result<Line, String> {
    if line.len() > MAX_LINE {
        return Err(format!("longer than {MAX_LINE} bytes"));
    }
    let record = serde_json::from_slice::<Record>(line).map_err(|error| no_record(&error))?;
    judge(record, session)
}

fn no_record(error: &serde_json::Error) -> String {
    format!("not an access record: {error}")
}

fn judge(record: Record, session: Option<&str>) -> Result<Line, String> {
    if let Some(wanted) = session {
        let own = record.session.as_ref().and_then(|own| own.id.as_deref());
        if own != Some(wanted) {
            return Ok(Line::Elsewhere);
        }
    }
    // The gateway serves none of more. Each is judged: there must be no more of them than of a request.
    if record.also_read_as.len() >= overrides::MOST {
        let most = overrides::MOST;
        return Err(format!("it may be read as more than {most} requests"));
    }
    let Some(verdict) = verdict(&record)? else {
        return Ok(Line::Unjudged);
    };
    let Some(target) = &record.target else {
        // Relay streams name a service; anything else without a target was never judged.
        return Ok(Line::Unjudged);
    };
    let target = Target::from_uri_authority(target, 443)
        .map_err(|error| format!("target {target:?}: {error}"))?;
    let request = match (record.kind.as_deref(), record.method, record.path) {
        (Some("request"), Some(method), Some(path)) => {
            let line = std::iter::once((method, path));
            Some(Asked::new(line.chain(record.also_read_as)))
        }
        _ => None,
    };
    // A tunnel of plain HTTP passes none itself: its requests have records of their own.
    let nothing = (record.bytes_up, record.bytes_down) == (Some(0), Some(0));
    let opaque = request.is_none() && !nothing;
    let (mut cut, mut bytes) = (None, Bytes::None);
    if record.kind.as_deref() == Some("tunnel") {
        cut = bytes::cut_for(&record.outcome, record.reason.as_deref());
        let moved = (record.bytes_up, record.bytes_down);
        bytes = bytes::of_tunnel(record.began.as_ref(), cut, moved);
    }
    let dialled = record.address.map(|address| address.ip());
    Ok(Line::Judged(Box::new(Seen {
        target,
        verdict,
        answers: record.answers.into_iter().chain(dialled).collect(),
        request,
        bytes,
        cut,
        opaque,
        unresolved: matches!(
            record.reason.as_deref(),
            Some("dns_not_found" | "dns_failed" | "dns_timeout")
        ),
        misused: matches!(
            record.reason.as_deref(),
            Some(
                "sni_mismatch"
                    | "sni_missing"
                    | "ech_denied"
                    | "tls_required"
                    | "tls_malformed"
                    | "host_mismatch"
                    | "method_not_allowed"
                    | "path_not_allowed"
            )
        ),
    })))
}

/// What policy said; `None` where it had no say.
fn verdict(record: &Record) -> Result<Option<Verdict>, String> {
    let passed = || {
        Some(Verdict::Passed {
            would_refuse: record.would_refuse.clone(),
        })
    };
    let reason = record.reason.as_deref().unwrap_or_default();
    let refused = match reason {
        "host_denied"
        | "host_not_allowed"
        | "port_not_allowed"
        | "address_not_allowed"
        | "method_not_allowed"
        | "path_not_allowed"
        | "policy_changed" => Some(Verdict::Refused(reason.to_owned())),
        // A literal is judged without resolution, so for it the target says everything.
        "special_address" | "metadata_address" | "own_listener" => {
            Some(Verdict::Address(reason.to_owned()))
        }
        _ => None,
    };
    match record.outcome.as_str() {
        // What was cut had passed: its first bytes, its size, or a later policy ended it.
        "completed" | "reset" | "failed" | "cut" => Ok(passed()),
        "refused" => Ok(refused),
        // Dropped without a word: it had passed if a rule or an address is known.
        "abandoned" if record.rule.is_some() || record.address.is_some() => Ok(passed()),
        "abandoned" => Ok(None),
        other => Err(format!("unknown outcome {other:?}")),
    }
}

#[cfg(test)]
mod tests;
