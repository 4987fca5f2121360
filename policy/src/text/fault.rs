//! Where something stands in a text, and what is wrong with it.

use std::{fmt, sync::Arc};

/// A place in the text; line and column count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The keys and indices that lead to a value, e.g. `egress.allowedHosts[2]`.
///
/// Linked towards the root, so that deep texts with long keys cost no more than their own size.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Segment>>);

#[derive(Debug)]
struct Segment {
    parent: Path,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Key(Box<str>),
    Index(usize),
}

impl Path {
    /// The value under `key` of the mapping here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.into()))
    }

    /// The item at `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(Some(Arc::new(Segment {
            parent: self.clone(),
            step,
        })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(segment) = &self.0 else {
            return Ok(());
        };
        segment.parent.fmt(f)?;
        match &segment.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => {
                if segment.parent.0.is_some() {
                    f.write_str(".")?;
                }
                // A key may hold anything; control characters must not reach a terminal or a log.
                write!(f, "{}", key.escape_debug())
            }
        }
    }
}

/// Position and path of one value: all that is needed to report a fault about it later.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Where it starts.
    pub position: Position,
    /// What leads to it.
    pub path: Path,
}

/// One fault: where, under which key, what, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Fault {
    /// Where.
    pub position: Position,
    /// `egress.allowedHosts[2]`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.position)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// All faults and warnings of one text, in order of position.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Errors: the text is not to be used.
    pub errors: Vec<Fault>,
    /// Warnings: the text can be used, and somebody should look.
    pub warnings: Vec<Fault>,
}

impl Faults {
    /// No error (there may be warnings).
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Note an error.
    pub fn error(&mut self, place: &Place, message: impl Into<String>) {
        insert(&mut self.errors, place, message.into(), None);
    }

    /// Note an error and what to do about it.
    pub fn error_hint(
        &mut self,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        insert(&mut self.errors, place, message.into(), Some(hint.into()));
    }

    /// Note a warning, with what to do about it where that is known.
    pub fn warn(&mut self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        insert(&mut self.warnings, place, message.into(), hint);
    }

    /// Take over all faults of another reader of the same text.
    pub fn append(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
        self.errors.sort_by_key(|fault| fault.position);
        self.warnings.sort_by_key(|fault| fault.position);
    }

    /// Every fault with its source line and a caret, for a person at a terminal.
    #[must_use]
    pub fn render(&self, source: &str, file_name: &str) -> String {
        let lines: Vec<&str> = source.lines().collect();
        let mut out = String::new();
        for (label, list) in [("error", &self.errors), ("warning", &self.warnings)] {
            let mut cut = Cut::of(&lines);
            for fault in list {
                render_one(&mut out, label, fault, &mut cut, file_name);
            }
        }
        out
    }
}

impl fmt::Display for Faults {
    /// One line per error, then one per warning (marked so).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.errors {
            writeln!(f, "{fault}")?;
        }
        for fault in &self.warnings {
            writeln!(f, "warning: {fault}")?;
        }
        Ok(())
    }
}

/// Keep the list in order of position; faults at one place stay in the order they were found.
fn insert(list: &mut Vec<Fault>, place: &Place, message: String, hint: Option<String>) {
    let fault = Fault {
        position: place.position,
        path: place.path.to_string(),
        message,
        hint,
    };
    let at = list.partition_point(|other| other.position <= fault.position);
    list.insert(at, fault);
}

/// Characters of a source line shown at most, so that one-line JSON stays readable.
const SHOWN: usize = 100;

/// Parts of lines. In a line of a whole policy thousands of faults may stand, and each goes on where the one before it was.
struct Cut<'a> {
    lines: &'a [&'a str],
    index: usize,
    /// How many characters of that line were passed, and what follows them.
    passed: usize,
    rest: &'a str,
}

impl<'a> Cut<'a> {
    fn of(lines: &'a [&'a str]) -> Self {
        Self {
            lines,
            index: 0,
            passed: 0,
            rest: lines.first().copied().unwrap_or_default(),
        }
    }

    /// What a line holds from a character on.
    fn part(&mut self, index: usize, start: usize) -> Option<&'a str> {
        let line = *self.lines.get(index)?;
        if index != self.index || start < self.passed {
            (self.index, self.passed, self.rest) = (index, 0, line);
        }
        let mut chars = self.rest.chars();
        let ahead = start - self.passed;
        if ahead > 0 && chars.nth(ahead - 1).is_none() {
            return Some("");
        }
        (self.passed, self.rest) = (start, chars.as_str());
        Some(self.rest)
    }
}

fn render_one(out: &mut String, label: &str, fault: &Fault, cut: &mut Cut<'_>, file_name: &str) {
    use fmt::Write as _;
    let Position { line, column } = fault.position;
    let path = if fault.path.is_empty() { "" } else { ": " };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{label}: {}{path}{}", fault.path, fault.message);
    let _ = writeln!(out, "  --> {file_name}:{line}:{column}");
    let index = (line as usize).checked_sub(1);
    let column = (column as usize).saturating_sub(1);
    let start = if column > SHOWN * 3 / 4 {
        column - SHOWN / 2
    } else {
        0
    };
    if let Some(text) = index.and_then(|index| cut.part(index, start)) {
        let shown: String = text.chars().take(SHOWN).map(printable).collect();
        let width = line.to_string().len();
        let (gap, caret) = (" ".repeat(width), " ".repeat(column - start));
        let _ = writeln!(out, " {gap} |\n {line} | {shown}\n {gap} | {caret}^");
    }
    if let Some(hint) = &fault.hint {
        let _ = writeln!(out, "   = {hint}");
    }
}

fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
