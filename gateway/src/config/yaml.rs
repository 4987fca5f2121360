//! A YAML writer for the effective configuration: block style, so that people can read and compare it.
use serde_json::Value;

/// `value` as YAML. Everything that could be read as something other than text is quoted, JSON's way (YAML 1.2 §1.2:
/// JSON strings are YAML strings).
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// `value` on lines of its own, each indented by `depth` steps.
fn block(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                indent(depth, out);
                out.push_str(&text(key));
                out.push(':');
                after_mark(value, depth, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(depth, out);
                out.push('-');
                after_mark(item, depth, out);
            }
        }
        other => {
            indent(depth, out);
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

/// What follows a `key:` or a `-`: on the same line where it is short, else below.
fn after_mark(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            block(value, depth + 1, out);
        }
        other => {
            out.push(' ');
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Plain only where no reader, of YAML 1.1 either, could see anything but text.
fn text(string: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let starts = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let plain = string
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    let word = WORDS.iter().any(|word| string.eq_ignore_ascii_case(word));
    if starts && plain && !word {
        string.to_owned()
    } else {
        Value::from(string).to_string()
    }
}

fn indent(depth: usize, out: &mut String) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::write;
    use serde_json::json;

    #[test]
    fn what_people_read() {
        let value = json!({
            "a": {"empty": [], "list": ["x.test", "*.y.test", 3], "none": {}},
            "list": [{"kind": "public", "on": true}, [1]],
            "off": "10s",
            "text": "yes: no",
        });
        assert_eq!(
            write(&value),
            "a:\n  empty: []\n  list:\n    - x.test\n    - \"*.y.test\"\n    - 3\n  none: {}\nlist:\n  -\n    \
             kind: public\n    \"on\": true\n  -\n    - 1\n\"off\": \"10s\"\ntext: \"yes: no\"\n"
        );
    }
}
