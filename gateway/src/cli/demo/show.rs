//! How the tour looks: marks and columns for people, one JSON object per line for programs.

use std::{io::IsTerminal, process::ExitCode};

use serde_json::{Value, json};

use crate::cli::{failure::FAILED, output::printable};

/// What a step saw, where it did what it says.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// In a few words.
    pub(super) text: String,
    /// Further lines.
    pub(super) notes: Vec<String>,
}

impl Seen {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            notes: Vec::new(),
        }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// What a step is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// One word: allowed, refused, relayed …
    pub(super) word: &'static str,
    /// What is tried.
    pub(super) what: &'static str,
    /// What has to come of it.
    pub(super) expected: &'static str,
}

/// Tells, and counts what failed.
#[derive(Debug)]
pub(super) struct Show {
    json: bool,
    colour: bool,
    /// Steps told, and those that failed.
    steps: usize,
    failed: usize,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            json,
            colour: !json && !plain && std::io::stdout().is_terminal(),
            steps: 0,
            failed: 0,
        }
    }

    /// A line for people only.
    pub(super) fn say(&self, text: &str) {
        if !self.json {
            line(text);
        }
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) {
        self.say(&format!("\n{}", self.painted(text, "1")));
    }

    /// A line for programs only.
    pub(super) fn object(&self, object: &Value) {
        if self.json {
            line(&object.to_string());
        }
    }

    /// What came of a step.
    pub(super) fn step(&mut self, step: Step, came: Result<Seen, anyhow::Error>) {
        self.steps += 1;
        let Step {
            word,
            what,
            expected,
        } = step;
        match came {
            Ok(Seen { text, notes }) => {
                self.object(&json!({
                    "step": self.steps, "ok": true, "word": word, "what": what, "saw": text, "notes": notes,
                }));
                let mark = self.painted("✓", "32");
                self.say(&format!(
                    "  {mark} {word:<8} {what:<46} {}",
                    printable(&text)
                ));
                for note in notes {
                    self.say(&format!("    {:<8} {}", "", printable(&note)));
                }
            }
            Err(error) => {
                self.failed += 1;
                let came = format!("{error:#}");
                self.object(&json!({
                    "step": self.steps, "ok": false, "word": word, "what": what, "expected": expected, "came": came,
                }));
                let mark = self.painted("✗", "31");
                self.say(&format!("  {mark} {word:<8} {what}"));
                self.say(&format!("      expected: {expected}"));
                self.say(&format!("      came:     {}", printable(&came)));
            }
        }
    }

    /// The last line, and 0 only if nothing failed.
    pub(super) fn verdict(&self) -> ExitCode {
        self.object(&json!({"steps": self.steps, "failed": self.failed, "ok": self.passed()}));
        if self.passed() {
            self.say(&format!("\nAll {} steps did what they say.", self.steps));
            ExitCode::SUCCESS
        } else {
            self.say(&format!(
                "\n{} of {} steps failed.",
                self.failed, self.steps
            ));
            ExitCode::from(FAILED)
        }
    }

    /// Did all steps so far do what they say? A tour without steps proves nothing.
    pub(super) fn passed(&self) -> bool {
        self.steps > 0 && self.failed == 0
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whoever read it may have gone: that is no reason to stop halfway.
fn line(text: &str) {
    say!("{text}");
}
