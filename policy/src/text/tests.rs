#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use super::*;
use std::time::Duration;

fn errors(source: &str) -> Vec<String> {
    let mut faults = Faults::default();
    parse(source, &mut faults);
    faults.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_key_that_stands_twice_is_not_called_unknown_as_well() {
    let mut faults = Faults::default();
    let root = parse("a: 1\na: 2\nc: 3\n", &mut faults);
    let mut fields = root.fields(&mut faults);
    fields.take("a");
    fields.finish(&mut faults);
    let told: Vec<String> = faults.errors.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("duplicate key \"a\""), "{told:?}");
    assert!(told[1].contains("unknown key \"c\""), "{told:?}");
}

#[test]
fn what_yaml_allows_and_a_policy_does_not() {
    for (name, source, expected) in [
        (
            "duplicate key",
            "a: 1\nb: 2\na: 3\n",
            "3:1: a: duplicate key \"a\"",
        ),
        (
            "duplicate key in json",
            "{\"a\": 1, \"a\": 2}",
            "1:10: a: duplicate key \"a\"",
        ),
        (
            "anchor",
            "a: &x 1\n",
            "1:4: a: an anchor (&name) is not accepted (write the value out)",
        ),
        (
            "tag",
            "a: !!str 1\n",
            "1:4: a: a tag (!name) is not accepted (quote text that begins with !)",
        ),
        (
            "merge key",
            "a:\n  <<: {b: 1}\n",
            "2:3: a.<<: a merge key (<<) is not accepted (write the values out)",
        ),
        (
            "two documents",
            "a: 1\n---\nb: 2\n",
            "2:1: a second document; only one is read",
        ),
        (
            "list as key",
            "? [a]\n: 1\n",
            "1:3: a list or mapping is not a key",
        ),
        ("null key", "~: 1\n", "1:1: ~: null is not a key"),
    ] {
        assert_eq!(
            errors(source).first().map(String::as_str),
            Some(expected),
            "{name}"
        );
    }
}

#[test]
fn an_unquoted_pattern_is_told_to_be_quoted() {
    for source in [
        "hosts:\n  - *.slack.com\n",
        "hosts: [*.slack.com]\n",
        "hosts:\n  - *\n",
        "a: &x 1\nhosts: *x\n",
    ] {
        let found = errors(source);
        assert!(
            found
                .iter()
                .any(|fault| fault.contains("quote a pattern that begins with *")),
            "{source:?}: {found:?}"
        );
    }
    assert!(errors("hosts:\n  - *.slack.com\n")[0].starts_with("2:5: "));
}

#[test]
fn null_is_not_absent() {
    let mut faults = Faults::default();
    let root = parse("a:\nb: ~\nc: []\nd: \"\"\n", &mut faults);
    let mut fields = root.fields(&mut faults);
    assert!(fields.take("a").unwrap().is_null());
    assert!(fields.take("b").unwrap().is_null());
    assert!(fields.take("c").unwrap().list(&mut faults).is_empty());
    assert!(fields.take("e").is_none());
    assert_eq!(fields.take("d").unwrap().string(&mut faults), Some(""));
    fields.finish(&mut faults);
    assert!(faults.is_clean());
    assert_eq!(
        root.fields(&mut faults)
            .take("a")
            .unwrap()
            .list(&mut faults)
            .len(),
        0
    );
    assert_eq!(
        faults.errors[0].to_string(),
        "1:2: a: expected a list, found null (leave the key out, or give it a value)"
    );
}

#[test]
fn values_are_read_strictly() {
    type Reader = fn(&Node, &mut Faults) -> Option<String>;
    let string: Reader = |n, f| n.string(f).map(str::to_owned);
    let boolean: Reader = |n, f| n.boolean(f).map(|v| v.to_string());
    let integer: Reader = |n, f| n.integer(1..=9000, f).map(|v| v.to_string());
    let duration: Reader = |n, f| n.duration(f).map(|v: Duration| v.as_millis().to_string());
    let bytes: Reader = |n, f| n.bytes(f).map(|v| v.to_string());
    let choice: Reader = |n, f| n.choice(&[("a", "A"), ("b", "B")], f).map(str::to_owned);
    for (reader, source, expected) in [
        (string, "text", Some("text")),
        (string, "'10'", Some("10")),
        (string, "yes", Some("yes")),
        (string, "127.0.0.1", Some("127.0.0.1")),
        (string, "10", None),
        (string, "1e3", None),
        (string, "0x1F", None),
        (string, "true", None),
        (string, "[a]", None),
        (boolean, "true", Some("true")),
        (boolean, "false", Some("false")),
        (boolean, "yes", None),
        (boolean, "True", None),
        (boolean, "'true'", None),
        (integer, "1", Some("1")),
        (integer, "9000", Some("9000")),
        (integer, "0", None),
        (integer, "9001", None),
        (integer, "+5", None),
        (integer, "05", None),
        (integer, "5.0", None),
        (integer, "'5'", None),
        (integer, "99999999999999999999999", None),
        (duration, "300", Some("300000")),
        (duration, "250ms", Some("250")),
        (duration, "10s", Some("10000")),
        (duration, "5m", Some("300000")),
        (duration, "1h", Some("3600000")),
        (duration, "2d", Some("172800000")),
        (duration, "0", Some("0")),
        (duration, "1w", None),
        (duration, "-1s", None),
        (duration, "1h30m", None),
        (duration, "99999999999d", None),
        (duration, "18446744073709551615ms", None),
        (bytes, "10", Some("10")),
        (bytes, "64KiB", Some("65536")),
        (bytes, "1MiB", Some("1048576")),
        (bytes, "1KB", None),
        (bytes, "1.5MiB", None),
        (bytes, "99999999TiB", None),
        (choice, "b", Some("B")),
        (choice, "c", None),
    ] {
        let mut faults = Faults::default();
        let node = parse(source, &mut faults);
        assert_eq!(
            reader(&node, &mut faults).as_deref(),
            expected,
            "{source:?}"
        );
        assert_eq!(
            faults.errors.len(),
            usize::from(expected.is_none()),
            "{source:?}: {faults}"
        );
    }
}

#[test]
fn every_fault_is_reported_in_order() {
    let source = "b: 1\na: [x, 2]\nhsots: 3\nz: 4\n";
    let mut faults = Faults::default();
    let root = parse(source, &mut faults);
    let mut fields = root.fields(&mut faults);
    fields.take("hosts");
    fields.require("missing", &mut faults);
    for item in fields.take("a").unwrap().list(&mut faults) {
        item.string(&mut faults);
    }
    fields.take("b").unwrap().string(&mut faults);
    fields.finish(&mut faults);
    let found: Vec<String> = faults.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "1:1: missing key \"missing\"",
            "1:4: b: expected text, found a number (put it in quotes)",
            "2:8: a[1]: expected text, found a number (put it in quotes)",
            "3:1: hsots: unknown key \"hsots\" (did you mean \"hosts\"?)",
            "4:1: z: unknown key \"z\" (known here: hosts, missing, a, b)",
        ]
    );
    let shown = faults.render(source, "gateway.yaml");
    assert!(
        shown.contains(
            "  --> gateway.yaml:2:8\n   |\n 2 | a: [x, 2]\n   |        ^\n   = put it in quotes\n"
        ),
        "{shown}"
    );
    assert_eq!(
        serde_json::to_value(&faults.errors[1]).unwrap()["position"]["column"],
        4
    );
}

#[test]
fn what_is_broken_is_reported_once() {
    let mut faults = Faults::default();
    let root = parse("a: [1\nb: 2\n", &mut faults);
    root.fields(&mut faults).require("a", &mut faults);
    root.list(&mut faults);
    root.string(&mut faults);
    assert_eq!(faults.errors.len(), 1, "{faults}");
}

#[test]
fn depth_and_size_are_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(errors(&nested(MAX_DEPTH)).is_empty());
    assert!(errors(&nested(MAX_DEPTH + 1))[0].contains("nested deeper"));
    assert!(!errors(&"[".repeat(100_000)).is_empty());
    assert!(errors(&" ".repeat(MAX_BYTES + 1))[0].contains("longer than"));
}

#[test]
fn json_reads_as_json() {
    let value =
        serde_json::json!({"a": ["x", "y\n\"\\\u{1f600}"], "b": {"c": null, "d": true, "e": 5}});
    for text in [
        value.to_string(),
        serde_json::to_string_pretty(&value).unwrap(),
    ] {
        let mut faults = Faults::default();
        let root = parse(&text, &mut faults);
        let mut fields = root.fields(&mut faults);
        assert_eq!(
            fields.take("a").unwrap().list(&mut faults)[1].string(&mut faults),
            Some("y\n\"\\\u{1f600}")
        );
        let mut inner = fields.take("b").unwrap().fields(&mut faults);
        assert!(inner.take("c").unwrap().is_null());
        assert_eq!(inner.take("d").unwrap().boolean(&mut faults), Some(true));
        assert_eq!(
            inner.take("e").unwrap().integer(0..=9, &mut faults),
            Some(5)
        );
        assert!(faults.is_clean(), "{faults}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(source in "[ \\n\\-a-c:\\[\\]{},*&!'\"|>#%@`?~\\\\\t0-9.<]{0,60}") {
        let mut faults = Faults::default();
        let root = parse(&source, &mut faults);
        // A broken tree always comes with a fault: nothing is dropped in silence.
        proptest::prop_assert!(!matches!(root.kind(), Kind::Broken) || !faults.is_clean());
        let _ = faults.render(&source, "x");
    }
}
