#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use super::*;
use serde_json::json;

fn all(log: &str, session: Option<&str>) -> (Vec<Seen>, Passed) {
    let mut seen = Vec::new();
    let passed = read_lines(log.as_bytes(), session, |one| seen.push(one)).unwrap();
    (seen, passed)
}

#[test]
fn what_policy_said_is_read_from_outcome_and_reason() {
    let say = |outcome: &str, reason: Option<&str>, extra: serde_json::Value| {
        let mut record = json!({"target": "a.test:443", "outcome": outcome, "reason": reason});
        record
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let (seen, passed) = all(&record.to_string(), None);
        assert_eq!(passed.malformed, 0, "{record}");
        seen.into_iter().next().map(|one| one.verdict)
    };
    let passed = Some(Verdict::Passed { would_refuse: None });
    for outcome in ["completed", "reset"] {
        assert_eq!(say(outcome, None, json!({})), passed);
    }
    assert_eq!(say("failed", Some("connect_refused"), json!({})), passed);
    assert_eq!(say("cut", Some("sni_mismatch"), json!({})), passed);
    for (reason, misused) in [("sni_mismatch", true), ("policy_changed", false)] {
        let record = json!({"target": "a.test:443", "outcome": "cut", "reason": reason});
        let (seen, _) = all(&record.to_string(), None);
        assert_eq!(seen[0].misused, misused, "{reason}");
    }
    assert_eq!(
        say("cut", Some("policy_changed"), json!({})),
        passed,
        "a later policy ended what this one had let pass"
    );
    assert_eq!(
        say("refused", Some("host_not_allowed"), json!({})),
        Some(Verdict::Refused("host_not_allowed".into()))
    );
    assert_eq!(
        say("refused", Some("special_address"), json!({})),
        Some(Verdict::Address("special_address".into()))
    );
    for reason in [
        "credential_invalid",
        "too_many_tunnels",
        "draining",
        "malformed_target",
    ] {
        assert_eq!(say("refused", Some(reason), json!({})), None, "{reason}");
    }
    assert_eq!(say("abandoned", None, json!({})), None);
    assert_eq!(
        say(
            "abandoned",
            None,
            json!({"rule": "allowedHosts[0] \"a.test\""})
        ),
        passed
    );
    assert_eq!(
        say(
            "completed",
            None,
            json!({"wouldRefuse": "host_not_allowed"})
        ),
        Some(Verdict::Passed {
            would_refuse: Some("host_not_allowed".into())
        })
    );
}

#[test]
fn every_refusal_of_the_policy_is_known_here() {
    use sluicegate_policy::Denial;
    // By their words: a new refusal about hosts, addresses, methods or paths must be taken up above.
    for denial in Denial::ALL {
        let reason = denial.reason();
        let about = [
            "host_not",
            "host_den",
            "port_",
            "address",
            "method_not_allowed",
            "path_",
            "own_",
            "policy_",
        ];
        let is_policy =
            about.iter().any(|word| reason.contains(word)) && !reason.starts_with("service");
        let line =
            json!({"target": "a.test:1", "outcome": "refused", "reason": reason}).to_string();
        assert_eq!(all(&line, None).0.len(), usize::from(is_policy), "{reason}");
    }
}

#[test]
fn a_malformed_line_is_counted_and_named() {
    let good =
        json!({"target": "a.test:443", "outcome": "completed", "new": {"key": [1]}}).to_string();
    let other = json!({"target": "a.test:443", "outcome": "completed", "session": {"id": "other"}})
        .to_string();
    let log = format!(
        "{good}\nnot json\n\n{{\"target\": \"a.test:443\"}}\n{}\n{{\"target\":\"\\u001b[31m:1\",\"outcome\":\"completed\"}}\n{}\n{}",
        json!({"outcome": "won", "target": "a.test:1"}),
        json!({"outcome": "completed", "service": "cache"}),
        &good[..20],
    );
    let (seen, passed) = all(&log, None);
    assert_eq!(
        (seen.len(), passed.unjudged, passed.malformed),
        (1, 1, 5),
        "{passed:?}"
    );
    let lines: Vec<&str> = passed
        .named
        .iter()
        .filter_map(|name| name.split(':').next())
        .collect();
    assert_eq!(lines, ["line 2", "line 4", "line 5", "line 6", "line 8"]);
    assert!(!passed.named[3].contains('\u{1b}'), "{}", passed.named[3]);
    // Only the session asked for.
    assert_eq!(all(&format!("{good}\n{other}\n"), Some("other")).0.len(), 1);
}

#[test]
fn an_endless_line_costs_no_more_than_its_bound() {
    let log = format!(
        "{}\n{}\n",
        "x".repeat(3 * MAX_LINE),
        json!({"target": "a.test:443", "outcome": "completed"})
    );
    let (seen, passed) = all(&log, None);
    assert_eq!((seen.len(), passed.malformed), (1, 1));
    assert!(passed.named[0].contains("longer"), "{:?}", passed.named);
}

#[test]
fn a_record_of_more_readings_than_a_request_has_is_none() {
    let record = |also: usize| {
        let record = json!({
            "target": "a.test:80", "outcome": "completed", "kind": "request", "method": "GET", "path": "/",
            "alsoReadAs": vec![["POST", "/"]; also],
        });
        let (seen, passed) = all(&record.to_string(), None);
        (seen.len(), passed.malformed)
    };
    assert_eq!(record(overrides::MOST - 1), (1, 0));
    assert_eq!(record(overrides::MOST), (0, 1));
}
