//! Machines write a whole policy in one line: what is made of it to look for secrets grows as the line does, not as its square.

use allocation_counter::measure;
use sluicegate_policy::{lint_source, text::Faults};

/// Bytes allocated to look at a text.
fn cost(source: &str) -> u64 {
    // What is set up once is not the text's.
    let _ = lint_source("a: 1\n");
    measure(|| drop(lint_source(source))).bytes_total
}

#[test]
fn a_long_line_costs_as_it_is_long() {
    let hash = "9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015";
    let shapes: [(&str, &str, &str); 8] = [
        ("# ", "a word of a comment ", "\n"),
        (
            "{\"egress\": {\"allowedHosts\": [",
            "\"a.example.com\", ",
            "\"b.test\"]}}\n",
        ),
        ("a: [", "x, ", "y]\n"),
        ("a: [", hash, "]\n"),
        (
            "a: [",
            "'9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015', ",
            "x]\n",
        ),
        ("a: [", "{password: hunter2}, ", "x]\n"),
        ("a: [", "{password: /a}, ", "x]\n"),
        (
            "# ",
            "password: /a token=${X secret=b password: null ",
            "\n",
        ),
    ];
    for (begin, one, end) in shapes {
        let text = |times: usize| format!("{begin}{}{end}", one.repeat(times));
        let times = 16_000 / one.len();
        let (small, large) = (cost(&text(times)), cost(&text(4 * times)));
        // By its square it would be sixteen times.
        assert!(large < 8 * small, "{one}: {small} and {large} bytes");
    }
}

/// A look allocates nothing that could be counted from here: by the square of these lines they would take many minutes.
#[test]
fn a_line_of_a_megabyte_is_looked_at() {
    for one in [
        "a.example.com, ",
        "password: /a ",
        "{password: /a ",
        "{password: a b",
        "token=bearer /",
        "eyJ.eyJ.x ",
        "tls://u:hunter2@db.test ",
        "password: a\" ",
    ] {
        let line = format!("# {}\n", one.repeat((1 << 20) / one.len()));
        let value = format!("a: {}${{X}}\n", one.repeat((1 << 20) / one.len()));
        for text in [line, value] {
            let masked = lint_source(&text).masked;
            assert_eq!(masked.chars().count(), text.chars().count());
        }
    }
}

#[test]
fn faults_of_one_line_are_shown_as_each_alone() {
    let line = format!("a: [{}x]\n", "{password: hunter2}, ".repeat(300));
    let found = lint_source(&line);
    let alone = found.faults.warnings.iter().map(|warning| {
        let one = Faults {
            warnings: vec![warning.clone()],
            ..Faults::default()
        };
        one.render(&found.masked, "x.yaml")
    });
    let alone: Vec<String> = alone.collect();
    assert_eq!(alone.len(), 300);
    assert_eq!(found.faults.render(&found.masked, "x.yaml"), alone.concat());
}
