#![allow(clippy::indexing_slicing, clippy::needless_range_loop)]
use super::*;
use proptest::prelude::*;
use std::cell::Cell;

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

fn is_comma(rest: &[char]) -> bool {
    LOOKS.set(LOOKS.get() + 1);
    rest.first() == Some(&',')
}

#[test]
fn what_comes_next_is_looked_for_once_however_often_it_is_asked_for() {
    for line in ["a".repeat(20_000), "a,".repeat(10_000), ",".repeat(20_000)] {
        let chars: Vec<char> = line.chars().collect();
        let mut ahead = Ahead::of(&chars, is_comma);
        LOOKS.set(0);
        for start in 0..chars.len() {
            ahead.seek(start);
        }
        assert!(LOOKS.get() <= 2 * chars.len(), "{}", LOOKS.get());
    }
}

proptest! {
    #[test]
    fn what_comes_next_is_what_a_look_from_there_finds(line in "[ab, ]{0,24}") {
        let chars: Vec<char> = line.chars().collect();
        let mut ahead = Ahead::of(&chars, is_comma);
        for start in 0..=chars.len() {
            let next = chars[start..].iter().position(|c| *c == ',');
            prop_assert_eq!(ahead.seek(start), next.map_or(chars.len(), |next| start + next));
        }
    }

    #[test]
    fn a_comment_behind_a_value_is_what_a_look_from_there_finds(line in "[ab# '\"]{0,24}") {
        let chars: Vec<char> = line.chars().collect();
        let mut comments = Comments::of(&chars);
        for start in 0..chars.len() {
            // A value begins with none of these.
            if matches!(chars[start], '#' | ' ' | '\'' | '"') {
                continue;
            }
            let found = comment_at(&chars[start..]).map_or(chars.len(), |at| start + at);
            prop_assert_eq!(comments.behind(start), found, "{:?} from {}", line, start);
        }
    }
}

/// What is shown of a line, and the count of warnings.
fn shown(line: &str) -> (String, usize) {
    let mut faults = Faults::default();
    let masked = find(line, &mut faults);
    (masked, faults.warnings.len())
}

#[test]
fn many_secrets_of_one_line_are_each_found() {
    let one = "{password: hunter2, url: 'tls://u:hunter2@db.test', a: [token=letmein, '/x']}, ";
    let blot = "{password: *******, url: 'tls://u:*******@db.test', a: [token=*******, '/x']}, ";
    assert_eq!(shown(&one.repeat(300)), (blot.repeat(300), 900));
}

#[test]
fn where_a_value_ends_and_what_it_refers_to_is_asked_of_each() {
    for (line, masked) in [
        (
            "{password: /a, secret: bc, token: d}",
            "{password: /a, secret: **, token: *}",
        ),
        (
            "{password: a${X}, secret: bc}",
            "{password: a${X}, secret: **}",
        ),
        (
            "{password: a b  , secret: c}",
            "{password: ***  , secret: *}",
        ),
        (
            "password: a \"b # c\" # token: d9",
            "password: ********* # token: **",
        ),
        ("x?token=a&password=b c", "x?token=*&password=* c"),
        (
            "token='bearer a' secret=\"${A}\" pw=b",
            "token='********' secret=\"${A}\" pw=*",
        ),
        (
            "# password=/a secret=Bearer ${X} token=b9",
            "# password=/a secret=Bearer ${X} token=**",
        ),
        (
            "{password: null  , secret: nulls}",
            "{password: null  , secret: *****}",
        ),
    ] {
        assert_eq!(shown(line).0, masked);
    }
}
