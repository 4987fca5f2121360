//! Wall-clock time as text.

use std::time::SystemTime;

/// RFC 3339 in UTC with milliseconds, e.g. `2026-11-20T17:02:03.004Z`.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |t| format!("{t:.3}"))
}

/// Is this such a time, whatever its offset and precision?
pub fn is_rfc3339(text: &str) -> bool {
    text.len() <= 40 && text.parse::<jiff::Timestamp>().is_ok()
}

/// Seconds since the epoch; 0 for times before it.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    #[test]
    fn time_is_written_with_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_005);
        assert_eq!(super::rfc3339(time), "1970-01-01T00:20:34.005Z");
        assert_eq!(super::unix_seconds(time), 1234);
    }
}
