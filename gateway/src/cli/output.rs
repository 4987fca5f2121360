//! Text for shells and people.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
pub(super) use sluicegate_relay::standard::tell;

/// Nobody reads standard output any more.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// Something was lost that somebody may have wanted.
static LOST: AtomicBool = AtomicBool::new(false);

/// `println!`, except that a reader that has gone (`… | head -1`) is no failure.
macro_rules! say {
    () => { $crate::cli::output::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::cli::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// `print!`, likewise.
macro_rules! say_whole {
    ($($text:tt)*) => { $crate::cli::output::write(format_args!($($text)*)) };
}

/// `eprintln!`, except that a standard error that takes nothing does not end the command.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::output::tell(format_args!("{}\n", format_args!($($text)*))) };
}

/// `eprint!`, likewise.
macro_rules! note_whole {
    ($($text:tt)*) => { $crate::cli::output::tell(format_args!($($text)*)) };
}

/// To standard output. What cannot be written is told once, and makes the command a failed one ([`is_lost`]), unless it is that nobody
/// reads. The command goes on either way, and what follows something for ever looks at [`is_closed`].
pub(super) fn write(text: Arguments<'_>) {
    if is_closed() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        CLOSED.store(true, Ordering::Relaxed);
        if error.kind() != ErrorKind::BrokenPipe {
            LOST.store(true, Ordering::Relaxed);
            note!("sluicegate: cannot write to standard output: {error}");
        }
    }
}

/// Was standard output found closed?
pub(super) fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Is there something that standard output did not take, though somebody may have wanted it?
pub(super) fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// `export K='V'` lines for `eval` in any POSIX shell.
pub(super) fn export(env: &[(String, String)]) -> String {
    env.iter()
        .map(|(name, value)| format!("export {name}={}\n", shell_quote(value)))
        .collect()
}

/// `K="V"` lines as dotenv readers take them: double-quoted, with `\n` for line ends and no expansion.
pub(super) fn dotenv(env: &[(String, String)]) -> String {
    let quote = |value: &str| {
        let mut text = String::with_capacity(value.len() + 2);
        for c in value.chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\\' | '"' | '$' | '`' => text.extend(['\\', c]),
                c => text.push(c),
            }
        }
        text
    };
    env.iter()
        .map(|(name, value)| format!("{name}=\"{}\"\n", quote(value)))
        .collect()
}

/// One word for a POSIX shell, whatever it holds: within single quotes only the single quote itself is special.
fn shell_quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

/// The variables of an answer, in its order.
pub(super) fn variables(body: &Value) -> Vec<(String, String)> {
    let env = body.get("env").and_then(Value::as_object);
    env.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A table with columns as wide as they need to be.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A member as text: strings bare, absent and null as `-`.
pub(super) fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => printable(text),
        Some(other) => other.to_string(),
    }
}

/// What others wrote must not drive the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )]
    use super::*;

    const NASTY: &str = "a'b \"c\" $HOME `id` \\ !\nsecond line; rm -rf /";

    #[test]
    fn a_shell_reads_back_what_was_exported() {
        let env = vec![
            ("VALUE".to_owned(), NASTY.to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ];
        let script = format!("{}printf '%s|%s' \"$VALUE\" \"$EMPTY\"", export(&env));
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{NASTY}|")
        );
    }

    #[test]
    fn dotenv_is_one_line_each() {
        let text = dotenv(&[("K".into(), NASTY.into())]);
        assert_eq!(text.lines().count(), 1);
        assert_eq!(
            text,
            "K=\"a'b \\\"c\\\" \\$HOME \\`id\\` \\\\ !\\nsecond line; rm -rf /\"\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["ID".into(), "STATE".into()],
            vec!["longer-id".into(), "idle".into()],
        ];
        assert_eq!(table(&rows), "ID         STATE\nlonger-id  idle\n");
    }
}
