//! Where records go and how much is told.
use super::read::{self, keep};
use sluicegate_policy::text::{Faults, Node};
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Where access records go, one JSON line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere; decisions still reach the event stream.
    None,
    /// A file, appended to.
    File(PathBuf),
}

/// What a sandbox learns about a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalDetail {
    /// Reason, rule and what would change it.
    Full,
    /// The reason only.
    Minimal,
}

/// Access records, refusals, and the diagnostic log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TelemetryConfig {
    /// Where access records go.
    pub access_log: AccessLog,
    /// What a sandbox learns about a refusal.
    pub refusal_detail: RefusalDetail,
    /// Filter of the diagnostic log: a level, or `target=level` directives.
    pub log: String,
}

impl TelemetryConfig {
    pub(super) fn read(node: &Node, faults: &mut Faults) -> Self {
        let mut telemetry = Self::default();
        let mut fields = node.fields(faults);
        keep(
            &mut telemetry.access_log,
            fields
                .take("accessLog")
                .and_then(|node| access_log(node, faults)),
        );
        let details = [
            ("full", RefusalDetail::Full),
            ("minimal", RefusalDetail::Minimal),
        ];
        keep(
            &mut telemetry.refusal_detail,
            fields
                .take("refusalDetail")
                .and_then(|node| node.choice(&details, faults)),
        );
        keep(
            &mut telemetry.log,
            fields.take("log").and_then(|node| log(node, faults)),
        );
        fields.finish(faults);
        telemetry
    }
}

/// A bare word that is none of ours is a slip more often than a file's name: `./word` says it is a file.
fn access_log(node: &Node, faults: &mut Faults) -> Option<AccessLog> {
    match node.string(faults)? {
        "stdout" => Some(AccessLog::Stdout),
        "stderr" => Some(AccessLog::Stderr),
        "none" => Some(AccessLog::None),
        text if text.contains(['/', '.']) => read::path(node, faults).map(AccessLog::File),
        _ => node.expected(
            "stdout, stderr, none, or a file's path (./NAME for one here)",
            faults,
        ),
    }
}

fn log(node: &Node, faults: &mut Faults) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = node.string(faults)?;
    // A word alone would be taken for a target's name, and everything of that target be logged.
    let word = !text.contains(['=', ',']);
    if (word && !LEVELS.contains(&text)) || EnvFilter::try_new(text).is_err() {
        return node.expected(
            "off, error, warn, info, debug, trace, or directives such as info,h2=warn",
            faults,
        );
    }
    Some(text.to_owned())
}
